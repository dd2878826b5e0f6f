"""A run's network for the tasks of PASCAL VOC."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import transforms

from uic_plugin.data.center import center_crop, find_normalize
from uic_plugin.data.voc_folder import VocMasks, VocObjects
from uic_plugin.evaluation.voc.network import estimate_statistics
from uic_plugin.networks.layers import FEATURES, layer_shapes
from uic_plugin.networks.weights import weights_fingerprint
from uic_plugin.runs.run import Run

_STATISTICS_IMAGES = 64


@dataclass(frozen=True)
class PretrainedNetwork:
    """What a task starts from.

    Attributes:
        backbone: images (B, 3, H, W) to features, on the device it computes on.
        mean, std: of its normalisation, a value per channel.
        crop: side in pixels of the views that it was trained on.
        run: its folder.
        untrained: whether its weights are the random ones.
        num_workers: processes that read images.
    """

    backbone: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    run: Path
    untrained: bool
    num_workers: int

    @property
    def num_features(self) -> int:
        """What it puts out for an image."""
        return layer_shapes(self.backbone, [FEATURES], self.crop)[FEATURES][0]

    @property
    def normalize(self) -> Any:
        """A view with values in [0, 1] to what the network takes."""
        return transforms.Normalize(self.mean, self.std)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.backbone.parameters()).device

    def fingerprint(self) -> str:
        """Identifies its weights."""
        return weights_fingerprint(self.backbone)

    def use_statistics_of(self, images: VocObjects | VocMasks) -> None:
        """Give BatchNorm layers of random weights the statistics of some of a task's images."""
        if self.untrained:
            estimate_statistics(self.backbone, self._batches(images))

    def _batches(self, images: VocObjects | VocMasks) -> Iterator[torch.Tensor]:
        view = transforms.Compose([*center_crop(self.crop), transforms.ToTensor(), self.normalize])
        numbers = iter(range(min(_STATISTICS_IMAGES, len(images))))
        while part := list(itertools.islice(numbers, 16)):
            yield torch.stack([view(images.reader[number][0]) for number in part])


def pretrained_network(
    run: Path, *, untrained: bool = False, overrides: Sequence[str] = ()
) -> PretrainedNetwork:
    """Return the network of a run folder or checkpoint.

    Raises:
        FileNotFoundError: if there is no such run.
        ValueError: for weights that do not fit, or an override of what the run does not have.
    """
    opened = Run.open(run, overrides, untrained=untrained)
    normalize = find_normalize(opened.augmentation)
    return PretrainedNetwork(
        backbone=opened.backbone.to(opened.device),
        mean=tuple(map(float, normalize.mean)),
        std=tuple(map(float, normalize.std)),
        crop=int(opened.config.augmentations[0].crop_size),
        run=opened.folder,
        untrained=untrained,
        num_workers=int(opened.config.data.num_workers),
    )
