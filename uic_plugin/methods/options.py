"""What a recipe may say under `method_kwargs` for `method: uic`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CHOICES = {
    "head": ("linear", "mlp"),
    "label_init": ("random", "balanced"),
    "views": (1, 2),
    "label_view": ("train", "center"),
    "on_bad_image": ("stop", "skip"),
}


@dataclass(frozen=True)
class UICOptions:
    """Options of UIC; defaults follow the paper (section 4.2).

    Attributes:
        num_pseudo_classes: K, at least 2 and at most the number of images.
        head: "linear", one linear layer to K logits; "mlp", an MLP before it (section 5.2).
        head_layers: layers of the MLP.
        head_width: width of every layer of the MLP.
        head_batch_norm: BatchNorm after every layer of the MLP.
        temperature: divides the logits in the loss, above 0.
        balanced_sampling: draw all classes equally often; off: every image once.
        fix_empty_classes: split the largest class for each empty one.
        label_init: "random", independent draws; "balanced", equal class sizes.
        views: 1: the loss and the next label come from one view; 2: the label from the first,
            the loss on the second.
        label_view: "train": labels come from the training step's own view; "center": from a pass
            over centred views at the end of each epoch, network in eval mode (Table 3).
        fixed_labels: label file, as `uic label` writes it; its labels never change (Table 2).
        on_bad_image: "stop" at an unreadable image, or "skip" it for the next readable one.
    """

    num_pseudo_classes: int = 3000
    head: str = "linear"
    head_layers: int = 2
    head_width: int = 2048
    head_batch_norm: bool = True
    temperature: float = 1.0
    balanced_sampling: bool = True
    fix_empty_classes: bool = True
    label_init: str = "random"
    views: int = 1
    label_view: str = "train"
    fixed_labels: str | None = None
    on_bad_image: str = "stop"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"method_kwargs.{name} must be one of {list(choices)}, "
                    f"got {getattr(self, name)!r}"
                )
        # with a single class every image is right from the start and nothing is learned
        for name, lowest in (("num_pseudo_classes", 2), ("head_layers", 1), ("head_width", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < lowest:
                raise ValueError(
                    f"method_kwargs.{name} must be a whole number of at least {lowest}, "
                    f"got {value!r}"
                )
        for name in ("head_batch_norm", "balanced_sampling", "fix_empty_classes"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(
                    f"method_kwargs.{name} must be true or false, got {getattr(self, name)!r}"
                )
        if type(self.temperature) not in (int, float) or not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"method_kwargs.temperature must be a number above 0, got {self.temperature!r}"
            )
        if self.fixed_labels is not None and type(self.fixed_labels) is not str:
            raise ValueError(
                f"method_kwargs.fixed_labels must be a label file, got {self.fixed_labels!r}"
            )
        if self.label_view == "center" and (self.views == 2 or self.fixed_labels):
            other = "fixed_labels" if self.fixed_labels else "views=2"
            raise ValueError(
                f"method_kwargs.label_view=center and {other} are two ways to the labels: "
                f"choose one"
            )
        if self.balanced_sampling and not self.fix_empty_classes:
            raise ValueError(
                "method_kwargs.balanced_sampling=true needs fix_empty_classes=true: an empty "
                "class cannot be sampled; set both to false to train without either"
            )

    @classmethod
    def names(cls) -> list[str]:
        """Names of all options."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> UICOptions:
        """Options from a recipe's `method_kwargs`.

        Raises:
            ValueError: for an unknown name, listing the valid ones, or an impossible value.
        """
        unknown = [name for name in given if name not in cls.names()]
        if unknown:
            close = difflib.get_close_matches(unknown[0], cls.names(), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"unknown option method_kwargs.{unknown[0]}{hint} "
                f"Valid options of uic: {', '.join(cls.names())}"
            )
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """Options as plain Python values."""
        return dataclasses.asdict(self)
