"""Names by which a recipe chooses a network that the host does not have."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from uic_plugin.networks.alexnet import AlexNet
from uic_plugin.networks.conv4 import Conv4
from uic_plugin.networks.vgg16 import VGG16

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "conv4": Conv4,
    "vgg16": VGG16,
}
TIMM_PREFIX = "timm/"


def find_backbone(name: str) -> Callable[..., nn.Module] | None:
    """Return the builder of a network, or None if the name is not one of ours.

    Args:
        name: one of `BACKBONES`, or `timm/NAME` for any network of timm.

    Raises:
        ValueError: for a name that timm does not know.
        ImportError: if timm is needed and missing.
    """
    if not name.startswith(TIMM_PREFIX):
        return BACKBONES.get(name)
    timm = _import_timm()
    wanted = name.removeprefix(TIMM_PREFIX)
    if not timm.is_model(wanted) or _entrypoint(wanted) is None:
        close = difflib.get_close_matches(wanted.split(".")[0], timm.list_models(), n=3)
        hint = (
            f": did you mean {', '.join(TIMM_PREFIX + other for other in close)}?" if close else ""
        )
        raise ValueError(f"backbone.name {name!r} is no network of timm {timm.__version__}{hint}")
    return partial(_timm, wanted)


def _timm(name: str, **kwargs: Any) -> nn.Module:
    """Build a network of timm without its classifier, by default with random weights."""
    own: Any = _entrypoint(name)
    if own is _import_timm().model_entrypoint(name.partition(".")[0]):
        network: Any = _import_timm().create_model(name, num_classes=0, **kwargs)
    else:
        network = own(num_classes=0, **kwargs)
    # the output is wider than the last map if timm's network has a layer in its head
    network.num_features = getattr(network, "head_hidden_size", network.num_features)
    return network  # type: ignore[no-any-return]


def _entrypoint(name: str) -> Callable[..., nn.Module] | None:
    """Return timm's own builder: solo-learn main registers its own under some of the names."""
    timm = _import_timm()
    base = name.partition(".")[0]
    registered = timm.model_entrypoint(base)
    if registered.__module__.startswith("timm."):
        return registered
    return getattr(timm.models, base, None)


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError("backbone.name=timm/NAME needs timm: pip install timm") from error
    return timm
