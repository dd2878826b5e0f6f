"""The paper's learning rate, "decaying linearly" (section 4.2), which the host does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

LINEAR = "linear"


def linear_factor(warmup: float, total: float, start: float) -> Callable[[int], float]:
    """Factor of the base learning rate after so many steps or epochs.

    Args:
        warmup: length of the linear warm-up.
        total: length of everything; the factor is 0 from there on.
        start: factor at the start of the warm-up.

    Raises:
        ValueError: for a warm-up that is not shorter than the whole.
    """
    if not 0 <= warmup < total:
        raise ValueError(
            f"scheduler.warmup_epochs must be at least 0 and less than max_epochs, got {warmup} "
            f"of {total}"
        )

    def factor(done: int) -> float:
        if done < warmup:
            return start + (1 - start) * done / warmup
        return max(0.0, (total - done) / (total - warmup))

    return factor


def _constant(done: int) -> float:
    return 1.0


def with_linear_decay(method: Any, configure: Callable[[], Any]) -> Any:
    """Return the host's optimizers, with a linear schedule where the recipe asks for one.

    Args:
        method: a method of the host.
        configure: its own `configure_optimizers`.
    """
    if method.scheduler != LINEAR:
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
        method.scheduler = LINEAR
    # the PyPI line has no such setting and steps every other schedule once per epoch
    interval = getattr(method, "scheduler_interval", "epoch")
    per_epoch = 1.0
    if interval == "step":
        per_epoch = method.trainer.estimated_stepping_batches / method.max_epochs
    warmup = method.warmup_epochs or 0
    factor = linear_factor(
        warmup * per_epoch,
        method.max_epochs * per_epoch,
        method.warmup_start_lr / method.lr if method.lr else 0.0,
    )
    factors = [
        _constant if all(id(p) in static for p in group["params"]) else factor
        for group in optimizer.param_groups
    ]
    schedule = {"scheduler": LambdaLR(optimizer, factors), "interval": interval, "frequency": 1}
    return [optimizer], [schedule]
