"""What `uic pretrain` adds to a run: a history, its cost, a line per epoch, snapshots."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from uic_plugin.data.draws import EpochOrder
from uic_plugin.files import replacing, save_tensors
from uic_plugin.hardware import hardware, peak_memory
from uic_plugin.hosts import backbone_of
from uic_plugin.hosts.lightning import pl
from uic_plugin.pseudo_labels import PseudoLabelBank
from uic_plugin.readout import Readout
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv, write_csv
from uic_plugin.runs.checkpoints import CheckpointError, reason_of
from uic_plugin.runs.clock import EpochClock


class FollowOrder(pl.Callback):
    """Tells a loader's order the epoch, and which share of it is this rank's.

    Args:
        order: the loader's sampler.
    """

    def __init__(self, order: object) -> None:
        self.order = order

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Do it before the first iterator starts."""
        if isinstance(self.order, EpochOrder):
            self.order.follow(
                lambda: int(trainer.current_epoch), trainer.global_rank, trainer.world_size
            )


class History(pl.Callback):
    """One CSV row per epoch with everything that was logged; a resumed run appends to its rows.

    Args:
        path: the CSV file.
        reporter: shows the same numbers to a person.
    """

    def __init__(self, path: Path, reporter: EpochReporter) -> None:
        self.path = path
        self.reporter = reporter
        self.rows: list[dict[str, Any]] = []
        self._clock = EpochClock()
        self._epoch = 0
        self._within: dict[str, Any] = {}  # of a checkpoint within an epoch
        self._begun = (0.0, 0.0)  # wall's and processor's seconds of the first labels
        self._loss = Readout()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the rows of the epochs that a resumed run has behind it."""
        self._start_clock(trainer)  # within an epoch nothing else does on some lines
        begun = (
            float(getattr(pl_module, "begin_seconds", 0.0)),
            float(getattr(pl_module, "begin_cpu_seconds", 0.0)),
        )
        if any(begun):  # by this process, not by one that was stopped within the epoch
            self._begun = begun
        if self.path.exists() and trainer.current_epoch > 0:
            rows: list[dict[str, Any]] = [*read_csv(self.path)]
            self.rows = [row for row in rows if int(row["epoch"]) <= trainer.current_epoch]
        if trainer.is_global_zero:
            batches = trainer.num_training_batches  # a float where it is endless
            self.reporter.start(trainer.max_epochs or 0, batches)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._start_clock(trainer)

    def _start_clock(self, trainer: pl.Trainer) -> None:
        self._epoch = trainer.current_epoch
        is_within = self._within.get("epoch") == self._epoch
        self._clock.start(self._within["spent"] if is_within else None)

    def state_dict(self) -> dict[str, Any]:
        """Return what the present epoch has taken so far, for a checkpoint within it."""
        return {"epoch": self._epoch, "spent": self._clock.spent(), "begun": [*self._begun]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the epoch took before the run was stopped."""
        self._within = state_dict
        wall, processor = state_dict.get("begun", self._begun)
        self._begun = (wall, processor)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Move the bar; on a GPU it shows the loss of some steps before, nobody waits for it."""
        self._clock.step()
        if not trainer.is_global_zero or not self.reporter.shows_steps:
            return
        # the method's own, without the host's online classifier, where it tells
        loss = getattr(pl_module, "own_loss", None)
        if loss is None:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._loss.offer(loss)
        arrived = self._loss.poll()
        shown = float("nan") if arrived is None else float(arrived)
        self.reporter.step(trainer.current_epoch, batch_idx, shown)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row, print the line."""
        values = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            # Lightning 2's monitor of a logger adds the learning rates, with a logger alone
            if not name.endswith("_step") and not name.startswith("lr-")
        }
        values.update(
            {f"uic_{k}": v for k, v in (getattr(pl_module, "epoch_metrics", None) or {}).items()}
        )
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, **self._clock.read(), **values}
        if trainer.current_epoch == 0:
            # labels of the first epoch are part of it, though they come before its clock
            for column, seconds in zip(("seconds", "cpu_seconds"), self._begun, strict=True):
                row[column] = round(row[column] + seconds, 3)
        bad_images = getattr(pl_module, "bad_images", None)
        if bad_images is not None and (bad_images.value or "bad_images" in self._columns()):
            row["bad_images"] = bad_images.value  # of this process and its workers
        boundary_seconds = getattr(pl_module, "boundary_seconds", None)
        if boundary_seconds is not None:  # part of the seconds above
            row["turn_seconds"] = round(boundary_seconds, 3)
        self.rows.append(row)
        if trainer.is_global_zero:
            self.reporter.epoch(row)
            try:
                write_csv(self.path, self.rows)
            except OSError as error:
                raise CheckpointError(
                    f"cannot write {self.path} ({reason_of(error)}): make room and give the same "
                    f"command to resume from the last checkpoint"
                ) from error

    def _columns(self) -> list[str]:
        return list(self.rows[-1]) if self.rows else []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar off the screen."""
        self.reporter.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Take the bar off the screen before the error is shown."""
        self.reporter.stop()


