"""`uic discover` and `uic embed` killed at any moment, and on a full disk."""

import importlib
import os
import shutil
import signal

import numpy as np
import pytest
from forked import limited, run

from uic_plugin.data.labels import read_labels
from uic_plugin.features.store import FeatureStore
from uic_plugin.report.tables import read_csv

# which precision is faster may differ from call to call on a busy machine
FAST = "--size 32 --workers 0 --precision 32 --heads 4 --epochs 3 --min-steps 60".split()
# bytes: of the list of images, a state of the heads, the network of the classes
SIZES = [20_000, *(pytest.param(size, marks=pytest.mark.slow) for size in (1_000, 100_000))]


@pytest.fixture(scope="module")
def images(digits, tmp_path_factory):
    """Six images of each of ten digits; what a fork would import each time is imported."""
    for name in ("faiss", "pyarrow.parquet", "timm", "uic_plugin.experiments.discovery"):
        importlib.import_module(name)
    root = tmp_path_factory.mktemp("faults") / "images"
    for folder in sorted((digits / "train").iterdir()):
        (root / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:6]:
            shutil.copy(image, root / folder.name / image.name)
    return root


def killed_before_file(number):
    """Kill the process when it is about to put its file of this number in place, counted from 0."""
    replace, done = os.replace, []

    def counting(*paths):
        if len(done) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(paths)
        replace(*paths)

    os.replace = counting


def killed_before(end):
    """Kill the process when it is about to put the file whose path has this end in place."""
    replace = os.replace

    def looking(source, target):
        if str(target).endswith(end):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = looking


def same(one, two):
    a, b = read_labels(one / "labels.parquet"), read_labels(two / "labels.parquet")
    assert a.paths == b.paths
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.confidence, b.confidence)


@pytest.mark.slow
def test_killed_before_the_page_is_there(images, tmp_path):
    given = ["discover", images, "--classes", 5, *FAST, "--features", "features"]
    assert run([*given, "--out", "whole"], tmp_path)[0] == 0
    part = [*given, "--out", "part"]
    assert run(part, tmp_path, lambda: killed_before("/index.html"))[0] == -signal.SIGKILL
    assert not (tmp_path / "part" / "page" / "index.html").exists()
    assert run(part, tmp_path) == (0, "")
    same(tmp_path / "whole", tmp_path / "part")
    assert (tmp_path / "part" / "page" / "index.html").is_file()
    assert not (tmp_path / "part" / "unfinished").exists()
    code, said = run(part, tmp_path)  # now it is finished, and kept
    assert (code, said.count("\n")) == (1, 1)
    assert "--overwrite" in said


@pytest.mark.slow
def test_killed_in_the_fine_tuning(images, tmp_path):
    given = ["discover", images, "--classes", 5, *FAST, "--features", "f", "--finetune", 1]
    given += ["--annotations", "--no-page", "--out", "out"]
    tuned = tmp_path / "out" / "finetuned"
    for end in ("/last.ckpt", "/finetuned/labels.parquet"):
        code, said = run(given, tmp_path, lambda e=end: killed_before(e))
        assert code == -signal.SIGKILL, said
        assert not (tuned / "labels.parquet").exists()
    assert (tuned / "run" / "last.ckpt").exists()
    assert run(given, tmp_path)[0] == 0
    assert len(read_labels(tuned / "labels.parquet")) == 60
    assert [row["method"] for row in read_csv(tmp_path / "out" / "scores.csv")] == [
        "uic discover",
        "uic discover --finetune 1",
    ]


@pytest.mark.slow
def test_killed_again_and_again_at_every_file(images, tmp_path):
    """From the first file of the features on, each call is killed one file later."""
    given = ["discover", images, "--classes", "auto", *FAST]
    assert run([*given, "--out", "whole", "--features", "f"], tmp_path)[0] == 0
    part = [*given, "--out", "part", "--features", "g"]
    for number in range(100):
        code, said = run(part, tmp_path, lambda n=number: killed_before_file(n))
        if not code:
            break
        assert code == -signal.SIGKILL, said
    assert number > 5  # what is kept makes later calls shorter
    same(tmp_path / "whole", tmp_path / "part")
    names = FeatureStore.open(tmp_path / "f").names
    one, two = (FeatureStore.open(tmp_path / name).features(names) for name in "fg")
    np.testing.assert_array_equal(one, two)
    assert not list((tmp_path / "part").rglob("*.part"))


@pytest.mark.parametrize("size", SIZES)
def test_full_disk(images, tmp_path, size):
    given = ["discover", images, "--classes", 5, *FAST, "--features", "f", "--out", "out"]
    code, said = run(given, tmp_path, lambda: limited(size))
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    assert "make room" in said
    assert not (tmp_path / "out" / "labels.parquet").exists()
    assert run(given, tmp_path) == (0, "")
    assert len(read_labels(tmp_path / "out" / "labels.parquet")) == 60
