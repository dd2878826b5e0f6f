"""Speed of `uic embed` beside the bare network, and of a discovery.

python -m pytest -m benchmark --benchmark-enable -s tests/benchmarks/test_discover.py
"""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from uic_plugin.data.folders import list_images
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.packing import pack_images
from uic_plugin.discovery.search import discover
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.features.embedding import FrozenNetwork, embed_images
from uic_plugin.networks.pretrained import load_pretrained

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1200)]
_IMAGES, _BATCH = 256, 32


@pytest.fixture(scope="module")
def photographs(digits, tmp_path_factory):
    """Digits enlarged to JPEGs of 300 pixels."""
    root = tmp_path_factory.mktemp("photographs")
    for number, path in enumerate(sorted(digits.glob("train/*/*.png"))[:_IMAGES]):
        with Image.open(path) as image:
            image.convert("RGB").resize((300, 300)).save(root / f"{number}.jpg")
    return root


def test_forward_pass_alone(benchmark):
    network = FrozenNetwork(load_pretrained(), "32")
    views = torch.randn(_BATCH, 3, 224, 224)
    benchmark.extra_info["images"] = _BATCH
    benchmark.pedantic(network, (views,), rounds=8, warmup_rounds=1)


def seconds_of_cpu():
    """Seconds of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.mark.parametrize("source", ["files", "packed"])
def test_share_of_the_network(photographs, tmp_path, source):
    """CPU time of the bare network beside that of all of `uic embed`, measured in turn."""
    folder, backbone = photographs, load_pretrained()
    if source == "packed":
        folder = tmp_path / "packed"
        pack_images(photographs, folder, PackSettings(256, square=True, workers=0))
    network, images = FrozenNetwork(backbone, "32"), list_images(folder)
    views = torch.randn(_BATCH, 3, 224, 224)
    bare, whole = [], []
    for number in range(4):
        start = seconds_of_cpu()
        for _ in range(_IMAGES // _BATCH):
            network(views)
        bare.append(seconds_of_cpu() - start)
        start = seconds_of_cpu()
        embed_images(backbone, images, tmp_path / str(number), precision="32", batch_size=_BATCH)
        whole.append(seconds_of_cpu() - start)
    share = min(bare[1:]) / min(whole[1:])  # the first of each is a warm-up
    print(
        f"{source}: network {1e3 * min(bare[1:]) / _IMAGES:.1f} ms of CPU an image, uic embed "
        f"{1e3 * min(whole[1:]) / _IMAGES:.1f}: {share:.0%}"
    )


def test_discovery_of_twenty_thousand(benchmark):
    features = np.random.default_rng(0).standard_normal((20_000, 384)).astype(np.float16)
    benchmark.pedantic(discover, (features, 30, DiscoverySettings()), rounds=1)