class RunCost(pl.Callback):
    """Keeps what a run costs beside its time, in `cost.json`; peaks are over all its parts.

    Args:
        path: the JSON file.
        num_images: training images N.
        views: of each image in an epoch that pass through the network in training.
        batch_size: images of a step, all ranks together.
    """

    def __init__(self, path: Path, num_images: int, views: int, batch_size: int) -> None:
        self.path = path
        self.fixed = {
            "images": num_images,
            "views_per_image": views,
            "batch_size": batch_size,
        }

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file; memory is this process's."""
        before = json.loads(self.path.read_text()) if self.path.exists() else {}
        on_gpu = torch.cuda.is_available() and pl_module.device.type == "cuda"
        gpu = torch.cuda.max_memory_allocated() if on_gpu else 0
        backbone = backbone_of(pl_module)
        cost = {
            **self.fixed,
            "images_per_epoch": trainer.num_training_batches * self.fixed["batch_size"],
            "parameters_backbone": sum(p.numel() for p in backbone.parameters()),
            "parameters_all": sum(p.numel() for p in pl_module.parameters()),
            "peak_host_bytes": max(peak_memory(), before.get("peak_host_bytes", 0)),
            "peak_gpu_bytes": max(gpu, before.get("peak_gpu_bytes", 0)),
            "bytes_per_image": bytes_per_image(
                pl_module, self.fixed["images"], self.fixed["batch_size"]
            ),
            "hardware": hardware(),
        }
        if trainer.is_global_zero:
            with replacing(self.path) as part:
                part.write_text(json.dumps(cost, indent=1) + "\n")


def bytes_per_image(method: Any, num_images: int, slack: int) -> float:
    """Bytes that a method keeps for each image between epochs.

    Counts every tensor of the method, of its parts and of its banks that has an entry for each
    image.

    Args:
        method: after an epoch.
        num_images: N.
        slack: images that an entry may be missing for, as of an epoch's last, smaller batch.
    """
    places = [module.__dict__ for module in method.modules()]
    places += [module.__dict__["_buffers"] for module in method.modules()]
    places += [vars(bank) for bank in getattr(method, "banks", ())]
    tensors = {
        value.data_ptr(): value.numel() * value.element_size()
        for place in places
        for value in place.values()
        if isinstance(value, torch.Tensor)
        and any(num_images - slack < size <= num_images for size in value.shape)
    }
    return sum(tensors.values()) / num_images


class Snapshots(pl.Callback):
    """Keeps weights of the backbone and labels at some epochs, evenly spaced, the last among them.

    The last is also that after which the run stops early, as at the end of its seconds.

    Args:
        folder: for `epoch0004.ckpt`, which `weights=FILE` takes, too.
        count: how many.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights, if it is their turn."""
        epoch, whole = trainer.current_epoch + 1, trainer.max_epochs or 0
        due = {round(whole * number / self.count) for number in range(1, self.count + 1)}
        is_due = epoch in due or trainer.should_stop
        if is_due and trainer.is_global_zero:
            state = {f"backbone.{k}": v for k, v in backbone_of(pl_module).state_dict().items()}
            content = {"state_dict": state, "epoch": epoch, **_labels_of(pl_module)}
            save_tensors(content, self.folder / f"epoch{epoch:04d}.ckpt")


def _labels_of(method: Any) -> dict[str, torch.Tensor]:
    """Return the labels (N,) int32 for the history of the classes; none without a bank."""
    bank = getattr(method, "bank", None)
    if not isinstance(bank, PseudoLabelBank):
        return {}
    return {"labels": bank.targets(torch.arange(len(bank))).cpu().int()}


class AtStart(pl.Callback):
    """Do something on the first rank once a checkpoint has been taken over.

    Args:
        action: what to do.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do it."""
        if trainer.is_global_zero:
            self.action()
