"""Multi-label classification of PASCAL VOC: fine-tuned, tested on ten crops (UIC, Table 5).

Source: the protocol of Caron et al., 2018, section 4.3; the loss leaves out classes whose objects
in an image are all difficult.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import transforms

from uic_plugin.data.center import with_border
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.voc_folder import VOC_CLASSES, VocObjects
from uic_plugin.evaluation.voc.average_precision import AveragePrecision, classification_precision
from uic_plugin.evaluation.voc.network import renew_linear
from uic_plugin.evaluation.voc.settings import ClassifySettings
from uic_plugin.networks.staged import StagedNetwork

View = Callable[[Image.Image], torch.Tensor]


class MultiLabelNetwork(nn.Module):
    """A network followed by one logit per class.

    Args:
        backbone: images (B, 3, H, W) to features (B, D).
        num_features: D.
        settings: the trained layers.
        seed: of the new layers.
    """

    def __init__(
        self, backbone: nn.Module, num_features: int, settings: ClassifySettings, seed: int = 0
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc8 = nn.Linear(num_features, len(VOC_CLASSES))
        fc = backbone.classifier if isinstance(backbone, StagedNetwork) else nn.Sequential()
        renew_linear(nn.ModuleList([self.fc8] if settings.keep_fc else [fc, self.fc8]), seed)
        self.frozen: list[nn.Module] = []
        if settings.train == "fc6-8":
            body = backbone.features if isinstance(backbone, StagedNetwork) else backbone
            self.frozen = [body.requires_grad_(False)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 20)."""
        return self.fc8(self.backbone(images))


class ClassifiedImages(Dataset[Any]):
    """Items (view, presence of each class).

    Args:
        images: with their objects.
        view: an image to a tensor.
    """

    def __init__(self, images: VocObjects, view: View) -> None:
        self.source, self.view = images, view
        self.presence = images.presence()
        self.samples = [(path, 0) for path in images.reader.images]  # names bad images

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.view(self.source.image(number)), self.presence[number]


def presence_loss(logits: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
    """Return binary cross-entropy, summed over classes, averaged over images; NaN is left out."""
    counted = ~presence.isnan()
    loss = F.binary_cross_entropy_with_logits(logits[counted], presence[counted], reduction="sum")
    return loss / len(logits)


def training_view(settings: ClassifySettings, normalize: transforms.Normalize) -> View:
    """Return the transform to a random square of the image, flipped with probability 0.5."""
    scale = (settings.min_scale, settings.max_scale)
    return transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomResizedCrop(settings.crop, scale=scale, ratio=(1, 1)),
            transforms.ToTensor(),
            normalize,
        ]
    )


def evaluation_view(settings: ClassifySettings, normalize: transforms.Normalize) -> View:
    """Return the transform of an image to crops (10 or 1, 3, H, W)."""
    cut: Any = transforms.TenCrop(settings.crop)
    if settings.crops == 1:
        cut = transforms.Compose([transforms.CenterCrop(settings.crop), lambda image: (image,)])
    tensor = transforms.ToTensor()
    return transforms.Compose(
        [
            transforms.Resize(settings.resize or with_border(settings.crop)),
            cut,
            lambda crops: torch.stack([normalize(tensor(crop)) for crop in crops]),
        ]
    )


def classification_losses(
    model: nn.Module, batch: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the losses of a training step by name."""
    device = next(model.parameters()).device
    views, presence = batch
    return {"loss": presence_loss(model(views.to(device)), presence.to(device))}


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module,
    images: ClassifiedImages,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[AveragePrecision], torch.Tensor]:
    """Return the average precision of each class, and the scores (N, 20) summed over crops.

    Args:
        model: on its device.
        images: with views that are crops (10 or 1, 3, H, W).
        num_workers: processes that read images.
        progress: called with the number of images done, and of all.
    """
    device = next(model.parameters()).device
    model.eval()
    scores: list[torch.Tensor] = []
    for crops, presence in view_loader(images, seed=0, batch_size=4, num_workers=num_workers):
        logits = model(crops.flatten(0, 1).to(device)).cpu()
        scores.append(logits.view(len(presence), crops.shape[1], -1).sum(1))
        progress(sum(map(len, scores)), len(images))
    together = torch.cat(scores)
    return classification_precision(together, images.presence), together
