"""`uic voc-classify`, `voc-detect`, `voc-segment`: a run's network on digits in VOC's layout."""

import json

import numpy as np
import pytest
from PIL import Image
from runs.test_bad_input import one_line

from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.report.voc_pictures import voc_palette
from uic_plugin.runs.training import pretrain

CPU = ["--set", "accelerator=cpu", "--set", "data.num_workers=0"]
KWARGS = {"alexnet": {"image_size": 32, "width": 0.1, "fc_width": 32, "dropout": 0.0}}


@pytest.fixture(
    scope="module", params=["alexnet", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def network(request, digits32, tmp_path_factory):
    """Name and run folder of a network that a few digits trained."""
    return request.param, trained(request.param, digits32, tmp_path_factory)


def trained(name, digits32, tmp_path_factory):
    folder = tmp_path_factory.mktemp(name) / "run"
    overrides = [
        f"run_dir={folder}",
        f"backbone.name={name}",
        *(f"backbone.kwargs.{key}={value}" for key, value in KWARGS.get(name, {}).items()),
        "data.dataset=custom",
        f"data.train_path={digits32 / 'val'}",  # a fifth of the images is enough here
        "data.val_path=null",
        "data.num_workers=0",
        "accelerator=cpu",
        "max_epochs=1",
        "augmentations.0.crop_size=32",
    ]
    pretrain(compose_recipe("digits/uic", overrides), reporter=EpochReporter("test"))
    return folder


def options(name, given):
    """Those of both networks, and those of one."""
    detect = {
        "alexnet": ["--detector", "fast-rcnn", "--processes", "1"],
        "resnet18": ["--detector", "faster-rcnn", "--regions", "8", "--test-regions", "20"],
    }
    small = {
        "voc-classify": ["--crop", "64", "--batch-size", "5"],
        "voc-detect": ["--min-size", "64", "--max-size", "128", *detect[name]],
        "voc-segment": ["--crop", "64", "--batch-size", "2", "--split", "trainval"],
    }
    return [*small[given], "--test", "test", *CPU]


@pytest.mark.parametrize(
    "task",
    [
        "voc-classify",
        *(pytest.param(task, marks=pytest.mark.slow) for task in ("voc-detect", "voc-segment")),
    ],
)
@pytest.mark.slow
def test_a_task_from_end_to_end(uic, network, voc_digits, tmp_path, task):
    name, run = network
    if (task, name) == ("voc-detect", "alexnet"):
        pytest.importorskip("cv2.ximgproc")
    given = [task, run, voc_digits, *options(name, task), "--iterations", 4, "--out", "out"]
    done = uic(*given)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    rows = read_csv(out / "results.csv")
    assert len(rows) == (22 if task == "voc-segment" else 21)
    assert rows[-1]["class"] == "mean"
    column = "IoU" if task == "voc-segment" else "AP_area"
    assert 0 <= float(rows[-1][column]) <= 100
    assert [row["iteration"] for row in read_csv(out / "curve.csv")] == ["1", "2", "3", "4"]
    for picture in ("curve.png", "pictures.png"):
        with Image.open(out / picture) as image:
            assert image.size[0] > 100
    if task == "voc-segment":
        masks = sorted((out / "masks").glob("*.png"))
        with Image.open(masks[0]) as mask:
            assert (len(masks), mask.mode, mask.size) == (6, "P", (112, 80))
            assert mask.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    if task == "voc-detect":
        found = json.loads((out / "detections.json").read_text())
        assert len(found) == 6
        assert "AP" in read_csv(out / "coco.csv")[0]
    # again: nothing is trained, the same figures; longer: another run
    assert uic(*given).returncode == 0
    assert read_csv(out / "results.csv") == rows
    one_line(uic(*given, "--lr", "0.002"), "is of another schedule: give another --out")


@pytest.mark.slow
def test_untrained_is_another_network_with_statistics_of_the_images(uic, network, voc_digits):
    name, run = network
    task = ["voc-classify", run, voc_digits, *options(name, "voc-classify"), "--iterations", 2]
    assert uic(*task).returncode == 0
    assert uic(*task, "--untrained").returncode == 0
    folders = [run / "voc-classify-all", run / "voc-classify-all-untrained"]
    losses = [read_csv(folder / "curve.csv")[0]["loss"] for folder in folders]
    assert losses[0] != losses[1]


@pytest.fixture(scope="module")
def alexnet_run(digits32, tmp_path_factory):
    return trained("alexnet", digits32, tmp_path_factory)


@pytest.mark.slow
def test_it_learns(uic, alexnet_run, voc_digits, tmp_path):
    """Three kinds of digits, on images that it has seen: to the end, within seconds."""
    whole = ["--min-scale", "0.9", "--max-scale", "1", "--lr", "0.05", "--policy", "poly"]
    for task, given, column, least in (  # background everywhere has a mean IoU of about 22
        ("voc-classify", ["--crops", "1", "--keep-fc"], "AP_area", 80),
        ("voc-segment", ["--head", "8s"], "IoU", 45),
    ):
        done = uic(
            *[task, alexnet_run, voc_digits, *options("alexnet", task), "--test", "trainval"],
            *["--iterations", 200, *whole, *given, "--out", task],
        )
        assert done.returncode == 0, done.stderr
        curve = read_csv(tmp_path / task / "curve.csv")
        assert float(curve[-1]["loss"]) < float(curve[0]["loss"]) / 3
        assert float(read_csv(tmp_path / task / "results.csv")[-1][column]) > least


@pytest.mark.slow
def test_one_line_for_a_mistake(uic, alexnet_run, voc_digits, own_voc, tmp_path):
    (own_voc / "Annotations" / "000001.xml").unlink()
    (own_voc / "ImageSets" / "Segmentation" / "trainval.txt").write_text("")
    for given, message in (
        (["voc-classify", tmp_path / "none"], "no such folder of PASCAL VOC"),
        (["voc-classify", voc_digits, "--split", "val"], "no split 'val' in ImageSets/Main"),
        (["voc-classify", own_voc], "000001.xml is missing; 3 of 4 annotations are there"),
        (["voc-classify", voc_digits, "--train", "fc8"], "--train must be fc6-8 or all"),
        (["voc-classify", voc_digits, "--max-scale", "2"], "must be shares of an image"),
        (["voc-classify", voc_digits, "--crops", "5"], "--crops must be 1 or 10"),
        (["voc-classify", voc_digits, "--iterations", "0"], "--iterations must be at least 1"),
        (["voc-classify", voc_digits, "--batch-size", "99"], "more than the 10 training images"),
        (["voc-detect", voc_digits, "--detector", "yolo"], "must be fast-rcnn or faster-rcnn"),
        (["voc-detect", voc_digits, "--detector", "faster-rcnn"], "needs a ResNet"),
        (["voc-detect", voc_digits, "--min-size", "5"], "--min-size must be at least 32"),
        (["voc-segment", voc_digits, "--head", "4s", "--split", "trainval"], "--head must be one"),
        (["voc-segment", voc_digits, "--crop", "0"], "set --batch-size 1 (it is 8)"),
        (["voc-segment", voc_digits, "--crop", "3"], "--crop and --size must be at least 8"),
        (["voc-segment", own_voc, "--split", "trainval"], "'trainval' lists no image"),
    ):
        test = [] if given[0] == "voc-classify" else ["--test", "test"]
        done = uic(given[0], alexnet_run, *given[1:], *test, *CPU, "--out", tmp_path / "bad")
        one_line(done, message)


@pytest.mark.slow
def test_what_a_worker_finds_is_one_line_too(uic, alexnet_run, own_voc, tmp_path):
    """An image of another size than its annotation says, a mask of other values, a broken image."""
    Image.new("L", (112, 80), 77).save(own_voc / "SegmentationClass" / "000001.png")
    Image.new("RGB", (90, 80)).save(own_voc / "JPEGImages" / "000002.jpg")
    (own_voc / "JPEGImages" / "000003.jpg").write_bytes(b"no image")
    workers = ["--set", "accelerator=cpu", "--set", "data.num_workers=1", "--out", tmp_path / "bad"]
    for names, task, message in (
        ("000001", "voc-segment", "has value 77"),
        ("000002", "voc-classify", "has 90 x 80 pixels, its annotation says 112 x 80"),
        ("000003", "voc-classify", "not an image"),
    ):
        for kind in ("Main", "Segmentation"):
            (own_voc / "ImageSets" / kind / "trainval.txt").write_text(names)
        given = [task, alexnet_run, own_voc, "--split", "trainval", "--test", "test"]
        done = uic(*given, "--batch-size", "1", "--crop", "64", "--iterations", "2", *workers)
        one_line(done, message)


def test_the_palette_is_vocs():
    palette = voc_palette()
    assert palette[:6].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
    ]
    assert palette[20].tolist() == [0, 64, 128]
    assert palette[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette, axis=0)) == 256
