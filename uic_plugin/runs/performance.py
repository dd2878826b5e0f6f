"""Settings of speed alone, under `performance` in a recipe: compiled networks, TF32, cuDNN.

    with tuned(cfg):
        compile_network(method, cfg)
        trainer.fit(...)

Compiled or not, the weights in a checkpoint have the same names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from uic_plugin.hosts import backbone_of
from uic_plugin.methods.base import HostMethod

MATMUL_PRECISIONS = (None, "highest", "high", "medium")
_FLAGS = ("compile", "persistent_workers")


def setting(cfg: DictConfig, name: str) -> Any:
    """Return a setting of `performance`, None where the recipe is older than the setting."""
    return OmegaConf.select(cfg, f"performance.{name}")


def check_performance(cfg: DictConfig) -> None:
    """Check the settings of a recipe.

    Raises:
        ValueError: for a value that cannot be, or a network to compile without a compiler.
    """
    for name in _FLAGS:
        if setting(cfg, name) not in (None, True, False):
            raise ValueError(
                f"performance.{name} must be true or false, got {setting(cfg, name)!r}"
            )
    if setting(cfg, "cudnn_benchmark") not in (None, True, False):
        raise ValueError(
            f"performance.cudnn_benchmark must be true, false or null, got "
            f"{setting(cfg, 'cudnn_benchmark')!r}"
        )
    precision = setting(cfg, "matmul_precision")
    if precision not in MATMUL_PRECISIONS:
        raise ValueError(
            f"performance.matmul_precision must be highest, high (TF32), medium or null, got "
            f"{precision!r}"
        )
    if setting(cfg, "compile"):
        _check_compiler()


def _check_compiler() -> None:
    """Refuse early what torch would refuse in the first step, with a page of text.

    Raises:
        ValueError: without a C++ compiler, which torch's code for the CPU needs, and that for a
            GPU to start its kernels.
    """
    named = os.environ.get("CXX")
    candidates = [named] if named else ["g++", "clang++", "c++"]
    if not any(shutil.which(name) for name in candidates):
        raise ValueError(
            f"performance.compile=true needs a C++ compiler, and {' or '.join(candidates)} is not "
            f"there: install one (apt-get install g++), name it in CXX, or set "
            f"performance.compile=false"
        )


@contextmanager
def tuned(cfg: DictConfig) -> Iterator[None]:
    """Multiply matrices in the recipe's precision as long as the context lasts.

    Args:
        cfg: `performance.matmul_precision`: "high" is TF32 on GPUs that have it; null leaves
            torch's own, which is "highest".
    """
    before = torch.get_float32_matmul_precision()
    precision = setting(cfg, "matmul_precision")
    if precision is not None:
        torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compile_network(method: HostMethod, cfg: DictConfig) -> None:
    """Have torch compile a method's network in its first step, if the recipe says so.

    In place, so that names of weights stay: `torch.compile` of a module would wrap it and put
    `_orig_mod.` before them.

    Args:
        method: of the host, or ours.
        cfg: `performance.compile`.
    """
    if setting(cfg, "compile"):
        backbone_of(method).compile()
