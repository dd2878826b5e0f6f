"""Fine-tuning by iterations with SGD, which resumes from its last checkpoint.

Batches, views and dropout of an iteration depend on (seed, iteration) alone, so that a resumed run
equals an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler

from uic_plugin.data.draws import Draw
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.views import SizedDataset
from uic_plugin.errors import Interrupted, NonFiniteError
from uic_plugin.evaluation.voc.settings import Schedule
from uic_plugin.files import save_tensors
from uic_plugin.report.tables import write_csv
from uic_plugin.seeding import derive_seed, make_generator

CHECKPOINT_FILE, CURVE_FILE = "finetune.ckpt", "curve.csv"
_POINTS = 200  # of a curve
Row = dict[str, int | float]  # of a curve: iteration, lr, losses


def fine_tune(
    model: nn.Module,
    dataset: SizedDataset,
    losses_of: Callable[[Any], Mapping[str, torch.Tensor]],
    schedule: Schedule,
    folder: Path,
    *,
    set_mode: Callable[[], object],
    identity: Mapping[str, object],
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Train the trainable parameters of a model, resuming from the checkpoint in `folder`.

    Args:
        model: on its device.
        dataset: training images, whose items use torch's random numbers only.
        losses_of: a batch to its losses by name; their sum is minimised.
        schedule: of the training.
        folder: for checkpoint and curve.
        set_mode: puts the model's parts into training or eval mode.
        identity: plain values that a checkpoint must share with the run that resumes from it.
        num_workers: processes that read images.
        collate: items to a batch; by default they are stacked.
        progress: called with the number of iterations done, and of all.

    Returns:
        The curve: iteration, learning rate and means of the losses since the previous row.

    Raises:
        ValueError: if the checkpoint is damaged or of other settings, or a batch is larger than
            the dataset.
        NonFiniteError: if the loss is NaN or infinite.
        Interrupted: if the user stopped it, after saving a checkpoint.
    """
    if len(dataset) < schedule.batch_size:
        raise ValueError(
            f"--batch-size {schedule.batch_size} is more than the {len(dataset)} training images"
        )
    state = _State(model, schedule, folder, dict(identity))
    done = state.load()
    set_mode()
    if done >= schedule.iterations:
        return state.curve
    loader = view_loader(
        dataset,
        seed=schedule.seed,
        batch_size=schedule.batch_size,
        num_workers=num_workers,
        sampler=_Draws(len(dataset), schedule, done),
        collate=collate,
    )
    _take_steps(state, enumerate(loader, done), losses_of, progress)
    return state.curve


def _take_steps(
    state: _State,
    batches: Iterable[tuple[int, Any]],
    losses_of: Callable[[Any], Mapping[str, torch.Tensor]],
    progress: Callable[[int, int], None],
) -> None:
    """Take a step for each numbered batch; a request to stop ends it after a checkpoint."""
    total = state.schedule.iterations
    with _stop_between_steps() as stopped:
        for iteration, batch in batches:
            state.add(_step(state, batch, losses_of, iteration))
            progress(iteration + 1, total)
            stopping = stopped()
            state.keep(iteration + 1, stopping=stopping)
            if stopping:
                raise Interrupted(
                    f"stopped after {iteration + 1} of {total} iterations; the same command "
                    f"resumes from there"
                )


def _step(
    state: _State,
    batch: Any,
    losses_of: Callable[[Any], Mapping[str, torch.Tensor]],
    iteration: int,
) -> dict[str, float]:
    model, optimizer, schedule = state.model, state.optimizer, state.schedule
    device = next(model.parameters()).device
    for group in optimizer.param_groups:
        group["lr"] = schedule.lr_at(iteration)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(schedule.seed, "fine-tuning step", iteration))
        reduced = schedule.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            losses = losses_of(batch)
        total = torch.stack(list(losses.values())).sum()
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        if not math.isfinite(float(total.detach())):
            raise NonFiniteError(
                f"the loss is {float(total.detach())} at iteration {iteration + 1}: lower --lr "
                f"(it is {schedule.lr:g}) or set --warmup"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
    if schedule.clip:
        nn.utils.clip_grad_norm_(_trained(model), schedule.clip)
    optimizer.step()
    return {"loss": sum(values.values()), **(values if len(values) > 1 else {})}


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class _State:
    """Model, optimizer and curve, and the checkpoint that holds them."""

    def __init__(
        self, model: nn.Module, schedule: Schedule, folder: Path, identity: dict[str, object]
    ) -> None:
        self.model, self.schedule, self.folder = model, schedule, folder
        self.path = folder / CHECKPOINT_FILE
        kept = dataclasses.asdict(schedule)
        del kept["save_every"]
        self.identity = {**identity, "schedule": kept}
        self.optimizer = torch.optim.SGD(
            _trained(model),
            lr=schedule.lr,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
        )
        self.curve: list[Row] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def keep(self, iteration: int, *, stopping: bool) -> None:
        """Add a row to the curve and save a checkpoint, if these are due after `iteration`."""
        total = self.schedule.iterations
        if iteration % max(1, total // _POINTS) == 0 or iteration == total:
            means = {name: value / self._count for name, value in self._sums.items()}
            lr = self.schedule.lr_at(iteration - 1)
            self.curve.append({"iteration": iteration, "lr": lr, **means})
            self._sums, self._count = {}, 0
        if iteration % self.schedule.save_every == 0 or iteration == total or stopping:
            self.save(iteration)

    def save(self, iteration: int) -> None:
        state = {
            "identity": self.identity,
            "iteration": iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curve": self.curve,
            "sums": (self._sums, self._count),
        }
        save_tensors(state, self.path)
        write_csv(self.folder / CURVE_FILE, self.curve)

    def load(self) -> int:
        """Load the checkpoint and return its iteration; 0 without one."""
        if not self.path.exists():
            return 0
        device = next(self.model.parameters()).device
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
            kept = state["identity"]
        except Exception as error:  # torch raises many kinds for a foreign or damaged file
            raise ValueError(f"{self.path} is damaged: remove it to start anew") from error
        different = [
            name for name in {**kept, **self.identity} if kept.get(name) != self.identity.get(name)
        ]
        if different:
            raise ValueError(
                f"{self.path} is of another {', '.join(different)}: give another --out, or remove "
                f"it to start anew"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curve = state["curve"]
        self._sums, self._count = state["sums"]
        return int(state["iteration"])


class _Draws(Sampler[int]):
    """Images of all remaining steps; each pass over the dataset has its own order."""

    def __init__(self, images: int, schedule: Schedule, done: int) -> None:
        self.images, self.schedule, self.done = images, schedule, done

    def __len__(self) -> int:
        return (self.schedule.iterations - self.done) * self.schedule.batch_size

    def __iter__(self) -> Iterator[int]:
        passed, order = -1, torch.empty(0)
        for number in range(len(self)):
            epoch, at = divmod(self.done * self.schedule.batch_size + number, self.images)
            if epoch != passed:
                generator = make_generator(self.schedule.seed, "fine-tuning order", epoch)
                passed, order = epoch, torch.randperm(self.images, generator=generator)
            yield Draw.at(int(order[at]), epoch, at)


@contextmanager
def _stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM wait for the end of the step; a second one does not wait."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    kept = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
