"""One epoch boundary, fix + order, against plain lists per class.

    make bench

The plain implementation is what one would write first: a list of images per class, `random.sample`
or `random.choices` from each, one shuffle; an empty class takes half of the longest list. Its
second form draws with numpy, as the released code of DeepCluster and UIC does.
"""

import random
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank

pytestmark = pytest.mark.benchmark
IMAGENET = 1_281_167


def labels_in_use(num_images, num_classes, used):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, used, num_images)
    if used == num_classes:
        labels[:num_classes] = np.arange(num_classes)
    return labels.astype(np.int16)


def plain_boundary(labels, num_classes, draw):
    lists = [[] for _ in range(num_classes)]
    for image, label in enumerate(labels.tolist()):
        lists[label].append(image)
    for label in range(num_classes):
        if not lists[label]:
            largest = max(range(num_classes), key=lambda c: len(lists[c]))
            random.shuffle(lists[largest])
            half = len(lists[largest]) // 2
            lists[label], lists[largest] = lists[largest][:half], lists[largest][half:]
    return draw(lists, len(labels) // num_classes + 1)[: len(labels)]


def draw_with_random(lists, quota):
    order = []
    for images in lists:
        if len(images) > quota:
            order.extend(random.sample(images, quota))
        else:
            order.extend(random.choices(images, k=quota))
    random.shuffle(order)
    return order


def draw_with_numpy(lists, quota):
    order = np.zeros(quota * len(lists), dtype=np.int64)
    for label, images in enumerate(lists):
        chosen = np.random.choice(images, quota, replace=len(images) <= quota)
        order[label * quota : (label + 1) * quota] = chosen
    np.random.shuffle(order)
    return order


@pytest.mark.timeout(600)
@pytest.mark.parametrize("num_classes", [3000, 10_000])
@pytest.mark.parametrize("share", ["all", "tenth", "one"])
def test_an_epoch_boundary(benchmark, num_classes, share):
    used = {"all": num_classes, "tenth": num_classes // 10, "one": 1}[share]
    labels = labels_in_use(IMAGENET, num_classes, used)
    bank = PseudoLabelBank(IMAGENET, num_classes)
    fixer = EmptyClassFixer(num_classes)
    sampler = ClassBalancedSampler(bank, seed=0)

    def prepare():
        bank.labels.copy_(torch.from_numpy(labels))

    def boundary():
        bank.fix_empty_classes(fixer)
        return sampler.order()

    plain = {}
    for name, draw in (("random", draw_with_random), ("numpy", draw_with_numpy)):
        times = []
        for _ in range(3 if used == num_classes else 1):
            started = time.perf_counter()
            plain_boundary(labels, num_classes, draw)
            times.append(time.perf_counter() - started)
        plain[name] = min(times)
    benchmark.pedantic(boundary, setup=prepare, rounds=7, warmup_rounds=1)
    ours = benchmark.stats.stats.min
    benchmark.extra_info.update({f"plain_{name}_seconds": t for name, t in plain.items()})
    ratio = {name: t / ours for name, t in plain.items()}
    print(
        f"\nK={num_classes} in use: {share}: ours {ours * 1e3:.1f} ms, "
        f"lists {plain['random']:.3f} s ({ratio['random']:.0f}x), "
        f"lists with numpy draws {plain['numpy']:.3f} s ({ratio['numpy']:.0f}x)"
    )
    assert ratio["random"] >= (10 if used == num_classes else 30)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("used", [10_000, 1])
def test_hundred_million_images(used):
    """Seconds and peak memory of one boundary at N = 100 million, in a process of its own."""
    program = f"""
import resource, time, torch
from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank
bank = PseudoLabelBank(100_000_000, 10_000)
bank.labels.remainder_({used})
started = time.perf_counter()
bank.fix_empty_classes(EmptyClassFixer(10_000))
order = ClassBalancedSampler(bank, seed=0).order()
print(time.perf_counter() - started, len(order))
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    seconds, count = done.stdout.split()
    peak = max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1e6
    print(f"\nN=100M K=10000, {used} classes in use: {float(seconds):.1f} s, peak {peak:.2f} GB")
    assert int(count) == 100_000_000
    assert float(seconds) < 60
    assert peak < 4
