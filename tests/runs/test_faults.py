"""Stopped, killed, torn, spread over ranks: the same labels and weights in the end."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

from uic_plugin import EmptyClassFixer, PseudoLabelBank
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.report.tables import read_csv

EPOCHS = 3
IMAGES = 721  # half of the digits
STEPS = IMAGES // 64


class Server:
    """Runs jobs of `fault_server.py`."""

    def __init__(self):
        program = Path(__file__).with_name("fault_server.py")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, folder, *overrides, ranks=1, fault=None, watch=False, timeout=120):
        """One training in `folder/run`: statuses of the ranks, and what each of them said."""
        folder.mkdir(exist_ok=True)
        arguments = [
            "--config-name=digits/uic",
            f"run_dir={folder / 'run'}",
            f"max_epochs={EPOCHS}",
            "data.fraction=0.5",
            "backbone.kwargs.width=4",
            "method_kwargs.head_width=16",
            "accelerator=cpu",
            f"optimizer.batch_size={64 // ranks}",
            *overrides,
        ]
        job = {"arguments": arguments, "ranks": ranks, "fault": fault, "watch": watch}
        job |= {"log": str(folder), "timeout": timeout}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        said = [(folder / f"rank{rank}.log").read_text() for rank in range(ranks)]
        return answer["statuses"], said


@pytest.fixture(scope="module")
def train(digits):
    server = Server()
    yield server
    server.process.stdin.close()
    server.process.wait()


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The uninterrupted run, by number of ranks."""
    kept = {}

    def run(ranks):
        if ranks not in kept:
            folder = tmp_path_factory.mktemp(f"whole{ranks}")
            statuses, said = train(folder, "data.num_workers=0", ranks=ranks)
            assert statuses == [0] * ranks, said
            kept[ranks] = read_checkpoint(folder / "run" / "last.ckpt")
            kept[ranks]["history"] = own_numbers(folder)
        return kept[ranks]

    return run


def own_numbers(folder):
    """UIC's numbers of every epoch."""
    rows = read_csv(folder / "run" / "epochs.csv")
    return [{k: v for k, v in row.items() if k.startswith(("uic_", "epoch"))} for row in rows]


def same(folder, other):
    """Weights, optimizer, labels and telemetry are equal bit for bit."""

    def equal(one, two, name=""):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, two), name
        elif isinstance(one, dict):
            assert one.keys() == two.keys(), name
            for key in one:
                equal(one[key], two[key], f"{name}.{key}")
        elif isinstance(one, (list, tuple)):
            assert len(one) == len(two), name
            for number, (first, second) in enumerate(zip(one, two, strict=True)):
                equal(first, second, f"{name}.{number}")
        else:
            assert one == two, name

    ours = read_checkpoint(folder / "run" / "last.ckpt")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "uic", "epoch", "global_step"):
        equal(ours[key], other[key], key)
    for one, two in zip(own_numbers(folder), other["history"], strict=True):
        for name in one:  # sums of ranks in another order
            assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-6), name


FAULTS = {
    "stop": ({"kind": "stop", "epoch": 0}, 0),
    "term": ({"kind": "term", "epoch": 1, "step": 5}, 130),
    "kill": ({"kind": "kill", "epoch": 1, "step": 9}, -signal.SIGKILL),
    "kill while saving": ({"kind": "kill_saving", "save": 3}, -signal.SIGKILL),
}


def broken_and_resumed(train, whole, folder, workers, ranks, fault):
    broken, ends = FAULTS[fault]
    settings = [f"data.num_workers={workers}", "checkpoint_steps=4"]
    statuses, said = train(folder, *settings, ranks=ranks, fault=broken)
    assert statuses[0] == ends, said
    assert None not in statuses, "a rank hangs"
    if fault == "term":
        assert "same command resumes" in said[0]
        steps = 6 + (ranks > 1)  # ranks tell each other, and stop a step later
        assert read_checkpoint(folder / "run" / "last.ckpt")["uic"]["steps_done"] == steps
    statuses, said = train(folder, *settings, ranks=ranks)
    assert statuses == [0] * ranks, said
    same(folder, whole(ranks))


