"""Detectors on a pretrained network, from torchvision's parts.

Fast R-CNN (Girshick, 2015) for AlexNet and VGG16: given regions, RoI pooling on conv5, the
network's own fc6 and fc7, and two heads. Faster R-CNN (Ren et al., 2015) for ResNets, with layer4
as the head (C4) or on a feature pyramid (FPN; Lin et al., 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import MultiScaleRoIAlign, RoIPool
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from uic_plugin.data.voc_folder import VOC_CLASSES
from uic_plugin.evaluation.voc.network import convolutions, resnet_stages, staged_network
from uic_plugin.evaluation.voc.settings import DetectSettings

NECKS = ("c4", "fpn")
_NMS = 0.3  # Girshick et al., R-CNN, 2014


class FastRCNN(nn.Module):
    """Fast R-CNN on the convolutions, fc6 and fc7 of an AlexNet or VGG16.

    Args:
        network: with fc6 and fc7.
        num_classes: without the background.
        mean, std: of the network's normalisation.
        min_size: shorter side in pixels that images are scaled to.
        max_size: limit of the longer side in pixels, which has priority.
        regions: regions per image in a training step.

    Raises:
        ValueError: for a network without fc6 and fc7.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        min_size: int = 600,
        max_size: int = 1000,
        regions: int = 64,
    ) -> None:
        super().__init__()
        staged = staged_network(network)
        self.transform = GeneralizedRCNNTransform(min_size, max_size, list(mean), list(std))
        self.convolutions = convolutions(staged)
        width = int(staged.num_features)
        predictor = FastRCNNPredictor(width, num_classes + 1)
        nn.init.normal_(predictor.cls_score.weight, std=0.01)
        nn.init.zeros_(predictor.cls_score.bias)
        nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
        nn.init.zeros_(predictor.bbox_pred.bias)
        self.heads = RoIHeads(
            _RegionPool(staged.last_side, 1 / stride_of(self.convolutions)),
            nn.Sequential(nn.Flatten(), staged.classifier),
            predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.05,
            nms_thresh=_NMS,
            detections_per_img=100,
        )

    def forward(
        self,
        images: list[torch.Tensor],
        regions: list[torch.Tensor],
        targets: list[dict[str, torch.Tensor]] | None = None,
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Return losses in training mode, else detections.

        Args:
            images: (3, H, W) each, values from 0 to 1.
            regions: (P, 4) of each, in its pixels.
            targets: `boxes` (B, 4) and `labels` (B,) of each, from 1; for training.

        Returns:
            Losses by name; or `boxes`, `labels` (from 1) and `scores` of each image.
        """
        before = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, targets = self.transform(images, targets)
        scaled = [
            resize_boxes(boxes, old, new)
            for boxes, old, new in zip(regions, before, batch.image_sizes, strict=True)
        ]
        maps = {"conv5": self.convolutions(batch.tensors)}
        found, losses = self.heads(maps, scaled, batch.image_sizes, targets)
        if self.training:
            return losses
        return self.transform.postprocess(found, batch.image_sizes, before)


class _RegionPool(nn.Module):
    """RoI pooling with the signature that torchvision's heads expect."""

    def __init__(self, side: int, scale: float) -> None:
        super().__init__()
        self.pool = RoIPool(side, scale)

    def forward(
        self, maps: dict[str, torch.Tensor], regions: list[torch.Tensor], sizes: object
    ) -> torch.Tensor:
        # the operation does not support bfloat16
        return self.pool(maps["conv5"].float(), [boxes.float() for boxes in regions])


def faster_rcnn(
    network: nn.Module,
    num_classes: int,
    *,
    neck: str,
    mean: Sequence[float],
    std: Sequence[float],
    min_size: int = 600,
    max_size: int = 1000,
    regions: int | None = None,
    test_regions: int | None = None,
) -> FasterRCNN:
    """Return torchvision's Faster R-CNN on a ResNet.

    Args:
        network: the ResNet.
        num_classes: without the background.
        neck: "c4": regions from layer3, layer4 is the head; "fpn": a pyramid of all four stages.
        mean, std, min_size, max_size: see `FastRCNN`.
        regions: regions per image in a training step; default 128 (C4) or 512 (FPN).
        test_regions: regions per image in a test; default 300 (C4) or 1000 (FPN).

    Raises:
        ValueError: for another network or neck.
    """
    if neck not in NECKS:
        raise ValueError(f"--neck must be {' or '.join(NECKS)}, got {neck!r}")
    channels = resnet_stages(network)
    sizes: dict[str, Any] = {"image_mean": list(mean), "image_std": list(std)}
    sizes.update(min_size=min_size, max_size=max_size)
    usual = (128, 300) if neck == "c4" else (512, 1000)
    sizes.update(box_batch_size_per_image=regions or usual[0])
    sizes.update(rpn_post_nms_top_n_test=test_regions or usual[1])
    if neck == "fpn":
        layers = {name: str(number) for number, name in enumerate(channels)}
        pyramid = BackboneWithFPN(
            network, layers, list(channels.values()), 256, extra_blocks=LastLevelMaxPool()
        )
        return FasterRCNN(pyramid, num_classes + 1, **sizes)
    body = IntermediateLayerGetter(network, {"layer3": "0"})
    body.out_channels = channels["layer3"]
    head = nn.Sequential(network.get_submodule("layer4"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return FasterRCNN(
        body,
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=head,
        box_predictor=FastRCNNPredictor(channels["layer4"], num_classes + 1),
        **sizes,
    )


def make_detector(
    network: nn.Module, settings: DetectSettings, mean: Sequence[float], std: Sequence[float]
) -> nn.Module:
    """Return the detector of VOC's classes that the settings ask for.

    Raises:
        ValueError: for a network that the detector does not support.
    """
    sizes: dict[str, Any] = {"mean": mean, "std": std}
    sizes.update(min_size=settings.min_size, max_size=settings.max_size)
    if settings.detector == "fast-rcnn":
        return FastRCNN(network, len(VOC_CLASSES), regions=settings.regions or 64, **sizes)
    sizes.update(regions=settings.regions, test_regions=settings.test_regions)
    return faster_rcnn(network, len(VOC_CLASSES), neck=settings.neck, **sizes)


def stride_of(layers: nn.Module) -> int:
    """Return the number of image pixels between two neighbours of the last map."""
    return math.prod(
        module.stride if isinstance(module.stride, int) else module.stride[0]
        for module in layers.modules()
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d))
    )
