"""The VOC tasks on photographs: they learn, and a pretrained network learns more than a random one.

Needs `VOCdevkit` (a few hundred photographs in VOC's layout do) in the folder that UIC_DATASETS
names, and pretrained runs as `uic paper table6 --scale small` makes them in the folder that
UIC_RUNS names; without these it trains for a few epochs on the images in `miniimagenet`.
"""

import os
import shutil
from pathlib import Path

import pytest

from uic_plugin.data.voc_folder import VocMasks, VocObjects, find_voc
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.training import pretrain

DATASETS = Path(os.environ.get("UIC_DATASETS", "datasets")).absolute()
RUNS = Path(os.environ.get("UIC_RUNS", "runs/paper/small")).absolute()
IMAGES = DATASETS / "miniimagenet"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not (DATASETS / "VOCdevkit").is_dir(), reason=f"{DATASETS / 'VOCdevkit'} is missing"
    ),
]
EPOCHS = {"alexnet": 6, "resnet18": 3}
# Equal steps for both networks; on ten images, enough to know them by heart.
STEPS = {
    ("alexnet", "voc-classify"): "--iterations 100 --batch-size 10 --lr 0.02 --keep-fc",
    ("resnet18", "voc-classify"): "--iterations 100 --batch-size 10 --lr 0.02",
    ("alexnet", "voc-detect"): "--iterations 300 --lr 0.01 --lr-step 200 --min-size 240 "
    "--max-size 360",
    ("resnet18", "voc-detect"): "--detector faster-rcnn --neck fpn --iterations 250 --lr 0.02 "
    "--lr-step 150 --min-size 160 --max-size 240 --regions 64 --test-regions 200 --precision bf16",
    ("alexnet", "voc-segment"): "--head 8s --iterations 1200 --lr 0.02",
    ("resnet18", "voc-segment"): "--output-stride 8 --iterations 1000 --lr 0.01",
}
SHARED = {
    "voc-classify": "--policy poly --min-scale 0.5 --max-scale 1",
    "voc-detect": "",
    "voc-segment": "--split trainval --test test --size 180 --crop 0 --batch-size 1 "
    "--min-scale 1 --max-scale 1 --precision bf16",
}
LEAST = {"voc-classify": 90, "voc-detect": 90, "voc-segment": 80}


@pytest.fixture(scope="module", params=list(EPOCHS))
def network(request, tmp_path_factory):
    """Name and run folder of a pretrained network."""
    name = request.param
    made = RUNS / f"{name}_uic-seed0"
    if made.is_dir():
        folder = tmp_path_factory.mktemp(name) / "run"
        folder.mkdir()
        for file in ("config.yaml", "last.ckpt"):
            shutil.copy(made / file, folder)
        return name, folder
    if not IMAGES.is_dir():
        pytest.skip(f"neither {made} nor {IMAGES} is there")
    from uic_plugin.data.held_out import index_of_split

    folder = tmp_path_factory.mktemp(name)
    index_of_split(IMAGES / "train.csv", folder / "train.index")
    overrides = [
        f"run_dir={folder / 'run'}",
        f"data.train_path={IMAGES / 'images'}",
        f"data.index={folder / 'train.index'}",
        f"max_epochs={EPOCHS[name]}",
        "precision=bf16-mixed",
        "data.num_workers=0",
        "accelerator=cpu",
    ]
    cfg = compose_recipe(f"miniimagenet/{name}_uic", overrides)
    pretrain(cfg, reporter=EpochReporter("test"))
    return name, folder / "run"


@pytest.fixture(scope="module")
def ten_images(tmp_path_factory):
    """The first ten with masks that show one or two objects of at least 64 pixels."""
    folder = find_voc(DATASETS, "trainval")
    images = VocObjects(folder, "trainval")
    masked = set(VocMasks(find_voc(DATASETS, "trainval", "Segmentation"), "trainval").names)
    chosen = [
        name
        for name, objects in zip(images.names, images.objects, strict=True)
        if name in masked
        and 1 <= len(objects.labels) <= 2
        and (objects.boxes[:, 2:] - objects.boxes[:, :2]).min() >= 64
    ][:10]
    root = tmp_path_factory.mktemp("ten")
    own = root / "VOCdevkit" / folder.name
    for kind, ending in (
        ("JPEGImages", "jpg"),
        ("Annotations", "xml"),
        ("SegmentationClass", "png"),
    ):
        (own / kind).mkdir(parents=True)
        for name in chosen:
            shutil.copy(folder / kind / f"{name}.{ending}", own / kind)
    for kind in ("Main", "Segmentation"):
        (own / "ImageSets" / kind).mkdir(parents=True)
        for split in ("trainval", "test"):
            (own / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(chosen))
    return root


@pytest.mark.parametrize("task", LEAST)
def test_ten_images_are_learned_by_heart(uic, network, ten_images, tmp_path, task):
    name, run = network
    if (name, task) == ("alexnet", "voc-detect"):
        pytest.importorskip("cv2.ximgproc")
    options = f"{STEPS[name, task]} {SHARED[task]}".split()
    short = int(options[options.index("--iterations") + 1]) // 2
    reached, losses = {}, {}
    for weights, steps in (("pretrained", 0), ("pretrained", short), ("untrained", short)):
        given = [task, run, ten_images, *options, "--out", f"{weights}{steps}"]
        given += ["--set", "data.num_workers=0", "--set", "accelerator=cpu"]
        if steps:
            given += ["--iterations", steps, "--lr-step", 2 * steps // 3]
        done = uic(*given, *(["--untrained"] if weights == "untrained" else []))
        assert done.returncode == 0, done.stderr
        out = tmp_path / f"{weights}{steps}"
        column = "IoU" if task == "voc-segment" else "AP_area"
        reached[out.name] = float(read_csv(out / "results.csv")[-1][column])
        losses[out.name] = [float(row["loss"]) for row in read_csv(out / "curve.csv")]
    print(f"{name} {task}: {reached}", flush=True)
    curve = losses["pretrained0"]
    tenth = len(curve) // 10
    assert sum(curve[-tenth:]) < sum(curve[:tenth]) / 2
    assert reached["pretrained0"] >= LEAST[task]
    both = [reached[f"{weights}{short}"] for weights in ("pretrained", "untrained")]
    if min(both) >= 99.5:  # both know them by heart already: who was faster?
        both = [-sum(losses[f"{weights}{short}"]) for weights in ("pretrained", "untrained")]
    assert both[0] > both[1]
