"""Frozen layers and groups of parameters by depth, on small networks with known answers."""

import pytest
import torch
from torch import nn

from uic_plugin.networks import BACKBONES, find_backbone
from uic_plugin.networks.freezing import freeze_layers, layer_groups


class Layered(nn.Module):
    """Two named layers and a part behind them."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.stem = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
        self.end = nn.BatchNorm2d(2)
        self.layers = {"conv1": "stem.2", "conv2": "body.2"}

    def forward(self, images):
        return self.end(self.body(self.stem(images + self.token))).mean((2, 3))


def learning(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("freeze", "left"),
    [
        ("none", {"token", "stem", "body", "end"}),
        (0, {"token", "stem", "body", "end"}),
        (1, {"body", "end"}),
        (2, {"end"}),
        ("all", set()),
    ],
)
def test_what_still_learns(freeze, left):
    network = Layered().train()
    frozen = freeze_layers(network, freeze)
    assert {name.split(".")[0] for name in learning(network)} == left
    modes = {
        name: m.training for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)
    }
    assert modes == {
        "stem.1": "stem" in left,
        "body.1": "body" in left,
        "end": "end" in left,
    }
    assert all(not module.training for module in frozen)


def test_frozen_statistics_stay_and_the_others_move():
    network = Layered().train()
    freeze_layers(network, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert {name.split(".")[0] for name in moved} == {"body", "end"}


def test_too_many_layers_are_named():
    with pytest.raises(ValueError, match=r"freeze=3: this Layered has 2 layers \(conv1, conv2\)"):
        freeze_layers(Layered(), 3)
    for wrong in (-1, 1.5, "some", None, True):
        with pytest.raises(ValueError, match="freeze must be none, all or the number"):
            freeze_layers(Layered(), wrong)


SMALL = {"alexnet": {"image_size": 32, "fc_width": 0}, "vgg16": {"image_size": 32, "fc_width": 0}}


@pytest.mark.parametrize("name", [*BACKBONES, "timm/resnet18", "timm/vit_tiny_patch16_224"])
def test_each_layer_more_leaves_less_to_learn(name):
    """And the order is that of the forward pass: what learns is behind what is frozen."""
    network = find_backbone(name)(**SMALL.get(name, {}))
    everything = len(learning(network))
    left = []
    for count in range(1, 4):
        freeze_layers(network, count)
        left.append(len(learning(network)))
    assert everything > left[0] > left[1] > left[2] > 0
    if "vit" in name:
        assert "blocks.2.norm1.weight" not in learning(network)
        assert "blocks.3.norm1.weight" in learning(network)
        assert "pos_embed" not in learning(network)


def scales(network, decay):
    """Return the factor of every parameter by its name; each parameter is in one group."""
    groups = layer_groups(network, decay)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == sum(len(group["params"]) for group in groups)
    return {n: scale[id(p)] for n, p in network.named_parameters() if p.requires_grad}


def test_groups_by_depth():
    given = scales(Layered(), 0.5)
    assert given == {
        "token": 0.25,
        "stem.0.weight": 0.25,
        "stem.0.bias": 0.25,
        "stem.1.weight": 0.25,
        "stem.1.bias": 0.25,
        "body.0.weight": 0.5,
        "body.0.bias": 0.5,
        "body.1.weight": 0.5,
        "body.1.bias": 0.5,
        "end.weight": 1,
        "end.bias": 1,
    }


def test_groups_of_timm():
    network = find_backbone("timm/vit_tiny_patch16_224")(depth=2)
    given = scales(network, 0.5)
    assert given["blocks.1.norm1.weight"] == given["norm.weight"] == 1
    assert given["blocks.0.attn.qkv.weight"] == 0.5
    assert given["pos_embed"] == given["patch_embed.proj.weight"] == 0.25
    freeze_layers(network, 1)
    assert set(scales(network, 0.5)) == learning(network)


@pytest.mark.parametrize("name", BACKBONES)
def test_groups_of_our_own_networks(name):
    network = find_backbone(name)(**SMALL.get(name, {}))
    given = list(scales(network, 0.9).values())
    assert given == sorted(given)
    assert len(set(given)) > 3
    assert 0 < given[0] < given[-1] <= 1
