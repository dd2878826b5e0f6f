"""Settings of the tasks of PASCAL VOC, which are also options of their commands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

PRECISIONS = ("32", "bf16")
POLICIES = ("step", "poly", "constant")
TRAINED = ("fc6-8", "all")
MODES = ("fast", "quality")
DETECTORS = ("fast-rcnn", "faster-rcnn")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Schedule:
    """Number of iterations, learning rate and batch size.

    Attributes:
        iterations: number of steps.
        batch_size: images per step.
        lr: learning rate at the start.
        policy: "step" multiplies it by `lr_decay` every `lr_step` iterations, "poly" by
            (1 - i / iterations) ** power at iteration i, "constant" keeps it.
        lr_step: iterations between two steps of "step".
        lr_decay: factor of a step.
        power: exponent of "poly".
        warmup: iterations over which the learning rate rises from a thousandth of its value.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        clip: maximum norm of all gradients together; 0 for no clipping.
        precision: "32" or "bf16" of the training steps; tests run in float32.
        seed: of order, views, dropout and new layers.
        save_every: iterations between two checkpoints.
    """

    iterations: int
    batch_size: int
    lr: float
    policy: str = "step"
    lr_step: int = 5000
    lr_decay: float = 0.5
    power: float = 0.9
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-6
    clip: float = 10.0
    precision: str = "32"
    seed: int = 0
    save_every: int = 500

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "lr_step", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{_option(name)} must be at least 1, got {getattr(self, name)}")
        for name in ("momentum", "weight_decay", "clip", "warmup", "power"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{_option(name)} must be at least 0, got {getattr(self, name)}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"--lr must be above 0, got {self.lr}")
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"--lr-decay must be above 0 and at most 1, got {self.lr_decay}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"--precision must be 32 or bf16, got {self.precision!r}")
        if self.policy not in POLICIES:
            raise ValueError(f"--policy must be one of {', '.join(POLICIES)}, got {self.policy!r}")

    def lr_at(self, iteration: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        factor = 1.0
        if self.policy == "step":
            factor = self.lr_decay ** (iteration // self.lr_step)
        elif self.policy == "poly":
            factor = (1 - iteration / self.iterations) ** self.power
        if iteration < self.warmup:
            factor *= 0.001 + 0.999 * iteration / self.warmup
        return self.lr * factor


@dataclass(frozen=True)
class ClassifySettings:
    """Trained layers and views.

    Attributes:
        train: "fc6-8", the layers after the convolutions and the new one; or "all".
        keep_fc: start fc6 and fc7 from the pretrained weights instead of random ones.
        crop: side of a view in pixels.
        resize: shorter side before the crops of a test; 256 / 224 of the crop if None.
        min_scale: smallest share of the image that a training view shows.
        max_scale: largest share of the image that a training view shows.
        crops: crops of a test image: 10, or 1.
        batch_norm: statistics of BatchNorm: "fixed", or "train", those of the batch.
    """

    train: str = "all"
    keep_fc: bool = False
    crop: int = 224
    resize: int | None = None
    min_scale: float = 0.1
    max_scale: float = 0.5
    crops: int = 10
    batch_norm: str = "fixed"

    def __post_init__(self) -> None:
        if self.train not in TRAINED:
            raise ValueError(f"--train must be {' or '.join(TRAINED)}, got {self.train!r}")
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(
                f"--min-scale and --max-scale must be shares of an image, got {self.min_scale} "
                f"and {self.max_scale}"
            )
        if self.crops not in (1, 10):
            raise ValueError(f"--crops must be 1 or 10, got {self.crops}")
        if self.crop < 1 or (self.resize or self.crop) < self.crop:
            raise ValueError(f"no crop of {self.crop} pixels from {self.resize}: set --resize")


@dataclass(frozen=True)
class ProposalSettings:
    """Settings of the search.

    Attributes:
        mode: "fast" or "quality" (several times as many regions, tens of times slower).
        side: shorter side in pixels that an image is scaled to first; None for no scaling.
        smallest: minimum side of a region in pixels of the image.
        most: maximum number of regions per image; of more, so many are drawn at random.
    """

    mode: str = "fast"
    side: int | None = None
    smallest: int = 16
    most: int = 2000

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"--proposals must be {' or '.join(MODES)}, got {self.mode!r}")
        if (self.side is not None and self.side < 16) or self.smallest < 1 or self.most < 1:
            raise ValueError(
                f"--proposal-side must be at least 16 pixels, --proposal-smallest and "
                f"--proposal-most at least 1, got {self.side}, {self.smallest}, {self.most}"
            )


@dataclass(frozen=True)
class DetectSettings:
    """The detector and its sizes.

    Attributes:
        detector: "fast-rcnn" (AlexNet, VGG16) or "faster-rcnn" (ResNets).
        neck: of Faster R-CNN, "c4" or "fpn".
        min_size: shorter side of an image in pixels.
        max_size: longer side of an image in pixels, at most.
        regions: regions per image in a training step; by default 64, of Faster R-CNN 128 (c4) or
            512 (fpn).
        test_regions: regions of Faster R-CNN in a test; by default 300 (c4) or 1000 (fpn).
        batch_norm: statistics of BatchNorm: "fixed", or "train", those of the batch.
        proposals: of Fast R-CNN.
    """

    detector: str
    neck: str = "c4"
    min_size: int = 600
    max_size: int = 1000
    regions: int | None = None
    test_regions: int | None = None
    batch_norm: str = "fixed"
    proposals: ProposalSettings = field(default_factory=ProposalSettings)

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ValueError(f"--detector must be {' or '.join(DETECTORS)}, got {self.detector!r}")
        if not 32 <= self.min_size <= self.max_size:
            raise ValueError(
                f"--min-size must be at least 32 pixels and at most --max-size, got "
                f"{self.min_size} and {self.max_size}"
            )
        for name in ("regions", "test_regions"):
            given = getattr(self, name)
            if given is not None and given < 1:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} must be at least 1, got {given}")


@dataclass(frozen=True)
class SegmentSettings:
    """Training views, and BatchNorm.

    Attributes:
        size: shorter side in pixels that images are scaled to; None for no scaling.
        crop: side of a training view in pixels; smaller images are padded with ignored pixels. 0:
            whole images, one at a time, as FCN was trained.
        min_scale: smallest random factor that an image is scaled by.
        max_scale: largest random factor that an image is scaled by.
        batch_norm: statistics of BatchNorm: "fixed", or "train", those of the batch.
    """

    size: int | None = None
    crop: int = 480
    min_scale: float = 0.5
    max_scale: float = 2.0
    batch_norm: str = "fixed"

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(
                f"--min-scale and --max-scale must be above 0 and in this order, got "
                f"{self.min_scale} and {self.max_scale}"
            )
        if 0 < self.crop < 8 or self.crop < 0 or (self.size is not None and self.size < 8):
            raise ValueError(
                f"--crop and --size must be at least 8 pixels (--crop 0: whole images), got "
                f"{self.crop} and {self.size}"
            )
