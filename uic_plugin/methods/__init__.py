"""Methods, free of any host."""

from uic_plugin.methods.options import UICOptions
from uic_plugin.methods.pseudo_label import CHECKPOINT_KEY, PseudoLabelMethod
from uic_plugin.methods.uic import UIC

__all__ = ["CHECKPOINT_KEY", "UIC", "PseudoLabelMethod", "UICOptions"]
