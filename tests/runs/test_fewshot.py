"""`uic fewshot` on a run's network: held-out digits, by folder and by split file."""

import csv

import pytest

from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.training import pretrain

SMALL = ["--ways", "5", "--episodes", "40", "--resolution", "16", "--set", "accelerator=cpu"]


@pytest.fixture
def run(recipe, tmp_path):
    pretrain(recipe("max_epochs=1"), reporter=EpochReporter("test"))
    return tmp_path / "run"


def test_folder_and_split_file_agree(run, uic, digits, tmp_path):
    done = uic("fewshot", run, digits / "val", "--layers", "conv3", "conv4", "conv3+mp", *SMALL)
    assert done.returncode == 0, done.stderr
    rows = read_csv(run / "fewshot.csv")
    assert [row["layer"] for row in rows] == ["conv3", "conv4", "conv3+mp"]
    assert all(float(row["accuracy"]) > 70 for row in rows)
    assert all(0 < float(row["interval"]) < 5 for row in rows)
    assert int(rows[0]["dimensions"]) > int(rows[2]["dimensions"])
    (tmp_path / "split" / "images").mkdir(parents=True)
    with open(tmp_path / "split" / "test.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label"])
        for path in sorted((digits / "val").glob("*/*.png")):
            name = f"{path.parent.name}-{path.name}"
            (tmp_path / "split" / "images" / name).write_bytes(path.read_bytes())
            writer.writerow([name, path.parent.name])
    split = tmp_path / "split" / "test.csv"
    done = uic("fewshot", run, split, "--layers", "conv3", "--out", "b.csv", *SMALL)
    assert done.returncode == 0, done.stderr
    assert read_csv(tmp_path / "b.csv")[0]["accuracy"] == rows[0]["accuracy"]


@pytest.mark.slow
def test_one_line_for_a_mistake(run, uic, digits, tmp_path):
    split = tmp_path / "test.csv"
    split.write_text("filename,label\nnone.png,a\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("path,class\na,b\n")
    for given, message in (
        ([digits / "val", "--layers", "conv9", *SMALL], "unknown layer 'conv9'"),
        ([digits / "val", "--layers", "conv4+mp", *SMALL], "cannot be pooled"),
        ([digits / "val", "--ways", "20"], "--ways 20 classes an episode, the images have 10"),
        ([digits / "val", "--shots", "100"], "images, an episode takes 100 shots"),
        ([split], "1 of the 1 images of"),
        ([empty], "needs the columns filename and label"),
        ([tmp_path / "none"], "no such folder of images or .csv file"),
        ([digits / "val" / "3"], "has no subfolder per class"),
    ):
        done = uic("fewshot", run, *given)
        assert done.returncode == 1, given
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
