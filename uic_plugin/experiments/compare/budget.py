"""The budget of a run, and how many epochs of how many batches it buys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SPARE = 1.05  # epochs that there could be, for each that the timing says


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
        match = re.fullmatch(r"(epochs|views|minutes)=(\d+(?:\.\d+)?)([kKmM]?)", text)
        if not match or (match[3] and match[1] != "views"):  # minutes=10m are not ten million
            raise ValueError(
                f"--budget must be epochs=20, views=200k or minutes=10, say; got {text!r}"
            )
        kind, number, unit = match.groups()
        amount = float(number) * {"": 1, "k": 1_000, "m": 1_000_000}[unit.lower()]
        if amount <= 0 or (kind == "epochs" and amount != int(amount)):
            whole = "whole " * (kind == "epochs")
            raise ValueError(f"--budget {text}: {kind} must be a {whole}number above 0")
        return cls(kind, amount)

    def scaled(self, factor: float) -> Budget:
        """Return a share of it, in whole epochs for epochs and at least one."""
        amount = self.amount * factor
        return Budget(self.kind, max(1, round(amount)) if self.kind == "epochs" else amount)

    def __str__(self) -> str:
        amount = f"{self.amount:,.0f}" if self.kind == "views" else f"{self.amount:g}"
        kind = "image views" if self.kind == "views" else self.kind
        return f"{amount} {kind.removesuffix('s') if self.amount == 1 else kind}"


@dataclass(frozen=True)
class Length:
    """How long a run trains.

    Attributes:
        epochs: number of epochs.
        batches: of each epoch; None for all that there are.
        by_step: whether the learning rate changes after every step, so that it ends at zero however
            few the epochs are.
        seconds: that the epochs are cut to; None for whole ones.
    """

    epochs: int
    batches: int | None = None
    by_step: bool = False
    seconds: float | None = None

    @property
    def overrides(self) -> list[str]:
        """The overrides that set it."""
        given = [f"max_epochs={self.epochs}"]
        if self.batches is not None:
            given.append(f"++limit_train_batches={self.batches}")
        if self.seconds is not None:
            given.append(f"max_seconds={self.seconds:g}")
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


def costs_of(rows: Sequence[Mapping[str, str]], clock: str) -> Costs:
    """Return the costs of a finished run, those of its fastest epoch: other work adds to them.

    Args:
        rows: of its `epochs.csv`; at least two.
        clock: "" for the wall's, "cpu_" for the processor's.

    Raises:
        ValueError: for fewer than two epochs or too few steps to time one.
    """
    steps = [float(row[f"step_{clock}seconds"]) for row in rows]
    if len(rows) < 2 or min(steps) <= 0:
        raise ValueError(
            f"{len(rows)} epochs of {rows[0]['steps']} steps are too few to time one: choose a "
            f"smaller optimizer.batch_size"
        )
    rest = [
        max(0.0, float(row[f"{clock}seconds"]) - int(row["steps"]) * step)
        for row, step in zip(rows, steps, strict=True)
    ]
    epoch = min(rest[1:])
    return Costs(rest[0] - epoch, epoch, min(steps))


def length_within(seconds: float, costs: Costs, batches: int) -> Length:
    """Return the length of a run that takes so many seconds.

    Its epochs are whole or a little shorter: a machine that turns out faster than it was when timed
    has images left. There are at least two, because the labels that some methods learn from are
    made at the end of the first.

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
    whole = (seconds - costs.once) / (costs.epoch + batches * costs.step)
    return Length(max(2, math.ceil(_SPARE * whole)), by_step=True, seconds=seconds)
