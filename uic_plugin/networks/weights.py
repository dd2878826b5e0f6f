"""Load and save weights of this plugin, of the hosts, of torchvision, timm and DeepCluster.

    report = load_weights(network, Path("last.ckpt"))
    save_weights(network, Path("network.pth"))

Networks keep torchvision's names of their weights; timm's differ for VGG16 only.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uic_plugin.files import replacing, save_tensors

LAYOUTS = ("torchvision", "timm", "solo-learn")
# Prefixes of a method's network: solo-learn main, its PyPI line, MoCo's own code.
_BACKBONE_PREFIXES = ("backbone.", "encoder.", "encoder_q.")
# timm's VGG writes fc6 and fc7 as convolutions.
_TIMM_VGG = {"pre_logits.fc1.": "classifier.0.", "pre_logits.fc2.": "classifier.3."}
_COUNTERS = "num_batches_tracked"  # of BatchNorm: missing in old files, not used here


@dataclass(frozen=True)
class WeightReport:
    """Which weights were loaded from a file.

    Attributes:
        loaded: names of the network's weights that the file has.
        missing: names that it does not have, or in another shape; these keep their values.
        unused: names in the file that the network does not have, for example of a classifier.
    """

    loaded: list[str]
    missing: list[str]
    unused: list[str]

    def summary(self, missing: Sequence[str] | None = None) -> str:
        """Return one line for a user about `missing`, or some of it; empty if there is none."""
        missing = self.missing if missing is None else missing
        if not missing:
            return ""
        shown = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        total = len(self.loaded) + len(self.missing)
        return f"{len(missing)} of {total} weights are not in the file: {shown}"


def load_weights(
    network: nn.Module, path: Path, *, allow_missing: Sequence[str] = ()
) -> WeightReport:
    """Copy weights from a file into a network, by name and shape.

    Position embeddings of timm's networks are interpolated if the image size differs.

    Args:
        network: a backbone; left unchanged on an error.
        path: a checkpoint of a run, a bare state dict, or `.safetensors`.
        allow_missing: names of weights that may keep their values because the file lacks them or
            has them in another shape; `*` stands for any part of a name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file has no weights, or lacks some that the network has.
    """
    return copy_weights(network, read_state(path), path, allow_missing=allow_missing)


def copy_weights(
    network: nn.Module,
    state: dict[str, torch.Tensor],
    source: Path | str,
    *,
    allow_missing: Sequence[str] = (),
) -> WeightReport:
    """Copy weights into a network, by name and shape.

    Args:
        network: a backbone; left unchanged on an error.
        state: tensors by name.
        source: where they are from, for messages.
        allow_missing: see `load_weights`.

    Raises:
        ValueError: if `state` lacks weights that the network has.
    """
    state = backbone_state(state)
    own = network.state_dict()
    state = _resized_by_timm(network, _from_timm(state, own), own)
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    wanted = [name for name in own if not name.endswith(_COUNTERS)]
    report = WeightReport(
        loaded=[name for name in wanted if name in fitting],
        missing=[
            name
            if name not in state
            else f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in wanted
            if name not in fitting
        ],
        unused=[name for name in state if name not in own],
    )
    if not report.loaded:
        raise ValueError(
            f"no weight in {source} fits this {type(network).__name__}: the file has "
            f"{', '.join(list(state)[:3])}, the network wants {', '.join(wanted[:3])}"
        )
    refused = [
        name
        for name in report.missing
        if not any(fnmatchcase(name.split(" ")[0], allowed) for allowed in allow_missing)
    ]
    if refused:
        first = refused[0].split(" ")[0]
        raise ValueError(
            f"{source}: {report.summary(refused)}. Choose the network that these are of, or "
            f"allow by name what is to keep its random values: weights_allow_missing=[{first}], or "
            f"weights_allow_missing=['{first.split('.')[0]}.*']"
        )
    network.load_state_dict(fitting, strict=False)
    return report


def save_weights(network: nn.Module, path: Path, *, layout: str = "torchvision") -> None:
    """Write a backbone's weights, through a temporary file.

    Args:
        network: a backbone.
        path: ends in `.safetensors` for that format; torch's own otherwise.
        layout: "torchvision" or "timm", for a bare state dict with its names; "solo-learn" for a
            checkpoint that the host's own scripts load.

    Raises:
        ValueError: for an unknown layout, or one that the format does not support.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if layout == "solo-learn" and path.suffix == ".safetensors":
        raise ValueError(f"{path}: a checkpoint of solo-learn is torch's own format, say .ckpt")
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    if layout == "timm":
        state = _to_timm(network, state)
    if path.suffix == ".safetensors":
        with replacing(path) as part:
            _safetensors().save_file(state, part)
    elif layout == "solo-learn":
        prefixed = {_BACKBONE_PREFIXES[0] + name: value for name, value in state.items()}
        save_tensors({"state_dict": prefixed}, path)
    else:
        save_tensors(state, path)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file by name, without the wrappers that training programs add.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights")
    try:
        if path.suffix == ".safetensors":
            content: Any = _safetensors().load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for foreign files
        raise ValueError(f"{path} holds no weights, or is damaged") from error
    for key in ("state_dict", "model"):  # Lightning, timm and MoCo; DeiT and others
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    state = {}
    if isinstance(content, dict):
        state = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not state:
        raise ValueError(f"{path} holds no weights: give a checkpoint or a state dict")
    # DataParallel wraps the whole network, in DeepCluster's files its convolutions only
    return uncompiled({name.replace("module.", ""): value for name, value in state.items()})


def uncompiled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights by the names that they have without the wrapper of `torch.compile`."""
    return {name.replace("_orig_mod.", ""): value for name, value in state.items()}


def backbone_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the network's part of a method's weights; those of a bare network unchanged."""
    for prefix in _BACKBONE_PREFIXES:
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if part:
            return part
    return state


def weights_fingerprint(network: nn.Module) -> str:
    """Return 16 hexadecimal digits that identify all weights and statistics of a network."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_timm(
    state: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, value in state.items():
        for theirs, ours in _TIMM_VGG.items():
            target = name.replace(theirs, ours)
            if name.startswith(theirs) and name not in own and target in own:
                name, value = target, value.reshape(len(value), -1) if value.ndim > 1 else value
        renamed[name] = value
    return renamed


def _resized_by_timm(
    network: nn.Module, state: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the state with weights that depend on the image size interpolated, as timm does.

    Each family of networks in timm has a filter of checkpoints, which interpolates position
    embeddings, tables of relative positions and patch embeddings.
    """
    if all(state[name].shape == own[name].shape for name in own if name in state):
        return state
    for kind in type(network).__mro__:
        convert = getattr(sys.modules.get(kind.__module__), "checkpoint_filter_fn", None)
        if kind.__module__.startswith("timm.models.") and convert is not None:
            return dict(convert(dict(state), network))
    return state


def _to_timm(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from uic_plugin.networks.vgg16 import VGG16

    if not isinstance(network, VGG16):
        return state
    renamed = {}
    for name, value in state.items():
        for theirs, ours in _TIMM_VGG.items():
            if name.startswith(ours):
                if value.ndim == 2:
                    side = network.last_side if ours == "classifier.0." else 1
                    value = value.reshape(len(value), -1, side, side)
                name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("this file needs safetensors: pip install safetensors") from error
    return safetensors.torch
