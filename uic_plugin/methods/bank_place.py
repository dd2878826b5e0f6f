"""Banks of all heads where the recipe, or their size, puts them."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.methods.ranks import barrier, max_over_ranks
from uic_plugin.pseudo_labels import PseudoLabelBank
from uic_plugin.pseudo_labels.storage import choose_storage


@dataclass(frozen=True)
class RankPlace:
    """Where a process of a job is.

    Attributes:
        device: that it trains on.
        node: number of its machine.
        local_rank: its number on its machine.
        ranks_per_node: processes of the job on this machine.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    node: int = 0
    local_rank: int = 0
    ranks_per_node: int = 1


def make_banks(
    options: PseudoLabelOptions,
    num_samples: int,
    seeds: list[int],
    *,
    rank: RankPlace,
    **bank: Any,
) -> tuple[PseudoLabelBank, ...]:
    """One bank a seed; of banks in files the first rank of each machine writes them.

    Args:
        options: `bank_storage` and `bank_folder` say where.
        num_samples: number of images N.
        seeds: of the heads.
        rank: where this process is.
        bank: further arguments of every `PseudoLabelBank`.

    Raises:
        OSError: if there is no room for the files.
    """
    classes = options.num_pseudo_classes
    storage = options.bank_storage
    if storage == "auto":
        width = 2 if classes <= 1 << 15 else 4
        num_bytes = 2 * width * num_samples * len(seeds)
        storage = choose_storage(num_bytes, rank.device, rank.ranks_per_node)
        # machines may differ in size, but all ranks have to wait for writers, or none
        if int(max_over_ranks(torch.tensor([int(storage == "mmap")]))):
            storage = "mmap"
    if storage != "mmap":
        bank["device"] = rank.device if storage == "device" else None
        return tuple(
            PseudoLabelBank(num_samples, classes, seed=seed, storage=storage, **bank)
            for seed in seeds
        )
    leads = rank.local_rank == 0
    banks = []
    with _common_folder(options.bank_folder, rank.node, leads) as folder:
        for head, seed in enumerate(seeds):
            place = folder / str(head)
            place.mkdir(exist_ok=True)
            banks.append(
                PseudoLabelBank(
                    num_samples,
                    classes,
                    seed=seed,
                    storage=storage,
                    folder=place,
                    is_writer=leads,
                    **bank,
                )
            )
    return tuple(banks)


@contextmanager
def _common_folder(base: str | None, node: int, leads: bool) -> Iterator[Path]:
    """A folder of one name on all ranks of a machine, gone when all have opened its files.

    Each machine has one of its own, also on a disk that they share.

    Open files keep their content without a name, until the last process ends, however it ends.
    """
    name = int(max_over_ranks(torch.tensor([secrets.randbits(48)])))
    folder = Path(base).expanduser() if base else Path(tempfile.gettempdir())
    folder = folder / f"uic-labels-{name:012x}-{node}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
        barrier()
    finally:
        if leads:
            shutil.rmtree(folder, ignore_errors=True)
