"""Outputs of a network's layers, by name, for any network and image size.

    outputs = layer_outputs(network, images, ["conv1", "conv5"])

Names are `conv1` ... `conv5`, `fc6` and `fc7` (AlexNet, VGG16, Conv-4), `conv1` and `layer1` ...
`layer4` (ResNets; timm's networks have as many as they have stages), `features` (what the network
returns), `mlp` (the embedding that an MLP head makes of the features), and the path of any module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

FEATURES, MLP = "features", "mlp"
AUTO_LAYER = "auto"  # the MLP that a run's classifiers read where there is one, else the features


class Encoder(nn.Module):
    """A backbone with the MLP that was trained on top of it (UIC, section 5.2).

    Args:
        backbone: images to features.
        mlp: features to embeddings; None for a linear head.
    """

    def __init__(self, backbone: nn.Module, mlp: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.mlp = mlp

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, D), or embeddings if there is an MLP."""
        features = self.backbone(images)
        return features if self.mlp is None else self.mlp(features)


def layer_modules(network: nn.Module) -> dict[str, str]:
    """Map public names of a network's layers, from the images on, to paths of modules in it."""
    if isinstance(network, Encoder):
        names = {k: f"backbone.{v}" for k, v in layer_modules(network.backbone).items()}
        names[FEATURES] = "backbone"
        return names if network.mlp is None else {**names, MLP: "mlp"}
    own = getattr(network, "layers", None)
    if isinstance(own, dict):
        return {**own, FEATURES: ""}
    names = {}
    stages = [name for name in (f"layer{i}" for i in range(1, 5)) if hasattr(network, name)]
    if stages:  # a ResNet of torchvision or timm; its stem ends in an activation
        stem = next((name for name in ("relu", "act1") if hasattr(network, name)), None)
        names = {"conv1": stem} if stem else {}
        names.update({name: name for name in stages})
    elif getattr(network, "feature_info", None):  # timm
        known = dict(network.named_modules())
        modules = [info["module"] for info in _timm_stages(network) if info["module"] in known]
        names = {f"layer{i}": module for i, module in enumerate(modules, 1)}
    return {**names, FEATURES: ""}


def layer_outputs(
    network: nn.Module, images: torch.Tensor, names: Iterable[str]
) -> dict[str, torch.Tensor]:
    """Return the outputs of the named layers from one forward pass.

    Args:
        network: any network; its mode (train or eval) is left unchanged.
        images: (B, C, H, W).
        names: see `layer_modules`; or paths of modules that return one tensor.

    Returns:
        Name to (B, C, H', W'), (B, T, C) or (B, D), in the order of `names`.

    Raises:
        ValueError: for an unknown name, listing the valid ones.
    """
    names = list(names)
    with _recording(network, names) as outputs:
        network(images)
    silent = [name for name in names if name not in outputs]
    if silent:
        raise ValueError(f"layer {silent[0]!r} of this network takes no part in its forward pass")
    return {name: outputs[name] for name in names}


def layer_shapes(
    network: nn.Module, names: Iterable[str], image_size: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer's output for one square image, without the batch dimension.

    The network runs in eval mode, without gradients, and is left unchanged.

    Raises:
        ValueError: for an unknown layer, or an image size that the network does not support.
    """
    parameter = next(network.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=parameter.device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            outputs = layer_outputs(network, image, names)
    except (RuntimeError, AssertionError) as error:  # timm uses assert
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"images of {image_size} pixels do not go through this {type(network).__name__} "
            f"({reason}): choose another crop (augmentations.0.crop_size), or the network's own "
            f"option for small images (backbone.kwargs.image_size={image_size})"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    return {name: tuple(output.shape[1:]) for name, output in outputs.items()}


@contextmanager
def _recording(network: nn.Module, names: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    public = layer_modules(network)
    modules = dict(network.named_modules())
    backbone = network.backbone if isinstance(network, Encoder) else network
    channels_last = str(getattr(backbone, "output_fmt", "")).endswith("NHWC")  # timm's Swin, say
    outputs: dict[str, torch.Tensor] = {}
    handles = []
    try:
        for name in names:
            path = public.get(name, name)
            path = path if path in modules else f"backbone.{name}"
            if path not in modules:
                raise ValueError(f"unknown layer {name!r}: this network has {', '.join(public)}")
            hook = _keep(outputs, name, is_public=name in public, channels_last=channels_last)
            handles.append(modules[path].register_forward_hook(hook))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _keep(
    outputs: dict[str, torch.Tensor], name: str, *, is_public: bool, channels_last: bool
) -> Callable[[nn.Module, object, object], None]:
    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, torch.Tensor):
            raise ValueError(f"layer {name!r} puts out {type(output).__name__}, not one tensor")
        if channels_last and output.ndim == 4:
            output = output.permute(0, 3, 1, 2)
        # an in-place activation may follow a module that a user names by its path
        outputs[name] = output if is_public else output.clone()

    return hook


def _timm_stages(network: nn.Module) -> list[dict[str, Any]]:
    info: Any = network.feature_info
    return list(info.info if hasattr(info, "info") else info)
