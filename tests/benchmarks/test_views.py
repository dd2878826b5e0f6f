"""What views cost: batches against the host, a training against the step of its network alone.

    OMP_NUM_THREADS=1 pytest -m benchmark --benchmark-enable -s tests/benchmarks/test_views.py

Everything runs on one core, without workers, and only ratios are compared: of CPU time of this
thread, measured in turns, the least of several rounds. The images are in memory, as a packed folder
gives them, so that no image is decoded.
"""

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from uic_plugin.augmentation import Pixels, RandomViews
from uic_plugin.data.listed import ListedImages
from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.hosts.lightning import pl
from uic_plugin.hosts.pipelines import pipelines_of
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs import datasets
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.runs.training import pretrain

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]
BATCH, COUNT, ROUNDS = 64, 1280, 2
LONG = 4  # times as many images, so that checkpoint and boundary weigh as in a real epoch
NO_COLOUR = ["augmentations.0.color_jitter.prob=0", "augmentations.0.grayscale.prob=0"]
# crop and flip, the recipe's colours, one view of SimCLR's pipeline at 224 pixels of photographs
VIEWS = {
    "crop and flip, 32 pixels": ("cifar10/uic_paper", NO_COLOUR, (32, 32), 8),
    "cifar10/uic_paper, 32 pixels": ("cifar10/uic_paper", [], (32, 32), 6),
    "digits/uic, 16 pixels": ("digits/uic", [], (16, 16), 8),
    "imagenet/alexnet_strong, photographs": ("imagenet/alexnet_strong", [], (256, 341), 1),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(count, height, width):
    """Smooth colours with some noise, (count, height, width, 3) uint8."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    large = [np.array(Image.fromarray(image).resize((width, height))) for image in small]
    return np.stack(large) ^ rng.integers(0, 8, (count, height, width, 3), dtype=np.uint8)


def least(*works, rounds=20):
    """The least CPU seconds of each work, in turns."""
    for work in works:
        work()
    seconds = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, seconds, strict=True):
            started = time.thread_time()
            work()
            found.append(time.thread_time() - started)
    return [min(found) for found in seconds]


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_a_batch(name):
    recipe, overrides, shape, faster = VIEWS[name]
    cfg = compose_recipe(recipe, [*overrides, "data.train_path=x", "augmentations.0.num_crops=1"])
    host = load_host().augmentation("custom", cfg.augmentations)
    images = pictures(BATCH, *shape)
    pil = [Image.fromarray(image) for image in images]
    views = RandomViews(pipelines_of(host), seed=0)
    none, places = np.zeros(BATCH, np.int64), np.arange(BATCH)
    batch, theirs = least(
        lambda: views(Pixels.of(images), none, places),
        lambda: torch.stack([host(image)[0] for image in pil]),
        rounds=20 if shape[0] < 64 else 3,
    )
    print(f"\n{name}: batch {1e3 * batch:.2f} ms, host {1e3 * theirs:.2f} ms, ", end="")
    print(f"{theirs / batch:.1f} times as fast", end="")
    assert theirs > faster * batch


class InMemory(ListedImages):
    """Images in memory, for both engines."""

    names_are_paths = False

    def __init__(self, images, transform):
        super().__init__("memory", transform, with_number=True)
        self.images, self.fingerprint = images, "0" * 16
        self.targets = np.arange(len(images)) % 10

    def load(self, number):
        return Image.fromarray(self.images[number])

    def raw(self, number):
        return self.images[number]

    def raw_batch(self, numbers):
        return self.images[numbers]

    def name(self, number):
        return str(number)


class Clock(pl.Callback):
    """CPU seconds of each epoch's steps, epoch boundaries left out and alone."""

    def __init__(self):
        self.steps, self.boundaries = [], []

    def on_train_epoch_start(self, trainer, module):
        self.started = time.thread_time()

    def on_train_epoch_end(self, trainer, module):
        boundary = getattr(module, "boundary_seconds", 0.0)
        self.boundaries.append(boundary)
        self.steps.append(time.thread_time() - self.started)


@pytest.fixture
def trained(recipe, monkeypatch, tmp_path, digits):
    """Seconds of an epoch of `uic pretrain`, and of its boundary."""
    images = {}

    def run(name, *overrides, count=COUNT, shape=(32, 32)):
        if (count, shape) not in images:
            images[count, shape] = pictures(count, *shape)

        def dataset(cfg, source):
            transform = load_host().augmentation(source.transforms, cfg.augmentations)
            return InMemory(images[count, shape], transform)

        monkeypatch.setattr(datasets, "pretrain_dataset", dataset)
        cfg = compose_recipe(
            name,
            [
                f"data.train_path={digits / 'train'}",
                f"data.val_path={digits / 'val'}",
                *(f"run_dir={tmp_path / f'run{time.monotonic_ns()}'}", "accelerator=cpu"),
                *("data.num_workers=0", f"optimizer.batch_size={BATCH}", "max_epochs=3"),
                *overrides,
            ],
        )
        clock = Clock()
        pretrain(cfg, reporter=EpochReporter("test"), callbacks=(clock,))
        return min(clock.steps[1:]), min(clock.boundaries[1:])

    return run


def seconds_of_network(digits, *overrides, count=COUNT, size=32):
    """CPU seconds of forward, backward and SGD of network and head alone, for an epoch's images."""
    paths = [f"data.train_path={digits / 'train'}", f"data.val_path={digits / 'val'}"]
    cfg, _ = prepare_config(compose_recipe("cifar10/uic_paper", [*paths, *overrides]))
    method = build_method(cfg).train()
    network, head = backbone_of(method), method.head
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    views, labels = torch.randn(BATCH, 3, size, size), torch.randint(100, (BATCH,))
    views = views.contiguous(memory_format=torch.channels_last)  # as the network's weights are
    started = time.thread_time()
    for _ in range(count // BATCH):
        loss = F.cross_entropy(head(network(views))[1], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.thread_time() - started


def test_a_training_against_its_network_alone(trained, digits):
    seconds_of_network(digits)
    found = {"network alone": [], "batch": [], "host": []}
    for _ in range(ROUNDS):
        found["network alone"].append(seconds_of_network(digits))
        for engine in ("batch", "host"):
            engine_of = f"augmentation.engine={engine}"
            seconds, _ = trained("cifar10/uic_paper", engine_of, "max_epochs=2", count=LONG * COUNT)
            found[engine].append(seconds / LONG)
    alone, batch, host = (min(values) for values in found.values())
    print(f"\nimages a second: network alone {COUNT / alone:.0f}, ", end="")
    print(f"uic pretrain {COUNT / batch:.0f} ({alone / batch:.2f}), ", end="")
    print(f"engine=host {COUNT / host:.0f} ({alone / host:.2f})", end="")
    assert batch < host


def test_a_training_on_photographs_against_its_network_alone(trained, digits):
    """ResNet-18 at 64 pixels, the paper's strong augmentation, photographs of a packed folder."""
    network = ["backbone.name=resnet18", "backbone.kwargs={}", "data.dataset=custom"]
    strong = [
        "augmentations.0.crop_size=64",
        "augmentations.0.color_jitter={prob:0.8,brightness:0.8,contrast:0.8,saturation:0.8,hue:0.2}",
        "augmentations.0.grayscale.prob=0.2",
        "augmentations.0.gaussian_blur.prob=0.5",
    ]
    count = 5 * BATCH
    seconds_of_network(digits, *network, count=count, size=64)
    alone, batch = [], []
    for _ in range(ROUNDS):
        alone.append(seconds_of_network(digits, *network, count=count, size=64))
        overrides = [*network, *strong, "augmentation.engine=batch"]
        batch.append(trained("cifar10/uic_paper", *overrides, count=count, shape=(160, 213))[0])
    ratio = min(alone) / min(batch)
    print(
        f"\nResNet-18, 64 pixels: network alone {count / min(alone):.0f} images a second, ", end=""
    )
    print(f"uic pretrain {count / min(batch):.0f} ({ratio:.2f})", end="")
    assert ratio > 0.8


def test_simclr_by_batches_and_by_the_host(trained):
    found = {"batch": [], "host": []}
    for _ in range(ROUNDS):
        for engine in found:
            found[engine].append(trained("cifar10/simclr", f"augmentation.engine={engine}")[0])
    batch, host = (min(values) for values in found.values())
    print(f"\nSimCLR: {host / batch:.2f} times the images a second of engine=host", end="")
    assert host > 1.5 * batch


def test_a_label_pass_against_a_training_epoch(trained):
    centered = ["method_kwargs.label_view=center", "augmentation.engine=batch"]
    found = [trained("cifar10/uic_paper", *centered) for _ in range(ROUNDS)]
    epoch = min(seconds - boundary for seconds, boundary in found)
    boundary = min(boundary for _, boundary in found)
    print(f"\nlabels of centered views: {boundary / epoch:.2f} of a training epoch", end="")
    assert boundary < epoch / 3
