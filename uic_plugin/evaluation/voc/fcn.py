"""Fully convolutional networks on a pretrained network (Long et al., FCN, 2015).

AlexNet and VGG16 become FCN-32s, 16s or 8s: fc6 and fc7 as convolutions, with the scores of the
last, the last two or the last three poolings fused. The names refer to networks with a stride of 32
pixels at the last pooling; in networks for small images it is 16 or less, and the scores' strides
are smaller accordingly. ResNets get torchvision's FCN head on a dilated layer4.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.fcn import FCN, FCNHead

from uic_plugin.evaluation.voc.network import resnet_stages, staged_network
from uic_plugin.networks.staged import StagedNetwork

HEADS = ("32s", "16s", "8s")
OUTPUT_STRIDES = (8, 16, 32)


class StagedFCN(nn.Module):
    """FCN of an AlexNet or VGG16, with its fc6 and fc7 as convolutions.

    Args:
        network: with fc6 and fc7.
        num_classes: with the background.
        head: "32s", "16s" or "8s": scores of the last 1, 2 or 3 poolings.

    Raises:
        ValueError: for a network without fc6 and fc7, or another head.
    """

    def __init__(self, network: nn.Module, num_classes: int, head: str = "32s") -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"--head must be one of {', '.join(HEADS)}, got {head!r}")
        staged = staged_network(network)
        self.sobel = staged.sobel
        self.stages, channels = _stages(staged.features)
        self.top = _as_convolutions(staged)
        wanted = len(self.stages) - 1 - HEADS.index(head)
        inputs = [int(staged.num_features), *reversed(channels[wanted:-1])]
        layers = [nn.Conv2d(count, num_classes, 1) for count in inputs]
        for layer in layers:  # all classes are equally likely at first
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.scores = nn.ModuleList(layers)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `out`: logits (B, classes, H, W) at the size of the images."""
        x = self.sobel(images)
        pooled = []
        for stage in self.stages:
            x = stage(x)
            pooled.append(x)
        score = self.scores[0](self.top(x))
        for layer, below in zip(list(self.scores)[1:], pooled[-2::-1], strict=False):
            score = _enlarged(score, below.shape[-2:]) + layer(below)
        return {"out": _enlarged(score, images.shape[-2:])}


def resnet_fcn(network: nn.Module, num_classes: int, output_stride: int = 8) -> FCN:
    """Return torchvision's FCN on a ResNet, whose last stages are dilated instead of strided.

    Args:
        network: the ResNet; modified.
        num_classes: with the background.
        output_stride: stride of layer4's map in pixels: 8, 16 or 32.

    Raises:
        ValueError: for another network or stride.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"--output-stride must be 8, 16 or 32, got {output_stride}")
    channels = resnet_stages(network)
    rate = 1
    for name, stride in (("layer3", 16), ("layer4", 32)):
        if stride > output_stride:
            _dilate(getattr(network, name), rate)
            rate *= 2
    body = IntermediateLayerGetter(network, {"layer4": "out"})
    return FCN(body, FCNHead(channels["layer4"], num_classes))


def _dilate(stage: nn.Module, rate: int) -> None:
    """Remove a stage's stride of 2, so that its kernels still reach as far as before.

    The kernel that had the stride reads the same map as before, later ones a map twice as fine.
    """
    strided = False
    for module in stage.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        here = rate if not strided else 2 * rate
        if module.stride == (2, 2):
            module.stride = (1, 1)
            strided = strided or module.kernel_size == (3, 3)
        if module.kernel_size == (3, 3):
            module.dilation, module.padding = (here, here), (here, here)


def _stages(features: nn.Sequential) -> tuple[nn.ModuleList, list[int]]:
    """Return the layers up to each pooling, and the number of their channels."""
    stages, channels = [], []
    part: list[nn.Module] = []
    for module in features:
        part.append(module)
        if isinstance(module, nn.MaxPool2d):
            stages.append(nn.Sequential(*part))
            channels.append([m for m in part if isinstance(m, nn.Conv2d)][-1].out_channels)
            part = []
    return nn.ModuleList(stages), channels


def _as_convolutions(staged: StagedNetwork) -> nn.Sequential:
    """Return fc6 and fc7 as convolutions with their weights, to run over the whole last map."""
    layers: list[nn.Module] = []
    side = staged.last_side
    for module in staged.classifier:
        if not isinstance(module, nn.Linear):
            layers.append(module)
            continue
        channels = module.in_features // side**2
        convolution = nn.Conv2d(channels, module.out_features, side, padding="same")
        with torch.no_grad():
            convolution.weight.copy_(module.weight.view_as(convolution.weight))
            convolution.bias.copy_(module.bias)  # type: ignore[union-attr]
        layers.append(convolution)
        side = 1
    return nn.Sequential(*layers)


def _enlarged(scores: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)
