"""Speed of `uic embed` beside the bare network, and of a discovery.

python -m pytest -m benchmark --benchmark-enable -s tests/benchmarks/test_discover.py
"""

import numpy as np
import pytest
import torch
from PIL import Image

from uic_plugin.data.folders import list_images
from uic_plugin.discovery.search import discover
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.features.embedding import FrozenNetwork, embed_images
from uic_plugin.networks.pretrained import load_pretrained

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1200)]
_IMAGES, _BATCH = 256, 32


@pytest.fixture(scope="module")
def photographs(digits, tmp_path_factory):
    """Digits enlarged to JPEGs of 160 pixels."""
    root = tmp_path_factory.mktemp("photographs")
    for number, path in enumerate(sorted(digits.glob("train/*/*.png"))[:_IMAGES]):
        with Image.open(path) as image:
            image.convert("RGB").resize((160, 160)).save(root / f"{number}.jpg")
    return root


def test_forward_pass_alone(benchmark):
    network = FrozenNetwork(load_pretrained(), "32")
    views = torch.randn(_BATCH, 3, 224, 224)
    benchmark.extra_info["images"] = _BATCH
    benchmark.pedantic(network, (views,), rounds=8, warmup_rounds=1)


def test_embedding_of_files(benchmark, photographs, tmp_path):
    images, backbone, rounds = list_images(photographs), load_pretrained(), iter(range(100))
    benchmark.extra_info["images"] = _IMAGES

    def run():
        embed_images(backbone, images, tmp_path / str(next(rounds)), precision="32")

    benchmark.pedantic(run, rounds=2, warmup_rounds=1)


def test_discovery_of_twenty_thousand(benchmark):
    features = np.random.default_rng(0).standard_normal((20_000, 384)).astype(np.float16)
    benchmark.pedantic(discover, (features, 30, DiscoverySettings()), rounds=1)
