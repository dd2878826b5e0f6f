"""Networks and heads that the hosts lack."""

from uic_plugin.networks.conv4 import Conv4
from uic_plugin.networks.heads import PseudoClassHead

BACKBONES = {"conv4": Conv4}

__all__ = ["BACKBONES", "Conv4", "PseudoClassHead"]
