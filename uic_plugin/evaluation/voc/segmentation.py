"""Training and testing a segmentation network on PASCAL VOC (UIC, Table 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms.functional import pad, resize, to_tensor
from torchvision.transforms.v2.functional import crop

from uic_plugin.data.loaders import view_loader
from uic_plugin.data.voc_folder import IGNORED, VOC_CLASSES, VocMasks
from uic_plugin.evaluation.voc.mean_iou import ConfusionMatrix
from uic_plugin.evaluation.voc.settings import SegmentSettings

NUM_CLASSES = len(VOC_CLASSES) + 1  # with the background


class SegmentedImages(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Items (image (3, H, W), mask (H, W)).

    Args:
        images: with their masks.
        settings: of the views.
        normalize: applied to tensors with values in [0, 1].
        train: random crops of one size, else whole images with masks of their original size.
    """

    def __init__(
        self,
        images: VocMasks,
        settings: SegmentSettings,
        normalize: Callable[[torch.Tensor], torch.Tensor],
        *,
        train: bool,
    ) -> None:
        self.source, self.settings, self.normalize = images, settings, normalize
        self.train = train
        self.samples = [(path, 0) for path in images.reader.images]  # names bad images

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self.source.item(number)
        view = to_tensor(image)
        if self.settings.size is not None:
            view = resize(view, [self.settings.size], antialias=True)
        if self.train:
            return self._random_view(view, mask)
        return self.normalize(view), mask

    def _random_view(
        self, view: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = self.settings.min_scale, self.settings.max_scale
        factor = low + (high - low) * float(torch.rand(()))
        size = [max(1, round(side * factor)) for side in view.shape[-2:]]
        view = self.normalize(resize(view, size, antialias=True))
        mask = F.interpolate(mask[None, None], size=size, mode="nearest")[0, 0]
        side = self.settings.crop
        if side:
            lacking = [0, 0, max(0, side - size[1]), max(0, side - size[0])]
            view, mask = pad(view, lacking), pad(mask, lacking, fill=IGNORED)
            top, left = (int(torch.randint(length - side + 1, ())) for length in mask.shape)
            view, mask = crop(view, top, left, side, side), crop(mask, top, left, side, side)
        if bool(torch.rand(()) < 0.5):
            view, mask = view.flip(-1), mask.flip(-1)
        return view, mask


def mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of logits (B, C, H, W), mean over the pixels that count."""
    counted = (masks != IGNORED).sum().clamp(min=1)
    loss = F.cross_entropy(logits, masks.long(), ignore_index=IGNORED, reduction="sum")
    return loss / counted


def segmentation_losses(model: nn.Module, batch: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the losses of a training step by name."""
    device = next(model.parameters()).device
    views, masks = batch
    return {"loss": mask_loss(model(views.to(device))["out"], masks.to(device))}


@torch.no_grad()
def evaluate_segmenter(
    model: nn.Module,
    images: SegmentedImages,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ConfusionMatrix, list[torch.Tensor]]:
    """Return the confusion over all images, and masks (H, W) uint8 at the images' size.

    Args:
        model: on its device.
        images: whole images.
        num_workers: processes that read images.
        progress: called with the number of images done, and of all.
    """
    device = next(model.parameters()).device
    model.eval()
    matrix = ConfusionMatrix(NUM_CLASSES)
    masks: list[torch.Tensor] = []
    for view, truth in view_loader(images, seed=0, batch_size=1, num_workers=num_workers):
        logits = model(view.to(device))["out"]
        size = truth.shape[-2:]
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        predicted = logits.argmax(1)[0].to(torch.uint8).cpu()
        matrix.add(truth[0], predicted)
        masks.append(predicted)
        progress(len(masks), len(images))
    return matrix, masks
