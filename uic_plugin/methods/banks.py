"""The banks of all heads, in memory of their own or in files that the ranks of a machine share.

    banks = make_banks(options, num_samples, seeds, rank=RankInfo())
    boundary = commit_bank(banks[0], fixer, telemetry)

Of shared files the first rank of each machine writes, and the others follow.
"""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.pseudo_labels import (
    EmptyClassFixer,
    EpochBoundary,
    EpochTelemetry,
    PseudoLabelBank,
)
from uic_plugin.pseudo_labels.storage import choose_storage
from uic_plugin.ranks import RankInfo, barrier, max_over_ranks


def make_banks(
    options: PseudoLabelOptions,
    num_samples: int,
    seeds: list[int],
    *,
    rank: RankInfo,
    init: Literal["random", "balanced"] = "random",
    labels: torch.Tensor | None = None,
    fingerprint: str | None = None,
) -> tuple[PseudoLabelBank, ...]:
    """Make one bank for each seed.

    Args:
        options: `bank_storage` and `bank_folder` say where the labels lie.
        num_samples: number of images N.
        seeds: one for each head.
        rank: this process, and its machine and device.
        init, labels, fingerprint: see `PseudoLabelBank`.

    Raises:
        OSError: if there is no room for the files.
        ValueError: see `PseudoLabelBank`.
    """
    storage = _common_storage(options, num_samples, len(seeds), rank)
    leads = rank.local_rank == 0

    def make(head: int, folder: Path | None) -> PseudoLabelBank:
        return PseudoLabelBank(
            num_samples,
            options.head_classes[head],
            seed=seeds[head],
            init=init,
            labels=labels,
            fingerprint=fingerprint,
            device=rank.device if storage == "device" else None,
            storage=storage,
            folder=folder,
            is_writer=folder is None or leads,
        )

    if storage != "mmap":
        return tuple(make(head, None) for head in range(len(seeds)))
    banks = []
    with _common_folder(options.bank_folder, rank.node, leads) as whole:
        for head in range(len(seeds)):
            folder = whole / str(head)
            folder.mkdir(exist_ok=True)
            banks.append(make(head, folder))
    return tuple(banks)


def commit_bank(
    bank: PseudoLabelBank,
    fixer: EmptyClassFixer | None,
    telemetry: EpochTelemetry | None = None,
) -> EpochBoundary:
    """Take a bank across the epoch boundary; of shared labels, once they are written.

    Args:
        bank: bank of one head.
        fixer: fills its empty classes, or None.
        telemetry: compares the labels before and after, or None.

    Returns:
        What happened, equal on all ranks.
    """
    boundary = None
    if bank.is_writer:
        boundary = bank.commit(fixer, telemetry.compare if telemetry is not None else None)
        if bank.storage != "mmap":  # every rank writes its own
            return boundary
    numbers = torch.zeros(5, dtype=torch.float64)
    if boundary is not None:
        agreement = telemetry.nmi_previous if telemetry is not None else 0.0
        numbers = torch.tensor([*dataclasses.astuple(boundary), agreement], dtype=torch.float64)
    numbers = max_over_ranks(numbers)
    boundary = EpochBoundary(*(int(number) for number in numbers[:4]))
    if not bank.is_writer:
        bank.follow(boundary)
    if telemetry is not None:
        telemetry.nmi_previous = float(numbers[4])
    return boundary


def count_staged(bank: PseudoLabelBank) -> int:
    """Return how many images have a label for the next epoch, equal on all ranks.

    Of shared labels, once they are written: another rank may count them too early, and too few.
    """
    count = bank.num_staged
    if bank.storage != "mmap":
        return count
    return int(max_over_ranks(torch.tensor([count])))


def _common_storage(
    options: PseudoLabelOptions, num_samples: int, heads: int, rank: RankInfo
) -> str:
    """Return the storage of the recipe, or of "auto" the fastest one that all ranks can use."""
    if options.bank_storage != "auto":
        return options.bank_storage
    width = 2 if max(options.head_classes) <= 1 << 15 else 4
    num_bytes = 2 * width * num_samples * heads
    storage = choose_storage(num_bytes, rank.device, rank.ranks_per_node)
    # machines may differ in size, but all ranks have to wait for writers, or none
    needs_files = max_over_ranks(torch.tensor([int(storage == "mmap")]))
    return "mmap" if int(needs_files) else storage


@contextmanager
def _common_folder(base: str | None, node: int, leads: bool) -> Iterator[Path]:
    """Yield a folder of one name on all ranks of a machine, gone when all have opened its files.

    Each machine has one of its own, also on a disk that they share. Open files keep their content
    without a name, until the last process ends, however it ends.

    Raises:
        FileNotFoundError: if there is no folder `base`: a mistyped disk is not made on another.
    """
    if base and not Path(base).expanduser().is_dir():
        raise FileNotFoundError(f"bank_folder={base} is no folder: make it, or give another")
    name = int(max_over_ranks(torch.tensor([secrets.randbits(48)])))
    folder = Path(base).expanduser() if base else Path(tempfile.gettempdir())
    folder = folder / f"uic-labels-{name:012x}-{node}"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
        barrier()
    finally:
        if leads:
            shutil.rmtree(folder, ignore_errors=True)
