"""lightly's own benchmark, unmodified, with the entry that docs/lightly.md adds to its methods.

Needs a checkout: LIGHTLY=<folder>.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = os.environ.get("LIGHTLY")
SCRIPTS = Path(CHECKOUT or "-") / "benchmarks" / "imagenet" / "resnet50"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (SCRIPTS / "main.py").is_file(), reason="no checkout of lightly: LIGHTLY=<folder>"
    ),
]
PAGE = Path(__file__).parents[2] / "docs" / "lightly.md"
SMALLER = {
    'backbone="resnet18", num_pseudo_classes=300': 'backbone="conv4", num_pseudo_classes=20, '
    'backbone_kwargs={"width": 4}',
    "UICTransform(64)": "UICTransform(16)",
}


@pytest.fixture
def images(digits, tmp_path):
    """A few digits of each class."""
    for part, count in (("train", 8), ("val", 4)):
        for folder in (digits / part).iterdir():
            target = tmp_path / "images" / part / folder.name
            target.mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                shutil.copy(path, target)
    return tmp_path / "images"


def script(tmp_path):
    (block,) = (
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "import main" in text
    )
    for old, new in SMALLER.items():
        assert old in block
        block = block.replace(old, new)
    path = tmp_path / "with_uic.py"
    path.write_text(block)
    return path


def run(tmp_path, images, *arguments):
    paths = [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, str(script(tmp_path)), "--methods", "uic"]
    data = ["--train-dir", str(images / "train"), "--val-dir", str(images / "val")]
    small = ["--batch-size-per-device", "16", "--num-workers", "1", "--num-classes", "10"]
    on_cpu = ["--accelerator", "cpu", "--precision", "32", "--knn-k", "5"]
    return subprocess.run(
        [*command, *data, *small, *on_cpu, "--log-dir", str(tmp_path / "logs"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.mark.timeout(900)
def test_every_evaluation_of_the_unmodified_benchmark(images, tmp_path):
    done = run(tmp_path, images, "--epochs", "2", "--seed", "1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    rows = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in table[2:]}
    names = {(evaluation, metric) for evaluation, metric, _ in rows}
    assert {("linear", "val_top1"), ("finetune", "val_top5")} <= names
    assert any(e == "knn" and metric.startswith("val_knn_top1") for e, metric in names)
    assert all(0 <= float(value) <= 1 for _, _, value in rows)
    assert "max val_online_cls_top1" in done.stdout
    (checkpoint,) = (tmp_path / "logs").rglob("pretrain/**/*.ckpt")

    rest = [f"--skip-{evaluation}-eval" for evaluation in ("knn", "linear", "finetune")]
    more = ["--epochs", "3", "--seed", "1", "--ckpt-path", str(checkpoint)]
    resumed = run(tmp_path, images, *more, *rest)
    assert resumed.returncode == 0, resumed.stderr[-3000:]


def test_two_processes(images, tmp_path):
    rest = [f"--skip-{evaluation}-eval" for evaluation in ("knn", "linear", "finetune")]
    two = ["--devices", "2", "--epochs", "1", "--seed", "1", "--batch-size-per-device", "8"]
    done = run(tmp_path, images, *two, *rest)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(list((tmp_path / "logs").rglob("pretrain/**/*.ckpt"))) == 1
