"""The labels of all images: frozen for this epoch, staged for the next.

    bank = PseudoLabelBank(num_samples=1_281_167, num_classes=3000, seed=0)
    bank.targets(index)                    # what the loss compares with, all epoch long
    bank.update(index, logits.argmax(1))   # what the next epoch will compare with
    turn = bank.commit(EmptyClassFixer(3000))

Source: UIC, section 3.2 and Fig. 1: labels of an epoch come from the forward passes of the one
before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from uic_plugin.pseudo_labels.empty_classes import EmptyClassFixer, class_sizes
from uic_plugin.seeding import make_generator

_UNSEEN = -1  # staged value of an image that no step has labelled in this epoch
_STATE_VERSION = 1


@dataclass(frozen=True)
class Turn:
    """What happened when the epoch turned.

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
        device: where the labels live; CPU unless told.
        fingerprint: identifies the list of images; labels saved with another one are refused.

    Raises:
        ValueError: for sizes or labels out of range or an unknown `init`.
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
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        if num_classes < 1:
            raise ValueError(f"the number of pseudo classes must be at least 1, got {num_classes}")
        if num_classes > num_samples:
            raise ValueError(
                f"{num_classes} pseudo classes need at least as many images, got {num_samples}: "
                f"set the number of pseudo classes to at most {num_samples}"
            )
        self.num_samples = num_samples
        self.num_classes = num_classes
        self.seed = seed
        self.fingerprint = fingerprint
        self.epoch = 0
        dtype = torch.int16 if num_classes <= 1 << 15 else torch.int32
        generator = make_generator(seed, "initial labels")
        if labels is not None:
            if labels.shape != (num_samples,):
                raise ValueError(f"{num_samples} labels are needed, got {tuple(labels.shape)}")
            if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
                raise ValueError(
                    f"labels must lie in [0, {num_classes}), found "
                    f"[{int(labels.min())}, {int(labels.max())}]"
                )
            labels = labels.to(dtype, copy=True)
        elif init == "random":
            labels = torch.randint(num_classes, (num_samples,), generator=generator, dtype=dtype)
        elif init == "balanced":
            order = torch.randperm(num_samples, generator=generator)
            labels = order.remainder_(num_classes).to(dtype)
        else:
            raise ValueError(f"init must be 'random' or 'balanced', got {init!r}")
        self._targets = labels.to(device or "cpu")
        self._staged = torch.full_like(self._targets, _UNSEEN)

    def __len__(self) -> int:
        return self.num_samples

    @property
    def labels(self) -> torch.Tensor:
        """This epoch's labels, (N,) int16 or int32: the bank's own buffer, not a copy."""
        return self._targets

    @property
    def num_staged(self) -> int:
        """Images that have a label for the next epoch already."""
        return int((self._staged != _UNSEEN).sum())

    def class_sizes(self) -> torch.Tensor:
        """Images per class in this epoch, (K,) int64."""
        return torch.from_numpy(class_sizes(self._targets, self.num_classes))

    def targets(self, index: torch.Tensor) -> torch.Tensor:
        """This epoch's labels of some images.

        Args:
            index: (B,) image indices in [0, N).

        Returns:
            (B,) int64 on the device of `index`.

        Raises:
            ValueError: if an index is out of range.
        """
        place = self._checked_index(index)
        return self._targets[place].to(device=index.device, dtype=torch.int64)

    def update(self, index: torch.Tensor, labels: torch.Tensor) -> None:
        """Stage labels for the next epoch; this epoch's targets do not move.

        The last write to an image wins, also when its index stands twice in one call.

        Args:
            index: (B,) image indices in [0, N).
            labels: (B,) labels in [0, K).

        Raises:
            ValueError: for shapes that differ, or values out of range.
        """
        if index.shape != labels.shape:
            raise ValueError(
                f"index and labels must have one shape, got {tuple(index.shape)} and "
                f"{tuple(labels.shape)}"
            )
        if index.numel() == 0:
            return
        place = self._checked_index(index)
        labels = labels.to(place.device)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"labels must lie in [0, {self.num_classes}), found [{low}, {high}]")
        # An indexed write with repeated indices is undefined in torch: keep each one's last.
        place, order = torch.sort(place, stable=True)
        is_last = torch.ones_like(place, dtype=torch.bool)
        is_last[:-1] = place[1:] != place[:-1]
        self._staged[place[is_last]] = labels[order[is_last]].to(self._staged.dtype)

    def commit(self, fixer: EmptyClassFixer | None = None) -> Turn:
        """Turn the epoch: staged labels become targets, images without one keep theirs.

        Args:
            fixer: fills empty classes of the new labels; None leaves them empty.

        Returns:
            What happened, counted.
        """
        seen = self._staged != _UNSEEN
        new = torch.where(seen, self._staged, self._targets)
        num_splits = self._fix(new, fixer, self.epoch + 1)
        turn = Turn(
            epoch=self.epoch + 1,
            num_seen=int(seen.sum()),
            num_changed=int((new != self._targets).sum()),
            num_splits=num_splits,
        )
        self._targets = new
        self._staged.fill_(_UNSEEN)
        self.epoch += 1
        return turn

    def begin(self) -> None:
        """Make the staged labels those of the present epoch, before its first step."""
        self._targets = torch.where(self._staged != _UNSEEN, self._staged, self._targets)
        self._staged.fill_(_UNSEEN)

    def fix_empty_classes(self, fixer: EmptyClassFixer) -> int:
        """Fill the classes that the initial labels left empty; returns their number."""
        return self._fix(self._targets, fixer, self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Copies of all labels, staged ones too, and the numbers that say whose they are.

        Holds tensors, integers and strings alone, so that it loads with `weights_only=True`.
        """
        return {
            "version": _STATE_VERSION,
            "num_samples": self.num_samples,
            "num_classes": self.num_classes,
            "seed": self.seed,
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "targets": self._targets.cpu().clone(),
            "staged": self._staged.cpu().clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved labels, epoch and seed; on an error the bank stays as it was.

        Raises:
            ValueError: for a state of another dataset, another number of classes, labels out of
                range, or one that is no state of a bank.
        """
        missing = sorted(
            {"num_samples", "num_classes", "seed", "epoch", "targets", "staged"} - state.keys()
        )
        if missing:
            raise ValueError(f"this is no state of a pseudo-label bank: it lacks {missing}")
        if state.get("version", _STATE_VERSION) != _STATE_VERSION:
            raise ValueError(
                f"the labels were saved in format {state['version']}, "
                f"this version reads format {_STATE_VERSION}"
            )
        if state["num_samples"] != self.num_samples:
            raise ValueError(
                f"the saved labels are of {state['num_samples']} images, this dataset has "
                f"{self.num_samples}: use the dataset that the checkpoint was trained on"
            )
        if state["num_classes"] != self.num_classes:
            raise ValueError(
                f"the saved labels have {state['num_classes']} pseudo classes, this run has "
                f"{self.num_classes}: set num_pseudo_classes={state['num_classes']}"
            )
        saved, own = state.get("fingerprint"), self.fingerprint
        if saved is not None and own is not None and saved != own:
            raise ValueError(
                f"the saved labels are of another list of images (fingerprint {saved}, this "
                f"dataset has {own}): files were added, removed or renamed"
            )
        buffers = {}
        for name, lowest in (("targets", 0), ("staged", _UNSEEN)):
            labels = state[name]
            if not isinstance(labels, torch.Tensor) or labels.shape != (self.num_samples,):
                raise ValueError(f"the saved {name} are no tensor of {self.num_samples} labels")
            if labels.is_floating_point() or labels.is_complex():
                raise ValueError(f"the saved {name} are {labels.dtype}, not whole numbers")
            low, high = int(labels.min()), int(labels.max())
            if low < lowest or high >= self.num_classes:
                raise ValueError(
                    f"the saved {name} must lie in [{lowest}, {self.num_classes}), "
                    f"found [{low}, {high}]"
                )
            buffers[name] = labels.to(self._targets, copy=True)
        if not isinstance(state["epoch"], int) or state["epoch"] < 0:
            raise ValueError(f"the saved epoch must be 0 or more, got {state['epoch']!r}")
        self._targets, self._staged = buffers["targets"], buffers["staged"]
        self.epoch, self.seed = state["epoch"], state["seed"]

    def _fix(self, labels: torch.Tensor, fixer: EmptyClassFixer | None, epoch: int) -> int:
        if fixer is None:
            return 0
        if fixer.num_classes != self.num_classes:
            raise ValueError(
                f"the fixer is for {fixer.num_classes} classes, the bank has {self.num_classes}"
            )
        return fixer.fix(labels, make_generator(self.seed, "empty classes", epoch))

    def _checked_index(self, index: torch.Tensor) -> torch.Tensor:
        place = index.to(device=self._targets.device, dtype=torch.int64)
        if place.numel() and (int(place.min()) < 0 or int(place.max()) >= self.num_samples):
            raise ValueError(
                f"image indices must lie in [0, {self.num_samples}), "
                f"found [{int(place.min())}, {int(place.max())}]"
            )
        return place
