"""Weights go to files and come back: ours, torchvision's, timm's, DeepCluster's layout."""

import os

import pytest
import timm
import torch
import torchvision
from forked import limited
from timm.layers import resample_abs_pos_embed

from uic_plugin.networks import VGG16, AlexNet, Conv4
from uic_plugin.networks.weights import load_weights, read_state, save_weights


def equal(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def small_vgg():
    return VGG16(image_size=64, width=0.05, fc_width=6)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("layout", ["torchvision", "timm"])
@pytest.mark.parametrize(
    "build", [lambda: AlexNet(32, 0.1, 8), small_vgg, lambda: Conv4(4)], ids=["alex", "vgg", "c4"]
)
def test_round_trip(tmp_path, build, layout, ending):
    network, other = build(), build()
    save_weights(network, tmp_path / f"net.{ending}", layout=layout)
    report = load_weights(other, tmp_path / f"net.{ending}")
    assert equal(network, other)
    assert not report.missing
    assert not report.unused
    assert [file.name for file in tmp_path.iterdir()] == [f"net.{ending}"]


@pytest.mark.parametrize(
    "theirs", [torchvision.models.resnet18, lambda: timm.create_model("resnet18")]
)
def test_resnet_of_torchvision_and_timm(tmp_path, theirs):
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    original = theirs()
    torch.save({"state_dict": original.state_dict()}, tmp_path / "theirs.pth")
    report = load_weights(network, tmp_path / "theirs.pth")
    assert report.unused == ["fc.weight", "fc.bias"]
    save_weights(network, tmp_path / "ours.pth")
    back = theirs()
    missing = back.load_state_dict(torch.load(tmp_path / "ours.pth"), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"]
    assert not missing.unexpected_keys


def test_checkpoint_for_the_hosts_scripts(tmp_path):
    network, other = Conv4(4), Conv4(4)
    save_weights(network, tmp_path / "net.ckpt", layout="solo-learn")
    content = torch.load(tmp_path / "net.ckpt", weights_only=True)
    assert {name.partition(".")[0] for name in content["state_dict"]} == {"backbone"}
    assert not load_weights(other, tmp_path / "net.ckpt").missing
    assert equal(network, other)
    with pytest.raises(ValueError, match=r"torch's own format, say \.ckpt"):
        save_weights(network, tmp_path / "net.safetensors", layout="solo-learn")


@pytest.mark.slow
def test_vgg_in_timms_layout_has_convolutions_for_fc6_and_fc7(tmp_path):
    save_weights(small_vgg(), tmp_path / "timm.pth", layout="timm")
    state = torch.load(tmp_path / "timm.pth")
    assert state["pre_logits.fc1.weight"].shape == (6, 26, 2, 2)
    assert state["pre_logits.fc2.weight"].shape == (6, 6, 1, 1)
    names = timm.create_model("vgg16_bn", num_classes=0).state_dict().keys()
    assert state.keys() == names
    names = torchvision.models.vgg16_bn().state_dict().keys()
    assert small_vgg().state_dict().keys() == {n for n in names if "classifier.6" not in n}


def test_wrappers_are_taken_off(tmp_path):
    network, other = AlexNet(32, 0.1, 8), AlexNet(32, 0.1, 8)
    state = network.state_dict()
    deepcluster = {k.replace("features.", "features.module."): v for k, v in state.items()}
    deepcluster["top_layer.weight"] = torch.zeros(3, 8)
    torch.save({"epoch": 3, "arch": "alexnet", "state_dict": deepcluster}, tmp_path / "dc.pth")
    assert load_weights(other, tmp_path / "dc.pth").unused == ["top_layer.weight"]
    assert equal(network, other)
    for prefix in ("backbone.", "encoder.", "module.encoder_q."):
        other = AlexNet(32, 0.1, 8)
        wrapped = {prefix + k: v for k, v in state.items()}
        torch.save({"state_dict": {**wrapped, "head.weight": torch.zeros(1)}}, tmp_path / "w.pth")
        load_weights(other, tmp_path / "w.pth")
        assert equal(network, other)


def test_nothing_that_fits_is_an_error(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"no weight in .* fits this Conv4.*conv1\.0\.weight"):
        load_weights(Conv4(4), tmp_path / "resnet.pth")


def test_a_part_is_an_error_unless_allowed_by_name(tmp_path):
    network = Conv4(4)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("conv4")}
    state["conv1.0.weight"] = torch.zeros(1, 3, 3, 3)
    torch.save(state, tmp_path / "part.pth")
    other = Conv4(4)
    kept = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"6 of 20 weights are not in the file: conv1\.0\.weight \(1"
    ):
        load_weights(other, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"5 of 20 .*: conv4.*weights_allow_missing=\[conv4\.0\."):
        load_weights(other, tmp_path / "part.pth", allow_missing=["conv1.0.weight"])
    for name, value in other.state_dict().items():
        assert torch.equal(value, kept[name]), name  # nothing was loaded
    allowed = ["conv1.0.weight", "conv4.*"]
    report = load_weights(other, tmp_path / "part.pth", allow_missing=allowed)
    assert report.missing[0] == "conv1.0.weight (1, 3, 3, 3) instead of (4, 3, 3, 3)"
    assert "conv4.0.weight" in report.missing
    assert "6 of 20 weights are not in the file: conv1.0.weight (1, 3" in report.summary()
    assert torch.equal(other.conv4[0].weight, kept["conv4.0.weight"])
    assert torch.equal(other.conv2[0].weight, network.conv2[0].weight)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("vit_tiny_patch16_224", "pos_embed"),
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn.relative_position_bias_table"),
    ],
)
def test_position_embeddings_are_interpolated(tmp_path, name, key):
    small = {"depths": (1, 1)} if name.startswith("swin") else {"depth": 1}
    source = timm.create_model(name, num_classes=0, img_size=224, **small)
    with torch.no_grad():  # whatever the size, an interpolated constant is the constant
        source.get_parameter(key).fill_(3.0)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    window = {"window_size": 4} if name.startswith("swin") else {}
    target = timm.create_model(name, num_classes=0, img_size=128, **small, **window)
    assert not load_weights(target, tmp_path / "vit.pth").missing
    found, original = target.state_dict()[key], source.state_dict()[key]
    assert found.shape != original.shape
    assert torch.allclose(found, torch.full_like(found, 3.0), atol=1e-4)


