"""What only a GPU can show: images that keep up with it, and killed runs that resume to the bit.

    make bench-gpu                                             # one GPU; some ten minutes
    UIC_PHOTOS=FOLDER make bench-gpu                           # photographs in class folders
    UIC_DEVICE=cpu pytest -m benchmark --benchmark-enable -s tests/benchmarks/test_gpu.py

The last line runs the same programs at a small scale without a GPU, to see that they work; its
ratios say nothing. Everything runs by the command that a user types.
"""

import csv
import os
import random
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F

from uic_plugin.hosts import backbone_of
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.runs.settings import build_method, prepare_config

DEVICE = os.environ.get("UIC_DEVICE", "gpu")
IS_GPU = DEVICE == "gpu"
pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(IS_GPU and not torch.cuda.is_available(), reason="there is no GPU"),
]
IMAGES, BATCH, SIZE, EPOCHS = (12_800, 256, 224, 3) if IS_GPU else (24, 8, 64, 2)
WORKERS = min(16, len(os.sched_getaffinity(0))) if IS_GPU else 0
# the recipe of the paper's ResNet-50, on one device
RECIPE = "imagenet/resnet50"
SHARED = [
    *("data.dataset=custom", "data.val_path=null", "method_kwargs.num_pseudo_classes=10"),
    *("sync_batchnorm=false", "precision=bf16-mixed", f"accelerator={DEVICE}", "devices=1"),
    *(f"optimizer.batch_size={BATCH}", f"augmentations.0.crop_size={SIZE}"),
]
GOALS = {"packed": 0.95, "jpeg": 0.80}
DIGITS = ["backbone.kwargs.width=4", "method_kwargs.head_width=16", "+deterministic=true"]


def uic(*words, wait=True):
    """Run `uic`, or start it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uic_plugin.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if not wait:
        return process
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def photos(photos_of):
    """A folder of photographs of the size of ImageNet's."""
    return photos_of(IMAGES, 500, 375)


def network_alone(folder):
    """Images a second of forward, backward and SGD of network and head, on random views."""
    device = torch.device("cuda" if IS_GPU else "cpu")
    cfg, _ = prepare_config(compose_recipe(RECIPE, [*SHARED, f"data.train_path={folder}"]))
    method = build_method(cfg).train().to(device)
    network, head = backbone_of(method), method.head
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    views = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    views = views.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,), device=device)
    rates = []
    for _ in range(3):
        started, steps = time.perf_counter(), max(1, IMAGES // BATCH // 2)
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16):
                answers = head(network(views))
            loss = F.cross_entropy(answers[1].float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if IS_GPU:
            torch.cuda.synchronize()
        rates.append(steps * BATCH / (time.perf_counter() - started))
    return max(rates)


@pytest.mark.parametrize("kind", GOALS)
def test_images_keep_up_with_resnet50(photos, tmp_path, kind):
    form = []
    folder = photos
    if kind == "packed":
        folder, form = tmp_path / "packed", ["data.format=packed"]
        uic("data", "pack", photos, folder, "--size", 256 if IS_GPU else 72)
    alone = network_alone(photos)
    uic(
        *("pretrain", "--config-name", RECIPE, *SHARED, f"data.train_path={folder}", *form),
        *(f"run_dir={tmp_path / 'run'}", f"max_epochs={EPOCHS}", "augmentation.engine=batch"),
        *(f"data.num_workers={WORKERS}", "--no-page"),
    )
    with open(tmp_path / "run" / "epochs.csv", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    images = sum(1 for path in photos.rglob("*") if path.is_file()) // BATCH * BATCH
    rate = images / min(seconds[1:])
    print(f"\n{kind}: {rate:.0f} images a second, network alone {alone:.0f} ({rate / alone:.2f})")
    if IS_GPU:
        assert rate > GOALS[kind] * alone


def digits_run(folder, *overrides, wait=True):
    return uic(
        *("pretrain", "--config-name", "digits/uic", f"run_dir={folder}", "max_epochs=3"),
        *(f"accelerator={DEVICE}", *DIGITS, *overrides),
        wait=wait,
    )


def outcome(folder):
    """Labels and weights of a run."""
    checkpoint = read_checkpoint(folder / "last.ckpt")
    return {**_tensors(checkpoint["uic"]), **checkpoint["state_dict"]}


def _tensors(state, prefix=""):
    found = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found |= _tensors(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            found[f"{prefix}{key}"] = value
    return found


def assert_same(folder, other):
    one, two = outcome(folder), outcome(other)
    assert one.keys() == two.keys()
    different = [key for key in one if not torch.equal(one[key].cpu(), two[key].cpu())]
    assert different == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    digits_run(folder)
    return folder


@pytest.mark.parametrize(
    "overrides", [["strategy=ddp"], ["method_kwargs.bank_storage=device"]], ids=["ddp", "device"]
)
def test_one_process_of_nccl_and_labels_on_the_device(whole, tmp_path, overrides):
    digits_run(tmp_path / "run", *overrides)
    assert_same(whole, tmp_path / "run")


def test_twenty_kills_at_random_moments(whole, tmp_path):
    draw, kills, run = random.Random(0), 0, tmp_path / "run"
    started = time.monotonic()
    digits_run(tmp_path / "other")
    seconds = time.monotonic() - started
    while True:
        process = digits_run(run, "checkpoint_steps=1", wait=False)
        try:
            said = process.communicate(timeout=None if kills >= 20 else draw.uniform(0, seconds))[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, said
        if kills >= 20:
            break
        for path in run.glob("*"):  # it ended before it was killed: once more from the start
            if path.is_file():
                path.unlink()
    assert_same(whole, run)
