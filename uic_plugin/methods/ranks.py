"""Between the ranks of a job: rows, sums and answers. Alone, every function is the identity."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# k-means of a hundred million images on one rank takes longer than the half hour that Lightning
# lets a collective wait
_PATIENCE = timedelta(days=2)


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def is_lost_rank(error: BaseException) -> bool:
    """Whether a collective failed because another rank has ended or does not answer."""
    text = str(error).lower()
    signs = ("peer", "connection", "timed out", "timeout", "broken pipe", "socket", "gloo", "nccl")
    return world_size() > 1 and any(sign in text for sign in signs)


def all_rows(*shares: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Rows of all ranks, in the order of ranks; every rank brings equally many."""
    if world_size() == 1:
        return shares
    whole = []
    for share in shares:
        gathered = [torch.empty_like(share) for _ in range(world_size())]
        dist.all_gather(gathered, share.contiguous())
        whole.append(torch.cat(gathered))
    return tuple(whole)


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor that every rank has its own part of."""
    return _reduced(values, dist.ReduceOp.SUM)


def max_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Elementwise maximum of the ranks' tensors; no rank goes on before all have come."""
    return _reduced(values, dist.ReduceOp.MAX)


def _reduced(values: torch.Tensor, operation: Any) -> torch.Tensor:
    if world_size() == 1:
        return values
    place = values.device
    if dist.get_backend() == "nccl":  # knows GPUs only
        values = values.cuda()
    dist.all_reduce(values, operation)
    return values.to(place)


def on_first_rank(
    work: Callable[[torch.Tensor], torch.Tensor], share: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    """What the first rank makes of the rows of all ranks, on every rank.

    In the memory of the host, not of a GPU; the others wait as long as it takes, and learn if it
    fails.

    Args:
        work: from all rows (n * ranks, D) to int64 answers of the given shape.
        share: (n, D) rows of this rank, on the CPU.
        shape: of the answer.

    Raises:
        RuntimeError: on the other ranks, if the first one's work has failed.
    """
    if world_size() == 1:
        return work(share)
    is_first = dist.get_rank() == 0
    group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
    gathered = [torch.empty_like(share) for _ in range(world_size())] if is_first else None
    dist.gather(share.contiguous(), gathered, 0, group=group)
    answer = torch.zeros(shape, dtype=torch.int64)
    error: Exception | None = None
    if gathered is not None:
        try:
            answer = work(torch.cat(gathered))
        except Exception as failure:  # told to the others before it is raised
            error = failure
    has_failed = torch.tensor([error is not None])
    dist.broadcast(has_failed, 0, group=group)
    if error is not None:
        raise error
    if has_failed:
        raise RuntimeError("the first rank has failed; its message says why")
    dist.broadcast(answer, 0, group=group)
    dist.destroy_process_group(group)
    return answer