def test_interpolated_as_timm_does(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1)
    target = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=128)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    load_weights(target, tmp_path / "vit.pth")
    wanted = resample_abs_pos_embed(source.pos_embed, (8, 8), num_prefix_tokens=1)
    assert torch.equal(target.pos_embed, wanted)
    assert torch.equal(target.pos_embed[:, 0], source.pos_embed[:, 0])  # of the class token


def test_files_that_hold_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    for name in ("text.pth", "text.safetensors", "empty.pth"):
        with pytest.raises(ValueError, match=f"{name} holds no weights"):
            read_state(tmp_path / name)
    with pytest.raises(
        ValueError, match="layout must be one of torchvision, timm, solo-learn, got 'jax'"
    ):
        save_weights(Conv4(4), tmp_path / "x.pth", layout="jax")


@pytest.mark.parametrize("layout", ["torchvision", "solo-learn"])
def test_a_full_disk_is_one_line_and_leaves_the_file(tmp_path, layout):
    file = tmp_path / "weights.ckpt"
    save_weights(Conv4(width=4), file, layout=layout)
    before, child = file.read_bytes(), os.fork()
    if child == 0:
        limited(10_000)
        try:
            save_weights(Conv4(), file, layout=layout)
        except OSError as error:
            os._exit(0 if "weights.ckpt cannot be written whole" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["weights.ckpt"]
