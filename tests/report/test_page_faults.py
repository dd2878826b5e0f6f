"""What the page, the edits and an export do where nothing can be written, or images are gone."""

import importlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from forked import limited, run
from PIL import Image

from uic_plugin.data.labels import LabelTable, write_labels
from uic_plugin.export import LINKING

# a process without rights cannot read modules below another user's home
OWN = ("uic_plugin.data.originals", "uic_plugin.export", "uic_plugin.report.page")
for name in ("zoneinfo", "encodings.utf_8_sig", "matplotlib.pyplot", *OWN):
    importlib.import_module(name)
KINDS = ("folders", "imagefolder", "csv", "coco", "fiftyone", "lightly-studio")


@pytest.fixture
def work():
    """A folder that every user may read, with twelve images, their labels and a page of them."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "images").mkdir()
        paths = [f"{k:02}.png" for k in range(12)]
        draw = np.random.default_rng(0)
        for path in paths:
            pixels = draw.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / path)
        scores = np.linspace(0.4, 1, 12).astype(np.float32)
        table = LabelTable(paths, np.arange(12) % 3, scores, 1 - scores)
        write_labels(root / "labels.csv", table)
        labels = {"file": "labels.csv", "images": 12, "fingerprint": table.fingerprint}
        edits = {"format": "uic-edits", "version": 1, "labels": labels, "edits": []}
        (root / "edits.json").write_text(json.dumps(edits))
        (root / "new.csv").write_text("mine")
        (root / "stderr.txt").touch()
        (root / "stderr.txt").chmod(0o666)
        assert run(["classes", "labels.csv", "images"], root) == (0, "")
        yield root


def files(root):
    return {p: p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != "stderr.txt"}


def refused(code, said, *words):
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    for word in words:
        assert word in said


def as_nobody():
    """Take away root's right to write everywhere."""
    if os.geteuid() == 0:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


COMMANDS = [
    "classes labels.csv images",
    "classes labels.csv images --out other",
    "labels apply edits.json labels.csv --out new.csv",
    "labels apply edits.json labels.csv --out newer.csv",
    *(
        f"export labels.csv images --to {kind} --out out{' --copy' * (kind in LINKING)}"
        for kind in KINDS
    ),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_folder(work, command):
    before = files(work)
    for path in (work, *work.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (work / "stderr.txt").chmod(0o666)
    code, said = run(command.split(), work, as_nobody)
    for path in (work, *work.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    refused(code, said, "Permission denied")
    assert files(work) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(work, command):
    before = files(work)
    size = 300 if "csv --out" in command or "classes" not in command else 4_000
    code, said = run(command.split(), work, lambda: limited(min(size, 4_000)))
    refused(code, said, "File too large")
    now = files(work)
    kept = {path: text for path, text in before.items() if now.get(path) == text}
    lost = {path.name for path in before.keys() - kept.keys()}
    assert lost <= {"classes.csv", "class_sizes.png", "classes.png"}  # whole new ones
    assert not (work / "out").exists()
    assert not [path for path in now if path.name.endswith(".part")]


def test_labels_of_another_folder(work):
    (work / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(work / "elsewhere" / "other.png")
    before = files(work)
    for command in ("classes labels.csv elsewhere", "export labels.csv elsewhere --to csv --out o"):
        code, said = run(command.split(), work)
        refused(code, said, "12 of the 12 images", "elsewhere", "the labels were made of")
    assert files(work) == before


def test_an_image_gone_since_labelling(work):
    (work / "images" / "05.png").unlink()
    before = files(work)
    for command in ("classes labels.csv images", "export labels.csv images --to csv --out o"):
        refused(*run(command.split(), work), "1 of the 12 images", "05.png")
    assert files(work) == before


def test_a_broken_file_of_edits(work):
    before = files(work)
    command = "labels apply edits.json labels.csv --out new.csv".split()
    for text in ("{", "[]", '{"format": "uic-edits"}', '{"format": "uic-edits", "version": 1}'):
        (work / "edits.json").write_text(text)
        refused(*run(command, work), "edits.json")
        (work / "edits.json").write_bytes(before[work / "edits.json"])
    assert files(work) == before


def test_a_table_of_something_else_is_not_replaced(work):
    assert run("export labels.csv images --to csv --out mine".split(), work)[0] == 0
    before = files(work)
    code, said = run("classes labels.csv images --out mine".split(), work)
    refused(code, said, "mine/classes.csv is of something else")
    assert files(work) == before
    for name in ("index.html", "files"):  # a folder of pictures and table alone, as before pages
        target = work / "classes" / name
        target.unlink() if target.is_file() else shutil.rmtree(target)
    assert run("classes labels.csv images".split(), work) == (0, "")


@pytest.mark.parametrize("kind", ["coco", "lightly-studio"])
def test_a_damaged_image_is_named(work, kind):
    (work / "images" / "05.png").write_bytes(b"no image")
    code, said = run(f"export labels.csv images --to {kind} --out out".split(), work)
    refused(code, said, "images/05.png is no image that can be read", "mark it as wrong")
    assert not (work / "out").exists()
