"""`uic transfer`: every task by one command, once; a failure stops no other."""

import json

import pytest
from runs.test_bad_input import one_line
from runs.test_voc import trained

from uic_plugin.experiments.transfer.tasks import TransferPlan, fewshot_layer
from uic_plugin.report.tables import read_csv

FAST = [
    *("--option", "voc-classify.iterations=3", "--option", "voc-classify.crop=64"),
    *("--option", "voc-classify.batch_size=4"),
    *("--option", "voc-segment.iterations=3"),
    *("--option", "fewshot.episodes=20", "--option", "fewshot.resolution=32"),
    *("--option", "fewshot.queries=5"),
]


@pytest.fixture(scope="module")
def run(digits32, tmp_path_factory):
    return trained("alexnet", digits32, tmp_path_factory)


@pytest.mark.slow
def test_all_tasks_once_with_one_table_and_one_page(uic, run, voc_digits, digits32, tmp_path):
    given = ["transfer", run, "--voc", voc_digits, "--fewshot-data", digits32 / "val"]
    given += ["--scale", "small", "--tasks", "fewshot,voc-classify,voc-segment", *FAST]
    done = uic(*given, "--out", "out")
    assert done.returncode == 0, done.stderr + done.stdout
    rows = read_csv(tmp_path / "out" / "transfer.csv")
    figures = {(row["task"], row["figure"]) for row in rows}
    assert ("fewshot-84", "conv5+mp accuracy") in figures
    assert ("voc-classify-fc6-8", "mAP (11-point)") in figures
    assert ("voc-classify-all", "mAP (area)") in figures
    assert ("voc-segment", "mean IoU") in figures
    assert all(row["command"].startswith("uic ") and row["date"] for row in rows)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 3 * 2
    assert "no figure here is a result on PASCAL VOC" in page
    assert "no figure here is a result on PASCAL VOC" in done.stdout
    # what is done is not done again; what is missing is
    record = tmp_path / "out" / "voc-segment" / "voc-segment.done.json"
    record.unlink()
    again = uic(*given, "--out", "out")
    assert again.returncode == 0
    assert "4 commands, 3 of them done already" in again.stdout
    assert {(r["task"], r["percent"]) for r in read_csv(tmp_path / "out" / "transfer.csv")} == {
        (r["task"], r["percent"]) for r in rows
    }
    assert json.loads(record.read_text())["hardware"]


@pytest.mark.slow
def test_a_task_that_fails_shows_why_and_stops_no_other(uic, run, own_voc, digits32, tmp_path):
    (own_voc / "SegmentationClass" / "000001.png").unlink()
    given = ["transfer", run, "--voc", own_voc, "--scale", "small", *FAST]
    done = uic(*given, "--tasks", "voc-segment,voc-classify", "--out", "out")
    assert done.returncode == 1
    rows = {row["task"]: row for row in read_csv(tmp_path / "out" / "transfer.csv")}
    assert "3 of 4 masks are there" in rows["voc-segment"]["failed"]
    assert not rows["voc-classify-all"]["failed"]
    assert "3 of 4 masks are there" in (tmp_path / "out" / "index.html").read_text()


def test_one_line_for_a_mistake(uic, run, voc_digits, tmp_path):
    for given, message in (
        (["--tasks", "voc-depth"], "unknown task 'voc-depth': one of fewshot, voc-classify"),
        (["--scale", "tiny"], "--scale must be small or full"),
        (["--option", "fewshot=3"], "write TASK.NAME=VALUE"),
        (["--option", "depth.lr=3"], "unknown task 'depth'"),
        (["--voc", tmp_path / "none", "--tasks", "voc-detect"], "--voc say where they are"),
        (["--jobs", "0"], "--jobs must be at least 1"),
    ):
        one_line(uic("transfer", run, *given), message)
    one_line(uic("transfer", tmp_path / "none"), "no such run folder or checkpoint")


def test_what_a_network_takes(tmp_path):
    plan = TransferPlan("full", tmp_path / "few.csv", tmp_path)
    tasks = ["fewshot", "voc-classify", "voc-detect", "voc-segment"]
    alexnet, resnet = (
        plan.jobs(tasks, tmp_path / "run", name, tmp_path / "out")
        for name in ("alexnet", "timm/resnet50")
    )
    assert [job.name.split()[0] for job in alexnet] == [
        *("fewshot-84", "fewshot-224", "voc-classify-fc6-8", "voc-classify-all"),
        *("voc-detect", "voc-segment"),
    ]
    assert "--detector=fast-rcnn" in alexnet[4].arguments
    assert "--detector=faster-rcnn" in resnet[4].arguments
    assert "--layers=layer2,layer3,layer4,layer4+mp" in resnet[0].arguments
    assert "--year=2012" in alexnet[5].arguments
    assert "--year=2007" in alexnet[4].arguments
    assert fewshot_layer("vgg16", "conv5+MP") == "conv5+mp"
    assert fewshot_layer("conv4", "conv5+MP") == "conv4+mp"
    assert fewshot_layer("conv4", "conv3") == "conv2"
    options = {"fewshot": ["--layers=conv1", "--l2-normalised=true"]}
    job = TransferPlan("small", tmp_path, tmp_path, options=options).fewshot_job(
        tmp_path, "conv4", tmp_path, 84
    )
    assert [word for word in job.arguments if "layers" in word] == ["--layers=conv1"]
    assert job.arguments[-1] == "--l2-normalised"
    chosen = TransferPlan("small", tmp_path, tmp_path, options={"voc-detect": ["--lr=0.5"]})
    job = chosen.detect_job(tmp_path, "resnet18", tmp_path)
    assert "--neck=fpn" in job.arguments
    assert job.arguments[-1] == "--lr=0.5"  # what a user says stands last, and counts


def test_dry_run_prints_commands_with_times(uic, run):
    done = uic("transfer", run, "--dry-run", "--beside-untrained")
    assert done.returncode == 0
    assert done.stdout.count("\nuic ") + 1 == 12
    assert done.stdout.count("--untrained") == 6
    assert done.stdout.count("estimated") == 12
