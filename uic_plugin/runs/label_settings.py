"""How a folder of images is labelled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelSettings:
    """How images are labelled.

    Attributes:
        view: "center", or "train" for one random view of the recipe's augmentation.
        mode: "eval", or "train" for dropout and batch statistics as in training.
        batch_size: images at once; in mode "train" it changes the statistics.
        classes: of a run's several classifiers, the first one with so many classes; 0: the first.
    """

    view: str = "center"
    mode: str = "eval"
    batch_size: int = 256
    classes: int = 0

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("view", self.view, ("center", "train")),
            ("mode", self.mode, ("eval", "train")),
        ):
            if value not in choices:
                raise ValueError(f"--{name} must be one of {', '.join(choices)}, got {value!r}")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        if self.classes < 0:
            raise ValueError(f"--classes must be at least 0, got {self.classes}")
