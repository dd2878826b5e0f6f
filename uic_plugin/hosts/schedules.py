"""Learning rates that the host does not have: the paper's linear decay, and cosine step by step.

The paper's rate is "decaying linearly" (section 4.2), which neither line has. The PyPI line steps
its cosine once per epoch: in a run of a few epochs it ends far above zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

LINEAR = "linear"
COSINES = ("cosine", "warmup_cosine")


def linear_factor(warmup: float, total: float, start: float) -> Callable[[float], float]:
    """Factor of the base learning rate after so many steps or epochs, with a linear decay.

    Args:
        warmup: length of the linear warm-up.
        total: length of everything; the factor is 0 from there on.
        start: factor at the start of the warm-up.

    Raises:
        ValueError: for a warm-up that is not shorter than the whole.
    """
    return _factor(warmup, total, start, lambda left: left)


def cosine_factor(
    warmup: float, total: float, start: float, end: float = 0.0
) -> Callable[[float], float]:
    """Return the same with half a cosine as the decay, down to the factor `end`.

    Raises:
        ValueError: for a warm-up that is not shorter than the whole.
    """
    return _factor(
        warmup, total, start, lambda left: end + (1 - end) * (1 - math.cos(math.pi * left)) / 2
    )


def _factor(
    warmup: float, total: float, start: float, decay: Callable[[float], float]
) -> Callable[[float], float]:
    """Return a factor with a linear warm-up; `decay` takes the share of the rest that is left."""
    if not 0 <= warmup < total:
        raise ValueError(
            f"scheduler.warmup_epochs must be at least 0 and less than max_epochs, got {warmup} "
            f"of {total}"
        )

    def factor(done: float) -> float:
        if done < warmup:
            return start + (1 - start) * done / warmup
        return decay(max(0.0, (total - done) / (total - warmup)))

    return factor


def _constant(done: int) -> float:
    return 1.0


def with_own_schedule(method: Any, configure: Callable[[], Any]) -> Any:
    """Return the host's optimizers, with a schedule of ours where the host has none such.

    Ours are the linear one, cosine after every step on the PyPI line, and both where the method has
    a `progress`: a function that says how much of the training is over, in [0, 1].

    Args:
        method: a method of the host.
        configure: its own `configure_optimizers`.
    """
    name = method.scheduler
    # the PyPI line has no such setting and steps every schedule of its own once per epoch
    interval = getattr(method, "scheduler_interval", "epoch")
    progress = getattr(method, "progress", None)
    is_ours = interval == "step" and getattr(method, "steps_cosine_by_epoch", False)
    if name != LINEAR and not (name in COSINES and (is_ours or progress)):
        return configure()
    # the host keeps some groups' rate as it is, SimSiam's predictor for one
    static = {
        id(parameter)
        for group in method.learnable_params
        if group.get("static_lr")
        for parameter in group["params"]
    }
    method.scheduler = "none"
    try:
        optimizer = configure()
    finally:
        method.scheduler = name
    factor = schedule_factor(method, name, interval, progress)
    factors = [
        _constant if all(id(p) in static for p in group["params"]) else factor
        for group in optimizer.param_groups
    ]
    when = "step" if progress else interval
    schedule = {"scheduler": LambdaLR(optimizer, factors), "interval": when, "frequency": 1}
    return [optimizer], [schedule]


def schedule_factor(
    method: Any, name: str, interval: str, progress: Callable[[], float] | None
) -> Callable[[int], float]:
    """Return the factor of a method's learning rate after so many steps or epochs.

    Args:
        method: with `warmup_epochs`, `warmup_start_lr`, `lr`, `min_lr` and `max_epochs`.
        name: the schedule.
        interval: "step" or "epoch", what is counted.
        progress: how much of the training is over, in [0, 1], in the place of a count.
    """
    warmup = 0 if name == "cosine" else method.warmup_epochs or 0
    start = method.warmup_start_lr / method.lr if method.lr else 0.0
    end = method.min_lr / method.lr if name != LINEAR and method.lr else 0.0

    def of(unit: float) -> Callable[[float], float]:
        length = (warmup * unit, method.max_epochs * unit)
        return (
            linear_factor(*length, start) if name == LINEAR else cosine_factor(*length, start, end)
        )

    if progress is not None:
        factor = of(1 / method.max_epochs)
        return lambda done: factor(progress())
    if interval == "step":
        return of(method.trainer.estimated_stepping_batches / method.max_epochs)
    return of(1.0)
