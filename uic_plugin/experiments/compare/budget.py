"""The budget of a run, and how many epochs of how many batches it buys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CLOSE = 0.03  # whole epochs that miss a budget by no more than this share are not cut


@dataclass(frozen=True)
class Budget:
    """The budget of each run, equal for all methods.

    Attributes:
        kind: "epochs", passes over the images; "views", of images that pass through the network in
            training; "minutes", of training on this machine.
        amount: number of them, per run.
    """

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse a budget as one types it: `epochs=20`, `views=200k`, `minutes=10`.

        Raises:
            ValueError: for anything else.
        """
        match = re.fullmatch(r"(epochs|views|minutes)=(\d+(?:\.\d+)?)([kM]?)", text)
        if not match:
            raise ValueError(
                f"--budget must be epochs=20, views=200k or minutes=10, say; got {text!r}"
            )
        kind, number, unit = match.groups()
        amount = float(number) * {"": 1, "k": 1_000, "M": 1_000_000}[unit]
        if amount <= 0 or (kind == "epochs" and amount != int(amount)):
            raise ValueError(f"--budget {text}: {kind} must be a whole number above 0")
        return cls(kind, amount)

    def scaled(self, factor: float) -> Budget:
        """Return a share of it, in whole epochs for epochs and at least one."""
        amount = self.amount * factor
        return Budget(self.kind, max(1, round(amount)) if self.kind == "epochs" else amount)

    def __str__(self) -> str:
        amount = f"{self.amount:,.0f}" if self.kind == "views" else f"{self.amount:g}"
        return f"{amount} {'image views' if self.kind == 'views' else self.kind}"


@dataclass(frozen=True)
class Length:
    """How long a run trains.

    Attributes:
        epochs: number of epochs.
        batches: of each epoch; None for all that there are.
        by_step: whether the learning rate changes after every step, so that it ends at zero however
            few the epochs are.
    """

    epochs: int
    batches: int | None = None
    by_step: bool = False

    @property
    def overrides(self) -> list[str]:
        """The overrides that set it."""
        given = [f"max_epochs={self.epochs}"]
        if self.batches is not None:
            given.append(f"++limit_train_batches={self.batches}")
        if self.by_step:
            given.append("scheduler.interval=step")
        return given


@dataclass(frozen=True)
class Costs:
    """What the parts of a training take, in seconds of one clock.

    Attributes:
        once: labels of the first epoch and warm-up, beyond what every epoch costs; negative where
            the first epoch has no labels yet.
        epoch: of each epoch beside its steps: labels, clustering, order.
        step: of a step.
    """

    once: float
    epoch: float
    step: float

    def of_images(self, ratio: float) -> Costs:
        """Return the costs with so many times the images: labels are of all of them."""
        return Costs(self.once * ratio, self.epoch * ratio, self.step)

    def seconds(self, epochs: int, batches: int) -> float:
        """Return the duration of some epochs of so many batches."""
        return self.once + epochs * (self.epoch + batches * self.step)


def costs_of(rows: Sequence[Mapping[str, str]], batches: int, clock: str) -> Costs:
    """Return the costs of a finished run.

    Args:
        rows: of its `epochs.csv`; at least two.
        batches: of each epoch.
        clock: "" for the wall's, "cpu_" for the processor's.

    Raises:
        ValueError: for fewer than two epochs or too few batches to time a step.
    """
    whole = [float(row[f"{clock}seconds"]) for row in rows]
    steps = [float(row[f"step_{clock}seconds"]) for row in rows]
    if len(rows) < 2 or min(steps) <= 0:
        raise ValueError(
            f"{len(rows)} epochs of {batches} batches are too few to time a step: choose a smaller "
            f"optimizer.batch_size"
        )
    step = sum(steps[1:]) / len(steps[1:])
    rest = [max(0.0, seconds - batches * step) for seconds in whole]
    epoch = sum(rest[1:]) / len(rest[1:])
    return Costs(rest[0] - epoch, epoch, step)


def length_within(seconds: float, costs: Costs, batches: int) -> Length:
    """Return the length of a run that takes so many seconds.

    There are at least two epochs, because the labels that some methods learn from are made at the
    end of the first; where whole epochs do not fit, all of them are cut to as many batches as do.

    Args:
        seconds: the budget.
        costs: of the very setting.
        batches: of a whole epoch.

    Raises:
        ValueError: if the budget is not enough for two epochs of one step.
    """
    if costs.seconds(2, 1) > seconds:
        raise ValueError(
            f"{seconds:.0f} seconds are not enough: first labels, two epochs of one step each and "
            f"their labels take {costs.seconds(2, 1):.0f}"
        )
    exact = (seconds - costs.once) / (costs.epoch + batches * costs.step)
    near = round(exact)
    if near >= 2 and abs(costs.seconds(near, batches) / seconds - 1) <= _CLOSE:
        return Length(near, None, by_step=True)
    epochs = max(2, math.ceil(exact))
    spent = costs.once + epochs * costs.epoch
    while costs.seconds(epochs, 1) > seconds:  # the labels of one epoch more do not fit
        epochs -= 1
        spent = costs.once + epochs * costs.epoch
    cut = round((seconds - spent) / (epochs * costs.step))
    return Length(epochs, min(batches, max(1, cut)), by_step=True)
