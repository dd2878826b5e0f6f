"""Methods, free of any host."""

from __future__ import annotations

from typing import Any

from uic_plugin.methods.deepcluster import DeepCluster
from uic_plugin.methods.instdisc import InstDisc
from uic_plugin.methods.kept_labels import CHECKPOINT_KEY
from uic_plugin.methods.options import MethodOptions
from uic_plugin.methods.pseudo_label import PseudoLabelMethod
from uic_plugin.methods.rotnet import NUM_ROTATIONS, RotNet
from uic_plugin.methods.selflabel import SelfLabel
from uic_plugin.methods.supervised import Supervised
from uic_plugin.methods.uic import UIC
from uic_plugin.methods.uic_options import UICOptions
from uic_plugin.methods.uic_variants import VariedUIC
from uic_plugin.methods.untrained import Untrained

__all__ = [
    "CHECKPOINT_KEY",
    "NUM_ROTATIONS",
    "OWN_METHODS",
    "UIC",
    "DeepCluster",
    "InstDisc",
    "MethodOptions",
    "PseudoLabelMethod",
    "RotNet",
    "SelfLabel",
    "Supervised",
    "UICOptions",
    "Untrained",
    "VariedUIC",
    "has_pseudo_labels",
]

# what this plugin registers with the host, by the name that a recipe says
OWN_METHODS: dict[str, Any] = {
    method.name: method
    for method in (VariedUIC, DeepCluster, SelfLabel, Supervised, Untrained, RotNet, InstDisc)
}


def has_pseudo_labels(name: str) -> bool:
    """Tell whether a method of this name keeps labels of all images."""
    method = OWN_METHODS.get(name)
    return method is not None and issubclass(method, PseudoLabelMethod)