@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=() if name == "kill" else pytest.mark.slow) for name in FAULTS],
)
def test_broken_and_resumed_equals_unbroken(train, whole, tmp_path, fault):
    broken_and_resumed(train, whole, tmp_path, 1, 1, fault)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_workers_and_ranks(train, whole, tmp_path, workers, ranks, fault):
    broken_and_resumed(train, whole, tmp_path, workers, ranks, fault)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_forty_kills_at_random_moments(train, whole, tmp_path):
    """One run, killed again and again; a kill before the first checkpoint starts it anew."""
    draw = random.Random(0)
    kills = 0
    for _ in range(400):
        fault = {"kind": "kill_after", "seconds": draw.uniform(0.1, 1.5)}
        if kills >= 40:
            fault = None
        statuses, said = train(
            tmp_path, f"data.num_workers={kills % 3}", "checkpoint_steps=1", fault=fault
        )
        if statuses == [0] and kills >= 40:
            break
        if statuses == [0]:  # finished too early: once more from the start
            same(tmp_path, whole(1))
            for path in (tmp_path / "run").iterdir():
                path.unlink()
            continue
        assert statuses == [-signal.SIGKILL], said
        kills += 1
    assert kills >= 40
    same(tmp_path, whole(1))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(train, whole, tmp_path):
    settings = ["data.num_workers=0"]
    train(tmp_path, *settings, fault={"kind": "kill", "epoch": 2, "step": 3})
    last = tmp_path / "run" / "last.ckpt"
    with zipfile.ZipFile(last) as file:
        largest = max(file.infolist(), key=lambda part: part.file_size)
    content = bytearray(last.read_bytes())
    # one bit of the weights, which torch itself would not notice
    content[largest.header_offset + largest.file_size // 2 + 128] ^= 1
    last.write_bytes(content)
    statuses, said = train(tmp_path, *settings)
    assert statuses == [0]
    assert "last.ckpt is damaged" in said[0]
    assert "resuming from" in said[0]
    same(tmp_path, whole(1))
    assert (tmp_path / "run" / "last.ckpt.damaged").exists()


@pytest.mark.slow
def test_two_damaged_checkpoints_are_an_error(train, tmp_path):
    train(tmp_path, "data.num_workers=0", fault={"kind": "kill", "epoch": 2, "step": 3})
    for name in ("last.ckpt", "previous.ckpt"):
        path = tmp_path / "run" / name
        path.write_bytes(path.read_bytes()[:-1000])
    statuses, said = train(tmp_path, "data.num_workers=0")
    assert statuses == [1]
    assert "error:" in said[0]
    assert "remove it to start anew" in said[0]


def test_a_loss_that_is_no_number_stops_the_run(train, tmp_path):
    statuses, said = train(
        tmp_path,
        "data.num_workers=0",
        "checkpoint_steps=1",
        fault={"kind": "nan", "epoch": 1, "step": 4},
    )
    assert statuses == [1]
    assert f"the loss is nan at step {STEPS + 5} (epoch 2), on images " in said[0]
    assert ".png" in said[0]
    assert "lower optimizer.lr" in said[0]
    kept = read_checkpoint(tmp_path / "run" / "last.ckpt")
    assert kept["uic"]["steps_done"] == 4
    assert all(torch.isfinite(weight).all() for weight in kept["state_dict"].values())


@pytest.mark.parametrize(
    "kind", ["error", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("kill", "hang"))]
)
def test_a_lost_rank_ends_the_job_with_its_reason(train, tmp_path, kind):
    settings = ["data.num_workers=0", *(["rank_timeout=5"] if kind == "hang" else [])]
    fault = {"kind": kind, "rank": 1, "epoch": 1, "step": 3}
    statuses, said = train(tmp_path, *settings, ranks=2, fault=fault, timeout=30)
    assert statuses[0] == 1, said
    assert "another rank of this job has ended, or did not answer" in said[0]
    assert "same command resumes from there" in said[0]
    if kind == "error":
        assert "error: this rank has found a fault of its own" in said[1]


# A network without batch statistics: those are of a rank's own part of a batch.
PLAIN = [
    "data.num_workers=0",
    "backbone.name=timm/vit_tiny_patch16_224",
    "~backbone.kwargs.width",
    "+backbone.kwargs.img_size=16",
    "+backbone.kwargs.patch_size=8",
    "+backbone.kwargs.depth=2",
    "method_kwargs.head=linear",
    "max_epochs=2",
]


