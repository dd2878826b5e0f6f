"""What decides a training, as a hash: equal ones are one run, whichever comparison asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uic_plugin.recipes_path import TYPED_KEY


def clock_of(cfg: DictConfig) -> str:
    """Return whose seconds a budget of minutes is of: "cpu_" the processor's, "" the wall's."""
    from uic_plugin.runs.settings import uses_processor_clock

    # a training with such a budget has one thread, however many this process has
    return "cpu_" if uses_processor_clock(cfg, threads=1) else ""


def settings_digest(cfg: DictConfig, without: Sequence[str] = ()) -> str:
    """Return a hash of what decides a training, not of where it runs or how it is evaluated.

    Workers change no training but one with a budget of minutes, whose seconds are the wall's with
    them and, on the CPU, the processor's without.

    Args:
        cfg: the composed recipe.
        without: further settings that are left out.
    """
    cfg = cfg.copy()
    for key in without:
        if OmegaConf.select(cfg, key) is not None:
            OmegaConf.update(cfg, key, None)
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    for key in ("name", "run_dir", "seed", "linear", "knn", TYPED_KEY):
        content.pop(key, None)
    content["data"].pop("num_workers", None)
    if not content["data"].get("held_out"):  # came later: earlier runs keep their names
        content["data"].pop("held_out", None)
    if content.get("max_seconds") is None:
        content.pop("max_seconds", None)
    elif clock_of(cfg) != _default_clock(cfg):  # the default's runs keep their names
        content["clock"] = clock_of(cfg) or "wall"
    if content.get("host") == "auto":
        content.pop("host")
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _default_clock(cfg: DictConfig) -> str:
    """Return the clock of a comparison that sets no workers."""
    cfg = cfg.copy()
    cfg.data.num_workers = 0
    return clock_of(cfg)
