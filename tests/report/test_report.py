"""What people see."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from uic_plugin.data.labels import read_labels
from uic_plugin.experiments.demo import run_demo
from uic_plugin.report.figures import plot_classes, plot_curves, read_history
from uic_plugin.report.progress import EpochReporter

ROW = {
    "epoch": 1,
    "seconds": 2.5,
    "train_uic_loss_epoch": 3.25,
    "uic_changed": 0.5,
    "uic_nmi": 0.125,
    "uic_purity": 0.25,
}


def test_one_line_per_epoch_without_a_terminal():
    text = io.StringIO()
    reporter = EpochReporter("uic", Console(file=text, width=200))
    reporter.start(4, 10)
    reporter.step(0, 0, 3.3)
    reporter.epoch(ROW)
    reporter.stop()
    line = "uic epoch 1/4  loss 3.25  changed 0.5  NMI 0.125  purity 0.25  2.5 s\n"
    assert text.getvalue() == line


@pytest.mark.parametrize("name", ["train_nce_loss_epoch", "dino_loss_epoch", "train_uic_loss"])
def test_the_loss_is_the_methods_own(name):
    others = dict.fromkeys(
        ("train_class_loss", "train_momentum_class_loss_epoch", "momentum_val_loss", "val_loss"), 9
    )
    text = io.StringIO()
    reporter = EpochReporter("any", Console(file=text, width=200))
    reporter.start(4, 10)
    reporter.epoch({"epoch": 1, "seconds": 2.5, **others, name: 1.5})
    reporter.stop()
    assert text.getvalue() == "any epoch 1/4  loss 1.5  2.5 s\n"


def test_a_bar_on_a_terminal():
    text = io.StringIO()
    reporter = EpochReporter("uic", Console(file=text, width=160, force_terminal=True))
    reporter.start(2, 2)
    for batch in (0, 1):
        reporter.step(0, batch, 3.3)
    reporter.epoch(ROW)
    reporter.step(1, 0, 3.1)
    reporter.stop()
    reporter.stop()
    shown = text.getvalue()
    assert "epoch 2/2" in shown
    assert "loss 3.100" in shown
    assert "NMI 0.125" in shown


def test_pictures(tmp_path):
    path = tmp_path / "epochs.csv"
    path.write_text("epoch,uic_nmi,train_uic_loss\n1,0.1,3.4\n2,0.2,\n")
    history = read_history(path)
    assert history["uic_nmi"] == [0.1, 0.2]
    assert np.isnan(history["train_uic_loss"][1])
    plot_curves({"a": history}, tmp_path / "curves.png")
    images = [np.full((8, 8, 3), 20 * n, dtype=np.uint8) for n in range(10)]
    labels = np.array([0] * 6 + [2] * 4)
    plot_classes(
        images,
        labels,
        np.linspace(0, 1, 10),
        tmp_path / "classes.png",
        sizes=np.bincount(labels, minlength=3),
    )
    for name in ("curves.png", "classes.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 30


@pytest.mark.slow
def test_demo_makes_its_table_and_pictures(tmp_path, data_dir):
    text = io.StringIO()
    quick = ("max_epochs=1", "data.num_workers=0", "linear.max_epochs=2", "accelerator=cpu")
    rows = run_demo(tmp_path / "demo", console=Console(file=text, width=150), overrides=quick)
    assert [row["method"] for row in rows] == ["random", "uic", "simclr"]
    for row in rows:
        assert 50 < row["k-NN"] <= 100
        assert 0 < row["NMI"] < 1
    for name in ("results.csv", "curves.png", "classes.png", "labels.csv", "classes/index.html"):
        assert (tmp_path / "demo" / name).stat().st_size > 100
    classes = read_labels(tmp_path / "demo" / "labels.csv").labels
    assert classes.min() >= 0
    assert 10 < classes.max() < 30  # of the first of its four classifiers
    page = str((tmp_path / "demo" / "classes" / "index.html").resolve())
    assert text.getvalue().replace("\n", "").endswith(page)
    assert str((tmp_path / "demo").resolve()) in text.getvalue().replace("\n", "")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else than a demo"):
        run_demo(tmp_path / "mine", console=Console(file=text), overrides=quick)
    again = io.StringIO()  # finished runs are not repeated
    run_demo(tmp_path / "demo", console=Console(file=again, width=150), overrides=quick)
    assert "epoch 1/1" not in again.getvalue()