def watched(folder, ranks):
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("storage", [pytest.param("memory", marks=pytest.mark.slow), "mmap"])
def test_ranks_equal_one_process(train, tmp_path, ranks, storage):
    """Same banks after every step, same losses, whole classes, at most 12 bytes an image."""
    options = [*PLAIN, f"method_kwargs.bank_storage={storage}"]
    statuses, said = train(tmp_path / "one", *options, watch=True)
    assert statuses == [0], said
    statuses, said = train(tmp_path / "many", *options, ranks=ranks, watch=True)
    assert statuses == [0] * ranks, said
    (one,), many = watched(tmp_path / "one", 1), watched(tmp_path / "many", ranks)
    assert not list(Path(tempfile.gettempdir()).glob("uic-labels-*"))  # gone with the run
    assert all(record["weights"] == many[0]["weights"] for record in many)
    for steps in zip(*(record["steps"] for record in many), strict=True):
        assert all(step[:2] == steps[0][:2] for step in steps)  # epoch, both buffers of the bank
    pairs = zip(one["steps"], zip(*(record["steps"] for record in many), strict=True), strict=True)
    for number, (alone, together) in enumerate(pairs):
        # bytes that a rank gives away beside its gradients; between two epochs, metrics too
        metrics = 256 if number % STEPS in (0, STEPS - 1) else 0
        assert all(0 < step[4] <= 12 * len(step[3]) + metrics for step in together)
        if number >= STEPS:  # a rounding may have turned a label, and with it the order
            continue
        images = [image for step in together for image in step[3]]
        assert sorted(images) == sorted(alone[3])  # ranks share the very batch
        loss = sum(step[2] for step in together) / ranks
        assert loss == pytest.approx(alone[2], rel=1e-4), number
    epoch = [image for step in one["steps"] if step[0] == 0 for image in step[3]]
    labels = PseudoLabelBank(IMAGES, 30, seed=0)
    labels.fix_empty_classes(EmptyClassFixer(30))
    counts = torch.bincount(labels.targets(torch.tensor(epoch)), minlength=30)
    assert counts.max() <= IMAGES // 30 + 1
    assert counts.sum() == STEPS * 64


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_other_ranks_resume_with_the_labels(train, tmp_path, workers):
    """From one rank to two within an epoch: labels stay, nothing hangs, the user is told."""
    settings = [f"data.num_workers={workers}"]
    train(tmp_path, *settings, "checkpoint_steps=4", fault={"kind": "kill", "epoch": 1, "step": 9})
    before = read_checkpoint(tmp_path / "run" / "last.ckpt")["uic"]
    statuses, said = train(tmp_path, *settings, ranks=2, watch=True)
    assert statuses == [0, 0], said
    assert "written by 1 rank, this run has 2: labels are kept" in said[0]
    after = read_checkpoint(tmp_path / "run" / "last.ckpt")["uic"]
    assert after["bank"]["epoch"] == EPOCHS
    assert after["world_size"] == 2
    first = watched(tmp_path, 2)[0]["steps"][0]
    assert before["steps_done"] == 8
    assert first[0] == 1  # resumes in the epoch where it was killed
    in_epoch = [step for step in watched(tmp_path, 2)[0]["steps"] if step[0] == 1]
    assert len(in_epoch) == STEPS - 8  # the same images of a step on both ranks together


@pytest.mark.slow
def test_torchrun_on_two_nodes(train, whole, tmp_path):
    """The launch line of docs/cluster.md: two "machines" of two processes, as four on one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for node in (0, 1):
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            f"--node-rank={node}",
        ]
        launch += ["--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
        command = ["-m", "uic_plugin.cli", "pretrain", "--config-name=digits/uic", "num_nodes=2"]
        settings = ["devices=2", "accelerator=cpu", f"max_epochs={EPOCHS}", "data.num_workers=0"]
        settings += ["data.fraction=0.5"]
        settings += ["backbone.kwargs.width=4", "method_kwargs.head_width=16"]
        settings += ["optimizer.batch_size=16", f"run_dir={tmp_path / 'run'}"]
        settings += ["method_kwargs.bank_storage=mmap"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        nodes.append(subprocess.Popen([*launch, *command, *settings], env=env, cwd=tmp_path))
    assert [node.wait(timeout=250) for node in nodes] == [0, 0]
    expected, found = whole(4), read_checkpoint(tmp_path / "run" / "last.ckpt")
    assert torch.equal(found["uic"]["bank"]["targets"], expected["uic"]["bank"]["targets"])
    for name, weight in found["state_dict"].items():
        assert torch.equal(weight, expected["state_dict"][name]), name
