"""What a bank refuses: impossible sizes, labels out of range, the saved state of another bank."""

from __future__ import annotations

from typing import Any

import torch

from uic_plugin.readout import Readout

STATE_VERSION = 1
UNSEEN = -1  # staged value of an image that no step has labelled in this epoch
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_sizes(num_samples: int, num_classes: int) -> None:
    """Raise `ValueError` unless 1 <= `num_classes` <= `num_samples`."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if num_classes < 1:
        raise ValueError(f"the number of pseudo classes must be at least 1, got {num_classes}")
    if num_classes > num_samples:
        raise ValueError(
            f"{num_classes} pseudo classes need at least as many images, got {num_samples}: "
            f"set the number of pseudo classes to at most {num_samples}"
        )


def check_labels(labels: torch.Tensor, num_samples: int, num_classes: int) -> None:
    """Raise `ValueError` unless the labels are (num_samples,) in [0, num_classes)."""
    if labels.shape != (num_samples,):
        raise ValueError(f"{num_samples} labels are needed, got {tuple(labels.shape)}")
    check_range(labels, num_classes)


def check_range(labels: torch.Tensor, num_classes: int) -> None:
    """Raise `ValueError` unless all labels, at least one, lie in [0, num_classes)."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), found [{low}, {high}]")


class RangeCheck:
    """Refuses numbers outside [0, end), without a wait for the device that they are on.

    Numbers on the CPU are refused at once. Of those on a GPU the smallest and the largest are kept
    there, and refused when they have arrived on the CPU, some calls later, or in `settle`.

    Args:
        what: what the numbers are, for the message.
        end: smallest number that is too large.
    """

    def __init__(self, what: str, end: int) -> None:
        self.what, self.end = what, end
        self._readout = Readout()
        self._seen: torch.Tensor | None = None  # (2,), smallest number and minus the largest one

    def note(self, values: torch.Tensor) -> None:
        """Look at numbers, (n,) int64.

        Raises:
            ValueError: if these, or earlier ones, are out of range.
        """
        if values.numel() == 0:
            return
        low, high = values.aminmax()
        now = torch.stack([low, -high])
        if self._seen is not None and values.device.type != "cpu":
            now = torch.minimum(self._seen, now)
        self._seen = now
        self._readout.offer(now)
        numbers = self._readout.poll()
        if numbers is not None:
            self._refuse(int(numbers[0]), -int(numbers[1]))

    def settle(self) -> None:
        """Wait for all numbers so far.

        Raises:
            ValueError: if some were out of range.
        """
        if self._seen is not None:
            low, negative = self._seen.tolist()
            self._refuse(low, -negative)

    def _refuse(self, low: int, high: int) -> None:
        if low < 0 or high >= self.end:
            self._seen = None  # said once
            self._readout = Readout()
            raise ValueError(f"{self.what} must lie in [0, {self.end}), found [{low}, {high}]")


def check_fixer(fixer_classes: int, num_classes: int) -> None:
    """Raise `ValueError` if a fixer is for another number of classes than the bank."""
    if fixer_classes != num_classes:
        raise ValueError(f"the fixer is for {fixer_classes} classes, the bank has {num_classes}")


def check_state(
    state: dict[str, Any], num_samples: int, num_classes: int, fingerprint: str | None
) -> None:
    """Refuse a state that is not of such a bank, whatever is in it.

    Args:
        state: as `PseudoLabelBank.state_dict` makes it.
        num_samples: images N of the bank.
        num_classes: pseudo classes K of the bank.
        fingerprint: fingerprint of its list of images, or None.

    Raises:
        ValueError: for a state of another dataset, another number of classes, labels out of range,
            or one that is no state of a bank.
    """
    missing = sorted(
        {"num_samples", "num_classes", "seed", "epoch", "targets", "staged"} - state.keys()
    )
    if missing:
        raise ValueError(f"this is no state of a pseudo-label bank: it lacks {missing}")
    for name in ("num_samples", "num_classes", "seed", "epoch"):
        if type(state[name]) is not int or (name == "epoch" and state[name] < 0):
            raise ValueError(f"the saved {name} must be a whole number, got {state[name]!r}")
    saved, own = state.get("fingerprint"), fingerprint
    if type(saved) not in (str, type(None)):
        raise ValueError(f"the saved fingerprint must be text or None, got {saved!r}")
    if str(state.get("version", STATE_VERSION)) != str(STATE_VERSION):
        raise ValueError(
            f"the labels were saved in format {state['version']}, "
            f"this version reads format {STATE_VERSION}"
        )
    if state["num_samples"] != num_samples:
        raise ValueError(
            f"the saved labels are of {state['num_samples']} images, this dataset has "
            f"{num_samples}: use the dataset that the checkpoint was trained on"
        )
    if state["num_classes"] != num_classes:
        raise ValueError(
            f"the saved labels have {state['num_classes']} pseudo classes, this run has "
            f"{num_classes}: set num_pseudo_classes={state['num_classes']}"
        )
    if saved is not None and own is not None and saved != own:
        raise ValueError(
            f"the saved labels are of another list of images (fingerprint {saved}, this "
            f"dataset has {own}): files were added, removed or renamed"
        )
    _check_saved("targets", state["targets"], 0, num_samples, num_classes)
    if state["staged"] is not None:
        _check_saved("staged", state["staged"], UNSEEN, num_samples, num_classes)


def _check_saved(name: str, labels: Any, lowest: int, num_samples: int, num_classes: int) -> None:
    if not isinstance(labels, torch.Tensor) or labels.shape != (num_samples,):
        raise ValueError(f"the saved {name} are no tensor of {num_samples} labels")
    if labels.dtype not in _INTEGERS or labels.layout != torch.strided:
        raise ValueError(f"the saved {name} are {labels.dtype}, not whole numbers")
    low, high = int(labels.min()), int(labels.max())
    if low < lowest or high >= num_classes:
        raise ValueError(
            f"the saved {name} must lie in [{lowest}, {num_classes}), found [{low}, {high}]"
        )
