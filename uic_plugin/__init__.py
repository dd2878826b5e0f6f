"""Unsupervised Image Classification as a plugin for solo-learn.

    from uic_plugin import PseudoLabelBank, EmptyClassFixer, ClassBalancedSampler

Importing this package imports neither solo-learn nor Lightning; `uic_plugin.UICMethod` does, on
first use.
"""

from __future__ import annotations

from typing import Any

from uic_plugin.pseudo_labels import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank

__version__ = "0.1.0"
__all__ = [
    "ClassBalancedSampler",
    "EmptyClassFixer",
    "PseudoLabelBank",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "UICMethod":
        from uic_plugin.hosts import load_host

        return load_host().UICMethod
    raise AttributeError(f"module 'uic_plugin' has no attribute {name!r}")
