"""Layer outputs by name, for networks of ours, torchvision and timm."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from uic_plugin.networks import AlexNet, Conv4
from uic_plugin.networks.layers import Encoder, layer_modules, layer_outputs, layer_shapes
from uic_plugin.networks.registry import find_backbone


def test_outputs_are_what_the_layers_put_out():
    network = AlexNet(image_size=32, width=0.1, fc_width=8).eval()
    images = torch.rand(2, 3, 32, 32)
    outputs = layer_outputs(network, images, ["conv2", "conv1", "fc7", "features"])
    assert list(outputs) == ["conv2", "conv1", "fc7", "features"]
    by_hand = network.features[:3](network.sobel(images))
    assert torch.equal(outputs["conv1"], by_hand)
    assert torch.equal(outputs["conv2"], network.features[3:7](by_hand))
    assert torch.equal(outputs["fc7"], outputs["features"])
    assert not any(m._forward_hooks for m in network.modules())


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (Conv4(4), ["conv1", "conv2", "conv3", "conv4", "features"]),
        (
            torchvision.models.resnet18(),
            ["conv1", "layer1", "layer2", "layer3", "layer4", "features"],
        ),
        (
            timm.create_model("resnet18", num_classes=0),
            ["conv1", "layer1", "layer2", "layer3", "layer4", "features"],
        ),
        (
            timm.create_model("mobilenetv3_small_050", num_classes=0),
            [*(f"layer{i}" for i in range(1, 6)), "features"],
        ),
    ],
)
@pytest.mark.parametrize("size", [64, 75])
def test_names_and_inferred_shapes(network, names, size):
    assert list(layer_modules(network)) == names
    shapes = layer_shapes(network, names, size)
    images = torch.zeros(2, 3, size, size)
    outputs = layer_outputs(network.eval(), images, names)
    assert {name: tuple(out.shape[1:]) for name, out in outputs.items()} == shapes


def test_mlp_of_the_head():
    encoder = Encoder(Conv4(4), nn.Linear(32, 5))
    assert list(layer_modules(encoder)) == ["conv1", "conv2", "conv3", "conv4", "features", "mlp"]
    outputs = layer_outputs(encoder.eval(), torch.rand(2, 3, 16, 16), ["features", "mlp"])
    assert torch.equal(outputs["mlp"], encoder.mlp(outputs["features"]))
    assert "mlp" not in layer_modules(Encoder(Conv4(4)))


def test_any_module_by_its_path():
    network = Conv4(4)
    outputs = layer_outputs(network, torch.rand(1, 3, 16, 16), ["conv2.0"])
    assert outputs["conv2.0"].shape == (1, 8, 8, 8)


def test_unknown_layer_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"'conv9'.*conv1, conv2, conv3, conv4, features"):
        layer_outputs(Conv4(4), torch.rand(1, 3, 16, 16), ["conv9"])


def test_shapes_leave_the_network_as_it_was():
    network = Conv4(4).train()
    network.conv1.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    layer_shapes(network, ["conv4"], 16)
    assert network.training
    assert not network.conv1.training
    assert network.conv2.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_unknown_network_of_timm():
    with pytest.raises(ValueError, match=r"no network of timm.*timm/resnet50"):
        find_backbone("timm/resnet500")
    assert find_backbone("resnet18") is None  # the host's


def test_channels_last_stages_are_turned_round():
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
    assert layer_shapes(network, ["layer1", "layer4"], 224) == {
        "layer1": (96, 56, 56),
        "layer4": (768, 7, 7),
    }


def test_a_module_before_an_activation_in_place():
    network = AlexNet(image_size=32, width=0.1, fc_width=8).eval()
    outputs = layer_outputs(network, torch.rand(2, 3, 32, 32), ["features.1", "conv1"])
    assert (outputs["features.1"] < 0).any()
    assert torch.equal(outputs["features.1"].relu(), outputs["conv1"])


def test_paths_within_an_encoder():
    encoder = Encoder(Conv4(4))
    assert layer_outputs(encoder, torch.rand(1, 3, 16, 16), ["conv2.0"])["conv2.0"].shape[1] == 8


def test_width_of_a_network_with_a_layer_in_its_head():
    network = find_backbone("timm/mobilenetv3_small_050")()
    shape = layer_shapes(network, ["features"], 32)["features"]
    assert shape == (network.num_features,) == (1024,)


@pytest.mark.parametrize("name", ["convnext_tiny", "poolformer_s12"])
def test_names_that_the_host_registers_too_are_timms(name):
    from uic_plugin.hosts import register

    register()  # imports solo-learn, whose main line puts networks of its own into timm's registry
    network = find_backbone(f"timm/{name}")()
    assert type(network).__module__.startswith("timm.")
    assert layer_shapes(network, ["features"], 64)["features"] == (network.num_features,)
