"""Unsupervised Image Classification as a plugin for solo-learn.

    from uic_plugin import PseudoLabelBank, EmptyClassFixer, ClassBalancedSampler

Importing this package imports neither solo-learn nor Lightning, nor torch: what is set before torch
is loaded (`uic_plugin.threads`) can be set behind it. Names are imported on first use;
`uic_plugin.UICMethod` imports solo-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    if name in __all__:
        from uic_plugin import pseudo_labels

        return getattr(pseudo_labels, name)
    raise AttributeError(f"module 'uic_plugin' has no attribute {name!r}")
