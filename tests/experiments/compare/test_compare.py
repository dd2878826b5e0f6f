"""`uic compare` from the command to the page."""

import csv
import json
from types import SimpleNamespace

import pytest

from uic_plugin.experiments.compare.plan import Entry
from uic_plugin.experiments.compare.quoted import quoted_tables
from uic_plugin.experiments.compare.records import cell, columns_of, epoch_rows, summarize
from uic_plugin.experiments.jobs import reason_of
from uic_plugin.experiments.paper.tables import TABLES

SMALL = ("backbone.kwargs.width=4", "data.num_workers=0", "accelerator=cpu", "precision=32")


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_coverage_of_runs_that_counted_no_images(tmp_path):
    """Earlier versions counted labels of the steps: there are none in a supervised run."""
    cost = {"images": 400, "batch_size": 64, "views_per_image": 1, "images_per_epoch": 384}
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    (tmp_path / "epochs.csv").write_text("epoch,steps,uic_coverage\n1,6,0.0\n2,6,0.81\n3,6,\n")
    run = SimpleNamespace(folder=tmp_path, entry=Entry("supervised", "supervised"), seed=0)
    assert [row["coverage"] for row in epoch_rows([run])] == [0.96, 0.81, 0.96]


@pytest.mark.slow
def test_runs_are_measured_kept_and_failures_named(uic, tmp_path, digits):
    variants = tmp_path / "variants.yaml"
    variants.write_text(
        "too many classes: {method: uic, overrides: {method_kwargs.num_pseudo_classes: 5000}}\n"
    )
    command = [
        "compare", "--data", "digits", "--methods", "uic,random", "--variants", variants,
        "--budget", "views=4k", "--clusters", "20", "--jobs", "2", "linear.max_epochs=2",
        "method_kwargs.head_width=16", *SMALL,
    ]  # fmt: skip
    first = uic(*command)
    runs = tmp_path / "runs" / "compare" / "digits-small"
    assert first.returncode == 1, first.stderr
    (out,) = runs.glob("comparison-*")
    reason = "error: 1442 images are fewer than 5000 pseudo classes"
    assert f"failed: too many classes, seed 0: {reason}" in first.stdout
    rows = {row["label"]: row for row in rows_of(out / "runs.csv")}
    assert 20 < float(rows["uic"]["knn"]) <= 100
    assert float(rows["random"]["views"]) == 0
    assert float(rows["uic"]["views"]) == 3 * 1408
    assert float(rows["uic"]["bytes_per_image"]) == 4
    assert 0 < float(rows["uic"]["nmi"]) < 1
    assert rows["random"]["nmi"] == ""
    assert float(rows["random"]["kmeans_nmi"]) > 0.3
    assert "5000 pseudo classes" in rows["too many classes"]["failed"]
    points = rows_of(out / "curves.csv")
    assert [int(point["epoch"]) for point in points] == [1, 2, 3]
    assert float(points[-1]["knn"]) == float(rows["uic"]["knn"])
    page = (out / "index.html").read_text()
    assert "<svg" in page
    assert "5000 pseudo classes" in page
    assert "uic pretrain --config-name=digits/uic" in page

    before = json.loads(next(runs.glob("uic-*/train.done.json")).read_text())
    again = uic(*[part for part in command if part not in ("--variants", variants)])
    assert again.returncode == 0
    assert "4 commands, 4 of them done already" in again.stdout
    assert json.loads(next(runs.glob("uic-*/train.done.json")).read_text()) == before
    assert len(list(runs.glob("comparison-*"))) == 2  # another comparison writes elsewhere


@pytest.mark.slow
def test_another_evaluation_measures_the_same_training_again(uic, tmp_path, digits):
    command = ("compare", "--methods", "random", "--budget", "epochs=1", "--clusters", "20", *SMALL)
    assert uic(*command, "linear.max_epochs=2").returncode == 0
    runs = tmp_path / "runs" / "compare" / "digits-small"
    before = json.loads(next(runs.glob("random-*/train.done.json")).read_text())
    other = uic(*command, "linear.max_epochs=3")
    assert "2 commands, 1 of them done already" in other.stdout
    assert json.loads(next(runs.glob("random-*/train.done.json")).read_text()) == before


