"""Pretrained networks: the default's weights, timm's without a hub, files that do not fit."""

import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from uic_plugin.networks.pretrained import (
    lite0_file,
    load_pretrained,
    weights_at_hand,
)
from uic_plugin.networks.registry import find_backbone
from uic_plugin.networks.weights import read_state, save_weights


def test_default_has_the_weights_of_its_package():
    backbone = load_pretrained()
    given = [v for k, v in read_state(lite0_file()).items() if "num_batches" not in k]
    own = [v for k, v in backbone.network.state_dict().items() if "num_batches" not in k]
    assert len(own) == len(given) - 2  # without the classifier
    assert all(torch.equal(a, b) for a, b in zip(own, given, strict=False))
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not backbone.network.training


def test_preprocessing_is_the_networks_own():
    """224 pixels of a center crop, mean and deviation 0.5, as timm has it for this network."""
    view = load_pretrained().transform(Image.new("RGB", (300, 200), (255, 255, 255)))
    assert view.shape == (3, 224, 224)
    assert view.min() == 1


def test_size_of_the_crop():
    backbone = load_pretrained(size=160)
    assert backbone.transform(Image.new("RGB", (64, 99))).shape == (3, 160, 160)
    assert backbone.preprocessing != load_pretrained().preprocessing
    with pytest.raises(ValueError, match="--size"):
        load_pretrained(size=0)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", ["resnet18", "timm/vit_tiny_patch16_224"])
def test_without_a_hub_one_line_says_what_is_missing(no_hub, name):
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as caught:
        load_pretrained(name)
    assert time.perf_counter() - start < 30
    line = str(caught.value)
    assert "\n" not in line
    assert "model.safetensors" in line
    assert f"timm/{name.removeprefix('timm/')}" in line
    assert "--weights FILE" in line


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match="did you mean"):
        load_pretrained("resnet1x")
    with pytest.raises(FileNotFoundError, match="--weights"):
        load_pretrained("alexnet")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_pretrained("resnet18", weights=lite0_file().with_name("none.pth"))


def test_weights_from_a_file_under_timms_names(tmp_path):
    torch.manual_seed(0)
    network = find_backbone("timm/resnet18")()
    save_weights(network, tmp_path / "resnet18.safetensors", layout="timm")
    backbone = load_pretrained("resnet18", weights=tmp_path / "resnet18.safetensors")
    state = backbone.network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert backbone.weights == str(tmp_path / "resnet18.safetensors")


def test_a_file_with_a_classifier_fits(tmp_path):
    import timm

    torch.manual_seed(0)
    network = timm.create_model("resnet18")
    torch.save(network.state_dict(), tmp_path / "full.pth")
    backbone = load_pretrained("resnet18", weights=tmp_path / "full.pth")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval().forward_head(network.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.network(images), expected)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    save_weights(find_backbone("timm/resnet18")(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match="does not hold the weights of resnet34"):
        load_pretrained("resnet34", weights=tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match="does not hold the weights of"):
        load_pretrained("lite0", weights=tmp_path / "resnet18.pth")
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(ValueError, match="holds no weights"):
        load_pretrained("resnet18", weights=tmp_path / "text.pth")


def test_weights_at_hand(no_hub):
    assert weights_at_hand()[0] == "lite0"


@pytest.mark.slow
def test_core_imports_no_host():
    """The store, the networks and the discovery work where no host is installed."""
    script = (
        "import sys; import uic_plugin.discovery.search, uic_plugin.features.embedding, "
        "uic_plugin.discovery.results; "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('solo', 'lightning', 'pytorch_lightning')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
