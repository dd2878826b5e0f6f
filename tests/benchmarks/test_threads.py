"""What OpenMP's spinning threads cost a small network, alone and beside a busy process.

    pytest -m benchmark --benchmark-enable -s tests/benchmarks/test_threads.py     # 2 quiet cores

An epoch is one of `uic pretrain --config-name digits/uic` as a user types it: on two cores, hence
with two threads, and with the loader's worker. Everything is held to the same two cores, so that a
larger machine gives the same figures. The default policy is what torch gets when it is loaded
before the command sets anything.
"""

import csv
import os
import statistics
import subprocess
import sys
from contextlib import contextmanager

import pytest

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1200)]

PROGRAMS = {
    "default": "import torch; from uic_plugin.cli import main; main()",
    "passive": "from uic_plugin.cli import main; main()",
}
UNSET = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")
ROUNDS = 3
EPOCHS = 9  # of a run; the first also starts the loader's worker and is left out


@pytest.fixture(scope="module", autouse=True)
def two_cores():
    """Hold this process and what it starts to two cores."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("needs two cores")
    os.sched_setaffinity(0, sorted(allowed)[:2])
    yield
    os.sched_setaffinity(0, allowed)


def seconds_of_epochs(policy, folder):
    """Seconds of every epoch of a run but its first."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    command = [
        *(sys.executable, "-c", PROGRAMS[policy], "pretrain", "--config-name", "digits/uic"),
        *(f"run_dir={folder}", f"max_epochs={EPOCHS}", "accelerator=cpu"),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(folder / "epochs.csv", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    assert len(seconds) == EPOCHS
    return seconds[1:]


@contextmanager
def busy_process():
    """A process that never waits, in a process session of its own.

    The kernel shares the cores between sessions first and between the processes of each then
    (`sched_autogroup`), as it does between users who are logged in.
    """
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """Seconds of epochs under both policies on an otherwise idle machine, in turns."""
    folder = tmp_path_factory.mktemp("quiet")
    print(f"\nload average before: {os.getloadavg()[0]:.1f}; a quiet machine has 0", end="")
    seconds = {policy: [] for policy in PROGRAMS}
    for number in range(ROUNDS):
        for policy, found in seconds.items():
            found += seconds_of_epochs(policy, folder / f"{policy}-{number}")
    return seconds


def say(where, seconds):
    for policy, found in seconds.items():
        print(
            f"\n{where}, {policy}: median {statistics.median(found):.2f} s, "
            f"{min(found):.2f} to {max(found):.2f} s in {len(found)} epochs",
            end="",
        )


def test_quiet_machine(quiet):
    say("quiet", quiet)
    ratio = statistics.median(quiet["default"]) / statistics.median(quiet["passive"])
    print(f"\nsleeping threads are {ratio:.2f} times as fast")
    assert ratio >= 1.3


def test_beside_a_busy_process(quiet, tmp_path):
    busy = {policy: [] for policy in PROGRAMS}
    with busy_process():
        for number in range(ROUNDS):
            for policy, found in busy.items():
                found += seconds_of_epochs(policy, tmp_path / f"{policy}-{number}")
    say("beside a busy process", busy)
    alone = statistics.median(quiet["passive"])
    worst = {policy: max(found) / alone for policy, found in busy.items()}
    print(
        f"\nthe slowest epoch takes {worst['passive']:.1f} times a quiet one, "
        f"with threads that spin {worst['default']:.1f} times"
    )
    assert worst["passive"] <= 3
