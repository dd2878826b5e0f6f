"""OpenMP's threads sleep while they wait, unless the user says otherwise.

What the variable is when torch is loaded is what GNU OpenMP itself reports (`OMP_DISPLAY_ENV`).
"""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uic_plugin.experiments.jobs import Job, run_jobs
from uic_plugin.runs.datasets import pretrain_loader
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.threads import log_spinning_advice, spinning_advice

MAPS = Path("/proc/self/maps")
needs_gnu = pytest.mark.skipif(
    not MAPS.exists() or "libgomp" not in MAPS.read_text(), reason="no GNU OpenMP is loaded"
)


def environment(**variables):
    """That of a user who has set nothing but this."""
    unset = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "OMP_DISPLAY_ENV": "true", **variables}


def reported(text):
    """The policies that all OpenMP libraries of a process found, and the numbers of threads."""
    found = dict(re.findall(r"(OMP_WAIT_POLICY|OMP_NUM_THREADS) = '(\w+)'", text))
    policies = set(re.findall(r"OMP_WAIT_POLICY = '(\w+)'", text))
    return policies, found.get("OMP_NUM_THREADS")


def run(*arguments, **variables):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**variables),
    )


def test_nothing_that_is_imported_before_the_setting_imports_torch():
    program = "import sys, uic_plugin.cli, uic_plugin.__main__; sys.exit('torch' in sys.modules)"
    done = run("-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@needs_gnu
def test_scripts_of_the_host(tmp_path):
    (tmp_path / "script.py").write_text("import torch\n")
    done = run("-m", "uic_plugin", tmp_path / "script.py")
    assert done.returncode == 0, done.stderr
    assert reported(done.stderr)[0] == {"PASSIVE"}


@needs_gnu
@pytest.mark.parametrize(
    ("own", "policy", "threads"),
    [
        ({}, "PASSIVE", max(1, (os.cpu_count() or 1) // 2)),
        pytest.param(
            {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "3"},
            "ACTIVE",
            3,
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_the_command_and_jobs_keep_what_the_user_has_set(
    own, policy, threads, tmp_path, monkeypatch
):
    """A job is the command in a process of its own, here one of two at the same time."""
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name)
    for name, value in {"OMP_DISPLAY_ENV": "true", **own}.items():
        monkeypatch.setenv(name, value)
    arguments = ("data", "index", str(tmp_path / "none"), "x")
    job = Job("index it", arguments, tmp_path, tmp_path / "x")
    failed = run_jobs([job], 2, print)
    assert list(failed) == ["index it"]
    log = job.log.read_text()
    assert "there is no such folder" in log
    assert reported(log) == ({policy}, str(threads))


@pytest.mark.slow
@needs_gnu
def test_tests_and_their_workers(request):
    """pytest loads plugins before conftest.py: none of them may load torch."""
    root = request.config.rootpath
    named = "tests/test_threads.py::test_nothing_that_is_imported_before_the_setting_imports_torch"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "1", named],
        cwd=root,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert reported(done.stderr) == ({"PASSIVE"}, "1")


@pytest.fixture
def unset(monkeypatch):
    """As in a host's script on two cores, where nobody has set anything."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(2)
    log_spinning_advice.cache_clear()
    yield monkeypatch
    torch.set_num_threads(1)
    log_spinning_advice.cache_clear()


@needs_gnu
def test_advice_where_threads_spin_only(unset):
    assert "set OMP_WAIT_POLICY=PASSIVE before this script starts" in spinning_advice()
    torch.set_num_threads(1)
    assert spinning_advice() is None
    torch.set_num_threads(2)
    for name, value in (("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "0")):
        with unset.context() as changed:
            changed.setenv(name, value)
            assert spinning_advice() is None


@needs_gnu
def test_a_script_of_the_host_is_told_once(unset, recipe, host_trainer, caplog):
    cfg, source = prepare_config(recipe("max_epochs=1"))
    with caplog.at_level(logging.WARNING, logger="uic_plugin"):
        for _ in range(2):
            host_trainer().fit(build_method(cfg), pretrain_loader(cfg, source))
    said = [record.getMessage() for record in caplog.records if "PASSIVE" in record.getMessage()]
    assert len(said) == 1
    assert "\n" not in said[0]


def test_our_command_is_not_told(recipe, caplog):
    from uic_plugin.report.progress import EpochReporter
    from uic_plugin.runs.training import pretrain

    torch.set_num_threads(2)
    log_spinning_advice.cache_clear()
    try:
        pretrain(recipe("max_epochs=1"), reporter=EpochReporter("test"))
    finally:
        torch.set_num_threads(1)
    assert "PASSIVE" not in caplog.text