@pytest.mark.slow
def test_held_out_images_judge_and_no_test_images_are_needed(uic, tmp_path, digits):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train").symlink_to(digits / "train")
    options = (
        "--data", "images", "--network", "conv4", "--methods", "random", "--held-out", "0.2",
        "--budget", "epochs=1", "--clusters", "10", "--out", "out", "linear.max_epochs=1",
        "augmentations.0.crop_size=16", *SMALL,
    )  # fmt: skip
    done = uic("compare", *options)
    assert done.returncode == 0, done.stderr
    assert "accuracy on 0.2 of the training images" in " ".join(done.stdout.split())
    (row,) = rows_of(tmp_path / "out" / "runs.csv")
    assert row["held_out"] == "0.2"
    # of 1,442 images 288 judge: every accuracy is a multiple of one of them
    share = float(row["knn"]) / 100 * 288
    assert abs(share - round(share)) < 0.02
    assert float(row["linear"]) > 0
    assert "0.2 of the training images" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.slow
def test_a_budget_of_minutes_is_calibrated(uic, tmp_path, digits):
    options = ("--methods", "uic", "--budget", "minutes=0.2", "linear.max_epochs=1", "--out", "out")
    done = uic("compare", *options, "method_kwargs.head_width=16", *SMALL)
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path / "out" / "runs.csv")
    (calibrated,) = (tmp_path / "runs" / "compare" / "digits-small").glob("calibration-*")
    assert len(rows_of(calibrated / "epochs.csv")) == 2
    assert "max_seconds=12 scheduler.interval=step" in row["command"]
    assert row["budget_clock"] == "cpu_"
    assert int(row["epochs"]) >= 2
    (steady,) = rows_of(tmp_path / "out" / "steadiness.csv")
    assert steady["run"].startswith("uic-")


@pytest.mark.slow
def test_typing_errors_are_one_line(uic, tmp_path):
    knn = tmp_path / "knn.yaml"
    knn.write_text("k of one:\n  method: uic\n  overrides: {knn.k: 1}\n")
    for options, message in (
        (("--methods", "uci"), "error: unknown method 'uci': one of"),
        (("--budget", "20"), "error: --budget must be"),
        (("--seeds", "a"), "error: --seeds must be whole numbers"),
        (("--data", "nowhere"), "error: --data nowhere: no recipes of that name"),
        (("--variants", "none.yaml"), "none.yaml"),
        (("--variants", knn), "has a setting of linear or knn, and all lines are evaluated alike"),
        (("--seeds", "0,0"), "error: --seeds must be different numbers"),
        (("--clusters", "1"), "error: --clusters must be at least 2"),
        (("--layers", "conv9"), "error: unknown layer 'conv9': this network has conv1"),
        (("--held-out", "1.5"), "error: --held-out must be a share of the training images"),
        (("--tune", "1"), "error: --tune must be 0, or at least 2 settings, got 1"),
        (("--tune", "99"), "error: uic: the grid of"),
        (("seed=3",), "error: seed=3: uic compare sets seed itself"),
        (("data.no_labels=true",), "error: --data digits: a comparison is measured on annotated"),
    ):
        done = uic("compare", *options)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_dry_run_prints_commands(uic, digits):
    done = uic("compare", "--methods", "uic,byol", "--budget", "epochs=3", "--dry-run")
    assert done.returncode == 0
    assert "uic pretrain --config-name=digits/any methods=byol seed=0 max_epochs=3" in done.stdout


@pytest.mark.slow
def test_costs_of_an_epoch_boundary(uic, tmp_path, digits):
    run = tmp_path / "run"
    given = ("max_epochs=1", f"run_dir={run}", "methods=random", *SMALL)
    assert uic("pretrain", "--config-name", "digits/any", *given).returncode == 0
    options = ("--images", "500,2000", "--classes", "20", "--out", tmp_path / "costs.csv")
    done = uic("costs", run, *options)
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "costs.csv")
    assert [(row["method"], row["images"]) for row in rows[:5]] == [
        ("uic", "500"), ("deepcluster", "500"), ("selflabel", "500"), ("deepclusterv2", "500"),
        ("uic", "2000"),
    ]  # fmt: skip
    assert all(float(row["label_seconds"]) > 0 for row in rows)
    assert [float(row["pass_seconds"]) > 0 for row in rows[:4]] == [False, True, True, False]
    wrong = uic("costs", run, "--images", "10", "--classes", "20")
    assert "error: --images must be at least --classes" in wrong.stderr


