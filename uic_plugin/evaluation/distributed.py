"""Several processes for one evaluation: `torchrun` starts them, or `run_processes` here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist


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


def rank_and_world() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def add_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, on the CPU."""
    if rank_and_world()[1] > 1:
        # NCCL sums on GPUs alone
        values = values.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
        dist.all_reduce(values)
    return values.cpu()


def run_processes(command: Sequence[str], count: int) -> int:
    """Run a Python command in `count` processes that find each other as `torchrun`'s would.

    The first one speaks; of another one that fails first, its error is shown. When one fails the
    others are stopped.

    Args:
        command: arguments of the Python interpreter.
        count: how many.

    Returns:
        Exit code of the first that failed, or 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        processes = []
        for rank in range(count):
            environment = {"OMP_NUM_THREADS": "1", **os.environ, **shared}
            environment.update(RANK=str(rank), LOCAL_RANK=str(rank))
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command],
                    env=environment,
                    stdout=None if rank == 0 else subprocess.DEVNULL,
                    stderr=errors[rank],
                )
            )
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
