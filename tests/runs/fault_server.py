"""Trains in forked processes and breaks the training on purpose, one JSON job per input line.

A job: {"arguments": [...of `uic pretrain`], "ranks": 1, "fault": {"kind": "kill", "rank": 0,
"epoch": 1, "step": 3}, "log": FOLDER, "timeout": 120, "watch": false}. The answer: the exit status
of every rank (negative: killed by that signal, null: it hung) and the seconds that it took.

Forked, because starting Python and importing torch takes longer than these trainings.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import torch

torch.set_num_threads(1)

import uic_plugin.runs.checkpoints as checkpoints  # noqa: E402
import uic_plugin.runs.training as training  # noqa: E402
from uic_plugin import cli  # noqa: E402
from uic_plugin.hosts import register  # noqa: E402
from uic_plugin.hosts.lightning import pl  # noqa: E402
from uic_plugin.runs import class_page  # noqa: E402, F401
from uic_plugin.runs.callbacks import History  # noqa: E402, F401

register()  # the host too is imported once, before the forks


class Fault(pl.Callback):
    """Breaks the process at a step."""

    def __init__(self, kind, epoch=0, step=0, **_):
        self.kind, self.at = kind, (epoch, step)

    def on_train_batch_start(self, trainer, module, batch, batch_idx, *_):
        if (trainer.current_epoch, batch_idx) != self.at:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.kind == "error":
            raise ValueError("this rank has found a fault of its own")
        if self.kind == "hang":
            time.sleep(3600)
        if self.kind == "nan":
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))

    def on_train_epoch_end(self, trainer, module):
        if self.kind == "stop" and trainer.current_epoch == self.at[0]:
            trainer.should_stop = True


class Watch(pl.Callback):
    """Writes down labels, losses, images and bytes sent of every step."""

    def __init__(self, folder):
        self.folder, self.steps, self.sent = folder, [], 0
        gather, reduce = torch.distributed.all_gather, torch.distributed.all_reduce

        def counted_gather(tensors, tensor, *rest, **more):
            self.sent += tensor.numel() * tensor.element_size()
            return gather(tensors, tensor, *rest, **more)

        def counted_reduce(tensor, *rest, **more):
            self.sent += tensor.numel() * tensor.element_size()
            return reduce(tensor, *rest, **more)

        torch.distributed.all_gather = counted_gather
        torch.distributed.all_reduce = counted_reduce

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx, *_):
        bank = module.bank
        place = torch.arange(1, len(bank) + 1)
        sums = [labels.long().mul(place).sum().item() for labels in (bank._targets, bank._staged)]
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        images = batch[0].tolist()
        self.steps.append([trainer.current_epoch, sums, float(loss), images, self.sent])
        self.sent = 0

    def on_train_end(self, trainer, module):
        weights = [w.double().sum().item() for w in module.parameters()]
        path = Path(self.folder, f"rank{trainer.global_rank}.json")
        path.write_text(json.dumps({"steps": self.steps, "weights": weights}))


def kill_while_saving(number):
    """SIGKILL in the middle of writing the checkpoint of that number."""
    whole, count = torch.save, [0]

    def save(content, path, *rest, **more):
        whole(content, path, *rest, **more)
        count[0] += 1
        if count[0] == number:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.torch.save = save


def child(job, rank, port):
    log = open(f"{job['log']}/rank{rank}.log", "w")  # noqa: SIM115
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    if job["ranks"] > 1:
        os.environ.update(
            LOCAL_RANK=str(rank),
            NODE_RANK="0",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            WORLD_SIZE=str(job["ranks"]),
        )
    fault = job.get("fault") or {"kind": None}
    callbacks = []
    if fault.get("rank", 0) == rank:
        callbacks.append(Fault(**fault))
        if fault["kind"] == "kill_saving":
            kill_while_saving(fault["save"])
        if fault["kind"] == "kill_after":
            kill = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
            timer = threading.Timer(fault["seconds"], kill)
            timer.daemon = True
            timer.start()
    if job.get("watch"):
        callbacks.append(Watch(job["log"]))
    training.pretrain = functools.partial(training.pretrain, callbacks=tuple(callbacks))
    sys.argv = ["uic", "pretrain", *job["arguments"], f"devices={job['ranks']}"]
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    log.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(job):
    started = time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(job["ranks"]):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            child(job, rank, port)
        pids.append(pid)
    statuses = [None] * len(pids)
    while None in statuses and time.monotonic() - started < job.get("timeout", 120):
        for number, pid in enumerate(pids):
            if statuses[number] is None:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    statuses[number] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    for number, pid in enumerate(pids):
        with contextlib.suppress(
            ProcessLookupError
        ):  # a killed rank's workers end on their own; a hung one is ended here
            os.killpg(pid, signal.SIGKILL)
        if statuses[number] is None:
            os.waitpid(pid, 0)
    return {"statuses": statuses, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