@pytest.mark.slow
def test_few_annotated_classes_have_no_linear_figure(uic, tmp_path, digits):
    data = tmp_path / "three"
    for part in ("train", "val"):
        for digit in "012":
            (data / part).mkdir(parents=True, exist_ok=True)
            (data / part / digit).symlink_to(digits / part / digit)
    options = ("--data", data, "--methods", "random", "--network", "conv4", "--clusters", "6")
    small = ("augmentations.0.crop_size=16", "backbone.kwargs.width=4", "data.num_workers=0")
    done = uic("compare", *options, "--budget", "epochs=1", "--out", "out", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows_of(tmp_path / "out" / "runs.csv")
    assert row["linear"] == ""
    assert float(row["knn"]) > 40


def test_reason_is_that_of_the_last_call(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("$ uic a\nerror: old\n$ uic a\nepoch 1\nerror: ended by SIGKILL\n")
    assert reason_of(log) == "error: ended by SIGKILL"
    log.write_text("$ uic a\nerror: old\n$ uic a\n")
    assert reason_of(log) == "no output"


@pytest.mark.slow
def test_measure_prints_what_it_found(uic, tmp_path, digits):
    run = tmp_path / "run"
    given = ("max_epochs=1", f"run_dir={run}", "methods=rotnet", "snapshots=1", *SMALL)
    assert uic("pretrain", "--config-name", "digits/any", *given).returncode == 0
    done = uic("measure", run, "--clusters", "15", "--set", "linear.max_epochs=1")
    assert done.returncode == 0, done.stderr
    measures = json.loads((run / "measures.json").read_text())
    assert f"k-NN {measures['knn']:.2f} %" in done.stdout
    assert measures["views_per_image"] == 4
    assert measures["curve"][0]["knn"] == measures["knn"]


def test_summary_over_seeds():
    rows = [
        {"label": "a", "method": "uic", "seed": seed, "failed": "", "knn": knn, "nmi": None}
        for seed, knn in ((0, 40.0), (1, 44.0))
    ]
    rows.append({"label": "a", "method": "uic", "seed": 2, "failed": "out of memory"})
    (line,) = summarize(rows)
    assert (line["knn"], line["seeds"], line["failed"]) == (42.0, "0 1", "out of memory")
    assert cell(line, "knn") == "42.0 ± 2.8"
    assert cell(line, "nmi") == "-"
    probed = {
        "label": "b",
        "method": "uic",
        "seed": 0,
        "failed": "",
        "knn": 1.0,
        "probe_conv1": 9.0,
    }
    lost = {"label": "a", "method": "uic", "seed": 0, "failed": "out of memory"}
    assert columns_of(summarize([lost, probed])) == ["knn", "probe_conv1"]


def test_quoted_figures_are_those_of_the_papers_tables(uic):
    done = uic("compare", "--quoted")
    assert done.returncode == 0
    for name in ("Inpainting", "Local Aggregation", "DeeperCluster", "CPC v2", "RotNet+retrieval"):
        assert name in done.stdout
    tables = {table.title.split(",")[0]: table for table in quoted_tables()}
    assert list(tables) == ["Table 4", "Table 5", "Table 6", "Table 7", "Table 8",
                            "Not in the paper's tables"]  # fmt: skip
    for number in ("7", "8"):  # `uic paper` quotes them, too
        ours = TABLES[f"table{number}"]
        found = tables[f"Table {number}"]
        assert found.row_count == len(ours.rows)
        for column in ours.columns:
            name = {"Top-1": "top-1"}.get(column, column)
            (cells,) = [list(c.cells) for c in found.columns if c.header == name]
            wanted = [row.quoted.get(column) for row in ours.rows]
            assert [float(c) if c != "-" else None for c in cells] == [
                pytest.approx(w) if w is not None else None for w in wanted
            ]
