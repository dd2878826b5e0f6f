"""The host's augmentation, read into the pipelines of `uic_plugin.augmentation`.

Both lines of solo-learn build it from torchvision's transforms and three classes of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torchvision import transforms

from uic_plugin.augmentation import CenterViews, Pipeline
from uic_plugin.augmentation.resample import INTERPOLATIONS
from uic_plugin.data.center import resized_side


class UnknownOperation(ValueError):
    """An operation of an augmentation that `uic_plugin.augmentation` does not have."""


def pipelines_of(augmentation: object) -> tuple[Pipeline, ...]:
    """Return the pipelines of a host's augmentation.

    Args:
        augmentation: the host's pipelines, each making some crops; see `Host.augmentation`.

    Raises:
        UnknownOperation: for anything that is not the host's, naming it.
    """
    groups = getattr(augmentation, "transforms", None)
    if isinstance(augmentation, transforms.Compose) or not isinstance(groups, list):
        raise UnknownOperation(f"{type(augmentation).__name__} is no augmentation of the host")
    found = []
    for group in groups:
        count = getattr(group, "num_crops", None)
        if not isinstance(count, int):
            raise UnknownOperation(f"{type(group).__name__} does not say how many crops it makes")
        if count:
            found.append(replace(_pipeline(group.transform), count=count))
    if not found:
        raise UnknownOperation("the augmentation makes no crop")
    return tuple(found)


def center_views_of(augmentation: object) -> CenterViews:
    """Return the centered views that match an augmentation, see `center_view`."""
    first = pipelines_of(augmentation)[0]
    return CenterViews(first.size, resized_side(first.size), first.mean, first.std)


def _pipeline(transform: Any) -> Pipeline:
    """Return what a pipeline's operations say, which must come in the order of `_READERS`."""
    while not isinstance(transform, transforms.Compose) and hasattr(transform, "transform"):
        transform = transform.transform  # the host's wrapper
    if not isinstance(transform, transforms.Compose):
        raise UnknownOperation(f"{type(transform).__name__} is no pipeline of the host")
    settings: dict[str, Any] = {}
    names = list(_READERS)
    last = -1
    for part in transform.transforms:
        name, operation, probability = _named(part)
        if name not in _READERS:
            raise UnknownOperation(f"{name} is not among its operations: {', '.join(names)}")
        if names.index(name) <= last:
            raise UnknownOperation(f"{name} comes after {names[last]}")
        last = names.index(name)
        settings.update(_READERS[name](operation, probability))
    for name, setting in (("RandomResizedCrop", "size"), ("Normalize", "mean")):
        if setting not in settings:
            raise UnknownOperation(f"the pipeline has no {name}")
    return Pipeline(**settings)


def _named(part: Any) -> tuple[str, Any, float]:
    """Return the name of an operation, the operation, and its probability."""
    if not isinstance(part, transforms.RandomApply):
        return type(part).__name__, part, float(getattr(part, "p", 1.0))
    inner = list(part.transforms)
    if len(inner) != 1:
        raise UnknownOperation(f"{len(inner)} operations share one probability")
    return type(inner[0]).__name__, inner[0], float(part.p)


def _crop(part: transforms.RandomResizedCrop, probability: float) -> dict[str, Any]:
    height, width = part.size
    if height != width:
        raise UnknownOperation(f"crops of {height} x {width} pixels are not square")
    interpolation = part.interpolation.value
    if interpolation not in INTERPOLATIONS:
        raise UnknownOperation(f"the crops' interpolation is {interpolation}")
    return {
        "size": int(height),
        "scale": _range(part.scale),
        "ratio": _range(part.ratio),
        "interpolation": interpolation,
    }


def _jitter(part: transforms.ColorJitter, probability: float) -> dict[str, Any]:
    spans = (part.brightness, part.contrast, part.saturation, part.hue)
    factors = tuple(None if span is None else _range(span) for span in spans)
    return {"jitter_prob": probability, "factors": factors}


def _normalize(part: transforms.Normalize, probability: float) -> dict[str, Any]:
    return {name: tuple(map(float, getattr(part, name))) for name in ("mean", "std")}


def _range(span: Any) -> tuple[float, float]:
    low, high = span
    return float(low), float(high)


def _probability(name: str) -> Callable[[Any, float], dict[str, Any]]:
    return lambda part, probability: {name: probability}


def _blur(part: Any, probability: float) -> dict[str, Any]:
    sigma = getattr(part, "sigma", None)
    if isinstance(part, transforms.GaussianBlur) or sigma is None:  # which is of another kernel
        raise UnknownOperation("GaussianBlur is not the host's")
    return {"blur_prob": probability, "sigma": _range(sigma)}


# What reads each operation, in the order in which both lines apply them.
_READERS: dict[str, Callable[[Any, float], dict[str, Any]]] = {
    "RandomResizedCrop": _crop,
    "ColorJitter": _jitter,
    "RandomGrayscale": _probability("gray_prob"),
    "GaussianBlur": _blur,
    "Solarization": _probability("solarize_prob"),
    "Equalization": _probability("equalize_prob"),
    "RandomHorizontalFlip": _probability("flip_prob"),
    "ToTensor": lambda part, probability: {},
    "Normalize": _normalize,
}
