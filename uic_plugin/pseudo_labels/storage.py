"""What others need of a store of labels, and where labels lie.

    storage = choose_storage(num_bytes, device, ranks_per_node=8)     # "memory", "device", "mmap"
    buffers = allocate(("targets", "staged"), 10**9, torch.int16, "mmap", folder=folder)

In memory, on a device, or in files that the ranks of a machine share.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch

STORAGES = ("memory", "device", "mmap")
# Shares of a GPU's and of a machine's memory that labels may take before they move on.
_SHARE_OF_DEVICE = 1 / 20
_SHARE_OF_MEMORY = 1 / 4


class LabelStore(Protocol):
    """What orders and checkpoints need of labels, whether they are kept for every image or not."""

    epoch: int
    seed: int

    def __len__(self) -> int: ...
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, Any]) -> None: ...  # noqa: D102


def choose_storage(num_bytes: int, device: torch.device, ranks_per_node: int = 1) -> str:
    """Return the fastest storage that labels fit in.

    Args:
        num_bytes: size of the labels that a rank holds.
        device: device that the rank trains on.
        ranks_per_node: processes that each hold labels in this machine's memory.
    """
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        if num_bytes <= _SHARE_OF_DEVICE * whole:
            return "device"
    if num_bytes * ranks_per_node <= _SHARE_OF_MEMORY * memory_bytes():
        return "memory"
    return "mmap"


def memory_bytes() -> int:
    """Return the bytes of this machine's memory, or of a job's or a container's part of it."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def allocate(
    names: tuple[str, ...],
    count: int,
    dtype: torch.dtype,
    storage: str,
    *,
    device: torch.device | str | None = None,
    folder: Path | None = None,
) -> list[torch.Tensor]:
    """Return buffers of `count` numbers each, uninitialised; those in files keep what is there.

    Args:
        names: names of the buffers, and of their files.
        count: numbers in each.
        dtype: type of the numbers.
        storage: one of `STORAGES`.
        device: device for "device".
        folder: existing folder for "mmap"; processes that name the same one share the buffers.

    Raises:
        ValueError: for an unknown storage, or "mmap" without a folder.
        OSError: if the files cannot be made, as on a full disk.
    """
    if storage not in STORAGES:
        raise ValueError(f"bank_storage must be one of {', '.join(STORAGES)}, got {storage!r}")
    if storage != "mmap":
        where = device if storage == "device" else None
        return [torch.empty(count, dtype=dtype, device=where) for _ in names]
    if folder is None:
        raise ValueError("labels in files need a folder for them: set bank_folder")
    buffers = []
    for name in names:
        path = folder / name
        with open(path, "ab") as file:
            size = count * dtype.itemsize
            if hasattr(os, "posix_fallocate"):
                # reserves the blocks: a full disk is an error here, not a crash at a later write
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                os.truncate(path, size)
        buffers.append(torch.from_file(str(path), shared=True, size=count, dtype=dtype))
    return buffers
