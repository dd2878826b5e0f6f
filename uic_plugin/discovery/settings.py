"""Settings of a discovery of classes, with defaults for any folder.

The defaults were chosen on imagenette160's training images and on the training classes of
miniImageNet, and on long-tailed samples of both (see docs/discover.md, which marks them).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MOST_OUTPUTS = 8192  # of all heads that begin, but no fewer heads than are kept
HEADS, LABELS = ("linear", "mlp"), ("soft", "hard")
AUTO = "auto"  # the balance: decided by the images, see `balance`


def _setting(default: Any, wanted: str, accepts: Callable[[Any], bool], help_: str) -> Any:
    return dataclasses.field(
        default=default, metadata={"wanted": wanted, "accepts": accepts, "help": help_}
    )


def _count(default: int, lowest: int, help_: str) -> Any:
    return _setting(
        default,
        f"a whole number of at least {lowest}",
        lambda value: type(value) is int and value >= lowest,
        help_,
    )


def _number(default: float, low: float, high: float, help_: str) -> Any:
    return _setting(
        default,
        f"a number from {low:g} to {high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
        help_,
    )


def _choice(default: str, choices: tuple[str, ...], help_: str) -> Any:
    return _setting(default, f"one of {', '.join(choices)}", lambda value: value in choices, help_)


@dataclass(frozen=True)
class DiscoverySettings:
    """How classes are found; each field's help is what `uic discover --help` prints."""

    heads: int = _count(16, 1, "Classifiers that are trained side by side.")
    trials: int = _count(4, 1, "Times as many heads begin; those of lowest loss are kept.")
    vote: float = _number(0.25, 0, 1, "Share of the heads, those of lowest loss, that vote.")
    head: str = _choice("linear", HEADS, "linear, or mlp: one hidden layer more.")
    labels: str = _choice("soft", LABELS, "Of the teacher: soft, or hard.")
    balance: float | str = _setting(
        AUTO,
        f"{AUTO}, or a number from 0 to 1",
        lambda value: value == AUTO or (type(value) in (int, float) and 0 <= value <= 1),
        "1 wants classes of equal size, 0 leaves them to the images; auto: they decide which.",
    )
    neighbours: int = _count(25, 1, "Nearest images of which one is the other view.")
    dims: int = _count(128, 2, "Principal components of the features to train on.")
    temperature: float = _number(0.1, 0.001, 10, "Divides the cosines of features and classes.")
    beta: float = _number(0.6, 0.5, 1, "Exponent of the soft answers; lower is sharper.")
    epochs: int = _count(40, 1, "Passes over the images.")
    min_steps: int = _count(600, 1, "Steps at least, however few images there are.")
    max_steps: int = _count(2000, 1, "Steps at most, however many images there are.")
    batch_size: int = _count(512, 2, "Images of a step.")
    lr: float = _number(3e-3, 0, 10, "Learning rate of AdamW.")
    weight_decay: float = _number(1e-4, 0, 10, "Of AdamW.")
    ema: float = _number(0.99, 0, 1, "Share of itself that the teacher keeps at a step.")
    hidden: int = _count(256, 1, "Width of the hidden layer of --head mlp.")
    seed: int = _count(0, 0, "Of every random draw.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.metadata["accepts"](value):
                option = field.name.replace("_", "-")
                raise ValueError(f"--{option} must be {field.metadata['wanted']}, got {value!r}")
        if self.min_steps > self.max_steps:
            raise ValueError(
                f"--min-steps {self.min_steps} is above --max-steps {self.max_steps}: "
                f"change one of them"
            )

    def steps(self, num_images: int) -> int:
        """Return the steps of the whole training for so many images."""
        batches = max(1, num_images // min(self.batch_size, num_images))
        return min(self.max_steps, max(self.min_steps, self.epochs * batches))

    def trial(self, num_images: int, num_classes: int) -> DiscoverySettings:
        """Return settings of the candidate heads: more of them, for an eighth of the steps."""
        most = max(self.heads, _MOST_OUTPUTS // num_classes)
        heads = min(self.heads * self.trials, most)
        steps = max(1, self.steps(num_images) // 8)
        return dataclasses.replace(self, heads=heads, min_steps=steps, max_steps=steps)

    def exponent(self) -> float:
        """Return the balance as a number, the exponent of the classes' shares.

        Raises:
            ValueError: while it is "auto": `balance.decide_balance` decides it.
        """
        if isinstance(self.balance, str):
            raise ValueError(f"--balance {self.balance} is not decided yet: choose a number")
        return self.balance

    def voters(self) -> int:
        """Return the number of heads that vote; at least the best one."""
        return max(1, round(self.vote * self.heads))
