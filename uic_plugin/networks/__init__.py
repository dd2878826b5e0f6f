"""Networks and heads that the hosts do not have."""

from uic_plugin.networks.alexnet import AlexNet
from uic_plugin.networks.conv4 import Conv4
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.networks.registry import BACKBONES, find_backbone
from uic_plugin.networks.vgg16 import VGG16

__all__ = ["BACKBONES", "VGG16", "AlexNet", "Conv4", "PseudoClassHead", "find_backbone"]
