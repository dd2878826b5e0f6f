"""Training and testing a detector on PASCAL VOC (UIC, Table 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_tensor

from uic_plugin.data.loaders import view_loader
from uic_plugin.data.voc_folder import VOC_CLASSES, VocObjects
from uic_plugin.evaluation.voc.average_precision import (
    AveragePrecision,
    Detections,
    detection_precision,
)
from uic_plugin.evaluation.voc.detectors import FastRCNN
from uic_plugin.evaluation.voc.proposals import ProposalCache

Item = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]  # image, regions, target


class DetectionImages(Dataset[Item]):
    """Items (image, regions, target) of the images that have objects to train on.

    Args:
        images: with their objects; difficult ones are left out.
        proposals: regions of each image; None for empty regions.
        mirror: whether to flip views with probability 0.5.
        all_images: include images without objects, for a test.
    """

    def __init__(
        self,
        images: VocObjects,
        proposals: ProposalCache | None,
        *,
        mirror: bool = False,
        all_images: bool = False,
    ) -> None:
        self.source, self.proposals, self.mirror = images, proposals, mirror
        self.numbers = [
            number
            for number, objects in enumerate(images.objects)
            if all_images or bool((~objects.difficult).any())
        ]
        self.samples = [(images.reader.images[number], 0) for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Item:
        number = self.numbers[index]
        image = to_tensor(self.source.image(number))
        objects = self.source.objects[number]
        boxes = objects.boxes[~objects.difficult]
        regions = torch.empty(0, 4)
        if self.proposals is not None:
            regions = self.proposals.of(self.source.reader.images[number])
        if self.mirror and bool(torch.rand(()) < 0.5):
            width = image.shape[-1]
            image, boxes, regions = image.flip(-1), _mirror(boxes, width), _mirror(regions, width)
        labels = objects.labels[~objects.difficult] + 1  # 0 is the background
        return image, regions, {"boxes": boxes, "labels": labels}


def _mirror(boxes: torch.Tensor, width: int) -> torch.Tensor:
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)


def as_lists(items: list[Item]) -> tuple[list[Any], ...]:
    """Collate items whose images have different sizes."""
    return tuple(map(list, zip(*items, strict=True)))


def detection_losses(model: nn.Module, batch: tuple[list[Any], ...]) -> dict[str, torch.Tensor]:
    """Return the losses of a training step by torchvision's names."""
    return dict(model(*_inputs(model, batch, next(model.parameters()).device)))


def _inputs(
    model: nn.Module, batch: tuple[list[Any], ...], device: torch.device
) -> list[list[Any]]:
    images, regions, targets = batch
    inputs = [[image.to(device) for image in images]]
    if isinstance(model, FastRCNN):
        inputs.append([boxes.to(device) for boxes in regions])
    if model.training:
        inputs.append([{k: v.to(device) for k, v in target.items()} for target in targets])
    return inputs


@torch.no_grad()
def evaluate_detector(
    model: nn.Module,
    images: VocObjects,
    proposals: ProposalCache | None,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Detections]:
    """Return what a detector finds in each image."""
    device = next(model.parameters()).device
    model.eval()
    loader = view_loader(
        DetectionImages(images, proposals, all_images=True),
        seed=0,
        batch_size=1,
        num_workers=num_workers,
        collate=as_lists,
    )
    results: list[Detections] = []
    for batch in loader:
        for found in model(*_inputs(model, batch, device)):
            boxes, labels, scores = (found[k].cpu() for k in ("boxes", "labels", "scores"))
            results.append(Detections(boxes, labels - 1, scores))
        progress(len(results), len(images))
    return results


def precision_of(found: list[Detections], images: VocObjects) -> list[AveragePrecision]:
    """Return the average precision of each class at an overlap of 0.5."""
    objects = images.objects
    return detection_precision(
        found,
        [o.boxes for o in objects],
        [o.labels for o in objects],
        [o.difficult for o in objects],
        num_classes=len(VOC_CLASSES),
    )
