"""Changes of a pretrained network before a task trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from uic_plugin.networks.staged import StagedNetwork
from uic_plugin.seeding import derive_seed

BATCH_NORM = ("fixed", "train")
_Made = TypeVar("_Made")


def with_mode(
    model: nn.Module, batch_norm: str, frozen: Iterable[nn.Module] = ()
) -> Callable[[], None]:
    """Return a function that puts a model into the mode it is trained in.

    Args:
        model: put into training mode, with these exceptions.
        batch_norm: "fixed": BatchNorm layers use their running statistics, as if folded into the
            convolutions; "train": those of the batch.
        frozen: parts that stay in eval mode.

    Raises:
        ValueError: for another `batch_norm`.
    """
    if batch_norm not in BATCH_NORM:
        raise ValueError(f"--batch-norm must be {' or '.join(BATCH_NORM)}, got {batch_norm!r}")
    parts = list(frozen)

    def set_mode() -> None:
        model.train()
        if batch_norm == "fixed":
            parts.extend(norm for norm in model.modules() if isinstance(norm, _BatchNorm))
        for part in parts:
            part.eval()

    return set_mode


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Iterator[torch.Tensor]) -> None:
    """Set the running statistics of BatchNorm layers to the means over some batches.

    A network with random weights has no useful statistics to keep fixed.

    Args:
        network: any; its mode is left unchanged.
        batches: of images (B, 3, H, W).
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    modes = [(module, module.training) for module in network.modules()]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    device = next(network.parameters()).device
    network.train()
    for images in batches:
        network(images.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes:
        module.training = mode


def convolutions(network: nn.Module) -> nn.Sequential:
    """Return Sobel filter and convolutions of an AlexNet or VGG16, without the last pooling.

    Raises:
        ValueError: for another network, or one without fc6 and fc7.
    """
    staged = staged_network(network)
    return nn.Sequential(staged.sobel, *list(staged.features)[:-1])


def staged_network(network: nn.Module) -> StagedNetwork:
    """Return the network, checked to be an AlexNet or VGG16 with fc6 and fc7.

    Raises:
        ValueError: for any other network.
    """
    if not isinstance(network, StagedNetwork) or not len(network.classifier):
        raise ValueError(
            f"this needs the layers fc6 and fc7 of an alexnet or vgg16, the run's "
            f"{type(network).__name__} has none"
        )
    return network


def resnet_stages(network: nn.Module) -> dict[str, int]:
    """Return names and channels of a ResNet's stages, `layer1` to `layer4`.

    Raises:
        ValueError: for any other network.
    """
    children = dict(network.named_children())
    names = [f"layer{i}" for i in range(1, 5)]
    if any(name not in children for name in names):
        raise ValueError(
            f"this needs a ResNet with stages layer1 to layer4, the run's network is a "
            f"{type(network).__name__}"
        )
    return {name: _channels(children[name]) for name in names}


def _channels(stage: nn.Module) -> int:
    convolution = [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
    # a block's last convolution; one of a shortcut has equally many channels
    return convolution[-1].out_channels


def renew_linear(layers: nn.Module, seed: int) -> None:
    """Initialise linear layers: normal with deviation 0.01, bias 0.1 (as DeepCluster does)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "new layers"))
        for module in layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.constant_(module.bias, 0.1)


def seeded(build: Callable[[], _Made], seed: int) -> _Made:
    """Return what `build` makes, with random weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "new layers"))
        return build()
