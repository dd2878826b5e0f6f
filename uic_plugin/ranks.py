"""Several processes for one job: starting them, and exchanging rows, sums and answers.

    with process_group(use_gpu=True) as device:    # of torchrun, or of run_processes
        total = sum_over_ranks(my_part)

In a process alone every exchange returns what it was given.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, Any

import torch
import torch.distributed as dist

Reduce = Callable[[torch.Tensor], torch.Tensor]  # a tensor of this rank to one of all ranks

# k-means of a hundred million images on one rank takes longer than the half hour that Lightning
# lets a collective wait
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class RankInfo:
    """Which process of a job this is, and on which machine and device it runs.

    Attributes:
        device: device that it trains on.
        node: number of its machine.
        local_rank: its number on its machine.
        ranks_per_node: processes of the job on this machine.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    node: int = 0
    local_rank: int = 0
    ranks_per_node: int = 1


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def launched_rank() -> int:
    """Return the rank that torchrun or SLURM gave this process, before a process group is there."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def world_size() -> int:
    """Return the number of ranks."""
    return rank_and_world()[1]


def alone(values: torch.Tensor) -> torch.Tensor:
    """Return what there is on this rank, as a `Reduce` of a single one."""
    return values


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def is_lost_rank(error: BaseException) -> bool:
    """Tell whether a collective failed because another rank has ended or does not answer."""
    text = str(error).lower()
    signs = ("peer", "connection", "timed out", "timeout", "broken pipe", "socket", "gloo", "nccl")
    return world_size() > 1 and any(sign in text for sign in signs)


def all_rows(*shares: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the rows of all ranks, in the order of ranks.

    Args:
        shares: (n, ...) tensors of this rank; every rank brings equally many rows.

    Returns:
        One (n * ranks, ...) tensor for each.
    """
    if world_size() == 1:
        return shares
    whole = []
    for share in shares:
        gathered = [torch.empty_like(share) for _ in range(world_size())]
        dist.all_gather(gathered, share.contiguous())
        whole.append(torch.cat(gathered))
    return tuple(whole)


def all_rows_with_gradient(share: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ranks (n * ranks, ...); what each rank makes of them has a gradient.

    Args:
        share: (n, ...) of this rank; every rank brings equally many rows.
    """
    if world_size() == 1:
        return share
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(share))


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor that every rank has its own part of, on its device."""
    return _reduced(values, dist.ReduceOp.SUM)


def max_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the elementwise maximum of the ranks' tensors, once all ranks have called."""
    return _reduced(values, dist.ReduceOp.MAX)


def _reduced(values: torch.Tensor, operation: dist.ReduceOp.RedOpType) -> torch.Tensor:
    if world_size() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else values.device  # NCCL knows GPUs only
    reduced = values.to(device, copy=True)
    dist.all_reduce(reduced, operation)
    return reduced.to(values.device)


def on_first_rank(
    work: Callable[[torch.Tensor], torch.Tensor], share: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    """Return what the first rank makes of the rows of all ranks, on every rank.

    The rows meet in the memory of the CPU, not of a GPU; the other ranks wait as long as it takes,
    and learn of a failure.

    Args:
        work: makes int64 answers of the given shape from all rows (n * ranks, D).
        share: (n, D) rows of this rank, on the CPU.
        shape: shape of the answer.

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


@contextmanager
def process_group(*, use_gpu: bool) -> Iterator[torch.device]:
    """Join the group that `torchrun` describes in the environment, if it does.

    Args:
        use_gpu: compute on GPUs where there are any.

    Yields:
        The device of this process: its own GPU, or the CPU.

    Raises:
        ValueError: for more processes than GPUs.
    """
    on_gpu = use_gpu and torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    if on_gpu and local >= torch.cuda.device_count():
        raise ValueError(
            f"process {local + 1} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}: start at most as many processes"
        )
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=30))
    try:
        yield device
    finally:
        dist.destroy_process_group()


def run_processes(command: Sequence[str], count: int) -> int:
    """Run a Python command in `count` processes that find each other as `torchrun`'s would.

    The output of the first process is shown; of another one that fails first, its error is. When
    one fails the others are stopped.

    Args:
        command: arguments of the Python interpreter.
        count: number of processes, at least 1.

    Returns:
        Exit code of the first process that failed, or 0.
    """
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        processes = _start_processes(command, errors)
        try:
            while True:
                codes = [process.poll() for process in processes]
                failed = [rank for rank, code in enumerate(codes) if code]
                if failed or all(code == 0 for code in codes):
                    break
                time.sleep(0.1)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
        shown = failed[0] if failed else 0
        errors[shown].seek(0)
        sys.stderr.write(errors[shown].read().decode(errors="replace"))
    code = codes[shown]
    return int(code or 0) if (code or 0) >= 0 else 1


def _start_processes(
    command: Sequence[str], errors: Sequence[IO[bytes]]
) -> list[subprocess.Popen[bytes]]:
    """Start one process for each file that takes its errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = str(len(errors))
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    group |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    processes = []
    for rank, error in enumerate(errors):
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **group}
        environment.update(RANK=str(rank), LOCAL_RANK=str(rank))
        processes.append(
            subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=error,
            )
        )
    return processes
