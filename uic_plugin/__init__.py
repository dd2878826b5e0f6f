"""Unsupervised Image Classification as a plugin for solo-learn.

    from uic_plugin import Run, compose_recipe, pretrain

    result = pretrain(compose_recipe("digits/uic", ["max_epochs=10", "run_dir=runs/digits"]))
    labels, confidence = Run.open(result.run_dir).predict("my/images")

The core works without any host: `PseudoLabelBank`, `EmptyClassFixer`, `ClassBalancedSampler`.

Importing this package imports neither solo-learn nor Lightning, nor torch: what is set before torch
is loaded (`uic_plugin.threads`) can be set behind it. Names are imported on first use; `Run`,
`pretrain` and `UICMethod` import solo-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uic_plugin.pseudo_labels import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank
    from uic_plugin.recipes_path import compose_recipe
    from uic_plugin.runs.run import Run
    from uic_plugin.runs.training import PretrainResult, pretrain

__version__ = "0.1.0"
_HOMES = {
    "ClassBalancedSampler": "pseudo_labels",
    "EmptyClassFixer": "pseudo_labels",
    "PretrainResult": "runs.training",
    "PseudoLabelBank": "pseudo_labels",
    "Run": "runs.run",
    "compose_recipe": "recipes_path",
    "pretrain": "runs.training",
}
__all__ = [
    "ClassBalancedSampler",
    "EmptyClassFixer",
    "PretrainResult",
    "PseudoLabelBank",
    "Run",
    "__version__",
    "compose_recipe",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name == "UICMethod":
        from uic_plugin.hosts import load_host

        return load_host().UICMethod
    if name in _HOMES:
        return getattr(import_module(f"uic_plugin.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'uic_plugin' has no attribute {name!r}")
