"""AlexNet, VGG16 and the Sobel filter: shapes and values by hand."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from uic_plugin.networks import VGG16, AlexNet
from uic_plugin.networks.layers import layer_shapes
from uic_plugin.networks.sobel import Sobel


def test_sobel_of_a_ramp():
    columns = torch.arange(5.0).expand(1, 3, 5, 5)  # rises by 1 from column to column
    horizontal, vertical = Sobel()(columns)[0]
    assert (horizontal[1:-1, 1:-1] == -8).all()  # weights 1, 2, 1 times a difference of 2
    assert (vertical[1:-1, 1:-1] == 0).all()
    assert torch.equal(Sobel()(columns.transpose(2, 3))[0, 1].T, horizontal)


def test_sobel_takes_the_colour_away():
    red, blue = torch.zeros(2, 1, 3, 6, 6)
    pattern = torch.rand(6, 6)
    red[0, 0], blue[0, 2] = pattern, pattern
    torch.testing.assert_close(Sobel()(red), Sobel()(blue))


def test_sobel_has_nothing_to_train_or_to_save():
    assert not list(Sobel().parameters())
    assert not Sobel().state_dict()


def test_alexnet_has_the_layers_of_the_papers():
    network = AlexNet()
    shapes = layer_shapes(network, network.layers, 224)
    assert shapes == {
        "conv1": (96, 55, 55),
        "conv2": (256, 27, 27),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "fc6": (4096,),
        "fc7": (4096,),
    }
    assert network.features[0].in_channels == 2
    assert [m.p for m in network.classifier if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert not any(isinstance(m, nn.LocalResponseNorm) for m in network.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 5
    weights = sum(p.numel() for p in network.parameters())
    convolutions = 121 * 2 * 96 + 25 * 96 * 256 + 9 * (256 * 384 + 384 * 384 + 384 * 256)
    connected = 9216 * 4096 + 4096 * 4096
    assert weights == convolutions + connected + 3 * (96 + 256 + 384 + 384 + 256) + 2 * 4096


@pytest.mark.parametrize("kind", [AlexNet, VGG16])
@pytest.mark.parametrize("size", [32, 84, 160])
def test_small_images_keep_the_names(kind, size):
    network = kind(image_size=size, width=0.1, fc_width=16)
    assert list(network.layers) == [*(f"conv{i}" for i in range(1, 6)), "fc6", "fc7"]
    shapes = layer_shapes(network, network.layers, size)
    assert min(shapes["conv5"][1:]) >= 2
    # another size is pooled to the one that fc6 was made for
    assert network.eval()(torch.zeros(2, 3, size + 7, size)).shape == (2, 16)
    assert network.num_features == 16


@pytest.mark.parametrize("kind", [AlexNet, VGG16])
def test_sobel_and_fc_are_options(kind):
    plain = kind(image_size=32, width=0.1, fc_width=0, sobel=False)
    assert plain.features[0].in_channels == 3
    assert isinstance(plain.sobel, nn.Identity)
    assert plain.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, plain.num_features)
    assert list(plain.layers) == [f"conv{i}" for i in range(1, 6)]
    filtered = kind(image_size=32, width=0.1, fc_width=0, sobel=True)
    grey = torch.rand(2, 1, 32, 32)
    tinted = grey * torch.tensor([3.0, 0.0, 0.0]).view(3, 1, 1)  # of the same mean
    torch.testing.assert_close(filtered.eval()(tinted), filtered(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("kind", [AlexNet, VGG16])
def test_a_size_that_cannot_be(kind):
    with pytest.raises(ValueError, match="image_size must be a whole number"):
        kind(image_size=8)
    with pytest.raises(ValueError, match=r"got 32\.5"):
        kind(image_size=32.5)


class Operators(TorchDispatchMode):
    """Notes the operators that run."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.seen.add(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("build", [AlexNet, VGG16])
def test_pooling_is_left_out_where_it_does_nothing(build):
    """Its gradient is not deterministic on CUDA, and `deterministic: true` refuses it."""
    network = build(image_size=64, width=0.1, fc_width=8)
    with Operators() as own:
        network(torch.rand(2, 3, 64, 64)).sum().backward()
    assert not [name for name in own.seen if "adaptive" in name]
    with Operators() as other:
        network(torch.rand(2, 3, 96, 96))
    assert [name for name in other.seen if "adaptive" in name]


@pytest.mark.parametrize("build", [AlexNet, VGG16])
def test_before_the_last_activation_is_fc7_itself(build):
    network = build(image_size=32, width=0.1, fc_width=8).eval()
    images = torch.rand(4, 3, 32, 32)
    linear = [module for module in network.classifier if isinstance(module, nn.Linear)][-1]
    outputs = []
    linear.register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    found = network.before_last_activation(images)
    assert torch.equal(found, outputs[0])
    assert (found < 0).any()
    assert torch.equal(found.relu(), network(images))
    bare = build(image_size=32, width=0.1, fc_width=0).eval()
    assert torch.equal(bare.before_last_activation(images), bare(images))
