"""The labels of all images: frozen for this epoch, staged for the next.

    bank = PseudoLabelBank(num_samples=1_281_167, num_classes=3000, seed=0)
    bank.targets(index)                    # what the loss compares with, all epoch long
    bank.update(index, logits.argmax(1))   # what the next epoch will compare with
    boundary = bank.commit(EmptyClassFixer(3000))

Source: UIC, section 3.2 and Fig. 1: labels of an epoch come from the forward passes of the one
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from uic_plugin.pseudo_labels import checks
from uic_plugin.pseudo_labels.checks import UNSEEN
from uic_plugin.pseudo_labels.empty_classes import EmptyClassFixer
from uic_plugin.pseudo_labels.grouping import class_sizes
from uic_plugin.pseudo_labels.storage import allocate
from uic_plugin.seeding import make_generator

_BLOCK = 1 << 24  # images handled at once: bounds the memory beside the labels


@dataclass(frozen=True)
class EpochBoundary:
    """Says what happened at an epoch boundary.

    Attributes:
        epoch: the epoch that begins now; the first is 0.
        num_seen: images labelled at least once in the epoch that ended.
        num_changed: images whose label differs from the epoch before, empty-class splits included.
        num_splits: empty classes that were filled.
    """

    epoch: int
    num_seen: int
    num_changed: int
    num_splits: int


class PseudoLabelBank:
    """One pseudo label per image, with frozen targets and staged updates.

    Keeps two bytes per image and buffer up to 32,768 classes and four above; there are two
    buffers. It is no `nn.Module` on purpose: DDP would overwrite its buffers from rank 0.

    Args:
        num_samples: number of images N, at least 1.
        num_classes: number of pseudo classes K, from 1 to N.
        seed: seed of the initial labels and of the splits of empty classes.
        init: "random" draws each label independently and uniformly (the authors' released code);
            "balanced" deals classes out evenly, sizes differing by at most one.
        labels: (N,) labels in [0, K) to start from instead.
        device: where labels of storage "device" live.
        fingerprint: identifies the list of images; labels saved with another one are refused.
        storage: "memory"; "device"; "mmap", in files of `folder`. The labels are the same.
        folder: for "mmap", an existing folder. Banks of several processes that name the same one
            share the labels.
        is_writer: whether this bank writes shared labels, or reads what another process's bank
            has written; it then has to wait for the writer, see `follow`.

    Raises:
        ValueError: for sizes or labels out of range or an unknown `init` or `storage`.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        seed: int = 0,
        init: Literal["random", "balanced"] = "random",
        labels: torch.Tensor | None = None,
        device: torch.device | str | None = None,
        fingerprint: str | None = None,
        storage: str = "memory",
        folder: Path | None = None,
        is_writer: bool = True,
    ) -> None:
        checks.check_sizes(num_samples, num_classes)
        if init not in ("random", "balanced"):
            raise ValueError(f"init must be 'random' or 'balanced', got {init!r}")
        if labels is not None:
            checks.check_labels(labels, num_samples, num_classes)
        self.num_samples, self.num_classes = num_samples, num_classes
        self.seed, self.fingerprint, self.epoch = seed, fingerprint, 0
        self.is_writer = is_writer
        self._index_check = checks.RangeCheck("image indices", num_samples)
        self._label_check = checks.RangeCheck("labels", num_classes)
        self.storage = "device" if device is not None and storage == "memory" else storage
        dtype = torch.int16 if num_classes <= 1 << 15 else torch.int32
        self._targets, self._staged = allocate(
            ("targets", "staged"), num_samples, dtype, self.storage, device=device, folder=folder
        )
        if is_writer:
            self._staged.fill_(UNSEEN)
            self._fill_targets(labels, init)

    def __len__(self) -> int:
        return self.num_samples

    @property
    def labels(self) -> torch.Tensor:
        """Return this epoch's labels, (N,) int16 or int32: the bank's own buffer, not a copy."""
        return self._targets

    @property
    def num_staged(self) -> int:
        """Return how many images have a label for the next epoch already."""
        return sum(int((block != UNSEEN).sum()) for block in self._staged.split(_BLOCK))

    def class_sizes(self) -> torch.Tensor:
        """Return the images per class in this epoch, (K,) int64."""
        return torch.from_numpy(class_sizes(self._targets, self.num_classes))

    def targets(self, index: torch.Tensor) -> torch.Tensor:
        """Return this epoch's labels of some images.

        Args:
            index: (B,) image indices in [0, N).

        Returns:
            (B,) int64 on the device of `index`.

        Raises:
            ValueError: if an index is out of range; on a GPU only some calls later, or at the
                epoch boundary, because nothing here waits for the device.
        """
        rows = self._rows(index)
        return self._targets[rows].to(device=index.device, dtype=torch.int64)

    def update(self, index: torch.Tensor, labels: torch.Tensor) -> None:
        """Stage labels for the next epoch; this epoch's targets do not move.

        The last write to an image wins, also when its index stands twice in one call.

        Args:
            index: (B,) image indices in [0, N).
            labels: (B,) labels in [0, K).

        Raises:
            ValueError: for shapes that differ; for values out of range, as in `targets`.
        """
        if index.shape != labels.shape:
            shapes = f"{tuple(index.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"index and labels must have one shape, got {shapes}")
        if index.numel() == 0 or not self.is_writer:
            return
        rows = self._rows(index)
        labels = labels.to(device=rows.device, dtype=torch.int64)
        self._label_check.note(labels)
        # An indexed write with repeated indices is undefined in torch, unless all write the same:
        # the label of the last one.
        rows, order = torch.sort(rows, stable=True)
        last = torch.searchsorted(rows, rows, right=True) - 1
        self._staged[rows] = labels[order[last]].to(self._staged.dtype)

    def check(self) -> None:
        """Wait for the range checks of all calls so far.

        Raises:
            ValueError: if an index or a label was out of range.
        """
        self._index_check.settle()
        self._label_check.settle()

    def _rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return indices (B,) int64 where the labels are; what is out of range stays within."""
        rows = index.to(device=self._targets.device, dtype=torch.int64)
        self._index_check.note(rows)
        return rows.clamp(0, self.num_samples - 1)

    def commit(
        self,
        fixer: EmptyClassFixer | None = None,
        compare: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    ) -> EpochBoundary:
        """Begin the next epoch: staged labels become targets, images without one keep theirs.

        It works in blocks and in place, without memory in proportion to N.

        Args:
            fixer: fills empty classes of the new labels; None leaves them empty.
            compare: called with the labels of the epoch that ends and of the one that begins,
                (N,) each, before the former are given up.

        Returns:
            What happened, counted.

        Raises:
            ValueError: for a fixer of another number of classes, or an index or label of this
                epoch that was out of range.
        """
        self.check()  # before anything changes
        if fixer is not None:
            checks.check_fixer(fixer.num_classes, self.num_classes)
        num_seen = self._complete_staged()
        num_splits = self._fix(self._staged, fixer, self.epoch + 1)
        num_changed = sum(int((new != old).sum()) for old, new in self._blocks())
        if compare is not None:
            compare(self._targets, self._staged)
        boundary = EpochBoundary(self.epoch + 1, num_seen, num_changed, num_splits)
        self.follow(boundary)
        self._staged.fill_(UNSEEN)
        return boundary

    def follow(self, boundary: EpochBoundary) -> None:
        """Begin the epoch of labels that another process's bank has committed."""
        self._targets, self._staged = self._staged, self._targets
        self.epoch = boundary.epoch

    def begin(self) -> None:
        """Make the staged labels those of the present epoch, before its first step."""
        if not self.is_writer:
            return
        for targets, staged in self._blocks():
            torch.where(staged != UNSEEN, staged, targets, out=targets)
        self._staged.fill_(UNSEEN)

    def fix_empty_classes(self, fixer: EmptyClassFixer) -> int:
        """Fill the classes that the initial labels left empty, and return their number.

        Raises:
            ValueError: if the fixer is for another number of classes.
        """
        return self._fix(self._targets, fixer, self.epoch) if self.is_writer else 0

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all labels, staged ones too, and what says whose they are.

        The state holds tensors, integers and strings alone, so that it loads with
        `weights_only=True`. Without staged labels, as between epochs, `staged` is None.

        Raises:
            ValueError: if an index or a label since the last epoch boundary was out of range.
        """
        self.check()
        return {
            "version": checks.STATE_VERSION,
            "num_samples": self.num_samples,
            "num_classes": self.num_classes,
            "seed": self.seed,
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "targets": self._targets.to("cpu", copy=True),
            "staged": self._staged.to("cpu", copy=True) if self.num_staged else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved labels, epoch and seed; on an error the bank stays as it was.

        Raises:
            ValueError: for a state of another dataset, another number of classes, labels out of
                range, or one that is no state of a bank.
        """
        checks.check_state(state, self.num_samples, self.num_classes, self.fingerprint)
        if self.is_writer:
            for name, buffer in (("targets", self._targets), ("staged", self._staged)):
                saved = state[name]
                buffer.fill_(UNSEEN) if saved is None else buffer.copy_(saved)
        self.epoch, self.seed = state["epoch"], state["seed"]

    def _fill_targets(self, labels: torch.Tensor | None, init: str) -> None:
        """Set the labels of the first epoch."""
        if labels is not None:
            self._targets.copy_(labels)
            return
        generator = make_generator(self.seed, "initial labels")
        if init == "balanced":
            order = torch.randperm(self.num_samples, generator=generator)
            self._targets.copy_(order.remainder_(self.num_classes))
            return
        for block in self._targets.split(_BLOCK):
            shape, dtype = block.shape, block.dtype
            block.copy_(torch.randint(self.num_classes, shape, generator=generator, dtype=dtype))

    def _blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield targets and staged labels, block by block."""
        return zip(self._targets.split(_BLOCK), self._staged.split(_BLOCK), strict=True)

    def _complete_staged(self) -> int:
        """Stage the present label of each image that no step has labelled; count the others."""
        num_seen = 0
        for targets, staged in self._blocks():
            seen = staged != UNSEEN
            num_seen += int(seen.sum())
            torch.where(seen, staged, targets, out=staged)
        return num_seen

    def _fix(self, labels: torch.Tensor, fixer: EmptyClassFixer | None, epoch: int) -> int:
        if fixer is None:
            return 0
        checks.check_fixer(fixer.num_classes, self.num_classes)
        return fixer.fix(labels, make_generator(self.seed, "empty classes", epoch))
