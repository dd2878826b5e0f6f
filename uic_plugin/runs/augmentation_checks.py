"""What a recipe's `augmentations` may say, checked before the host makes transforms of it."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig

_OPERATIONS = (
    "color_jitter",
    "grayscale",
    "gaussian_blur",
    "solarization",
    "equalization",
    "horizontal_flip",
)


def check_augmentations(pipelines: Any) -> None:
    """Refuse numbers that cannot be.

    Args:
        pipelines: `augmentations` of a recipe, a list of pipelines.

    Raises:
        ValueError: for the first of them, with what could.
    """
    if not isinstance(pipelines, ListConfig):
        return
    for number, pipeline in enumerate(pipelines):
        if isinstance(pipeline, DictConfig):
            # a later one may make no crop: one that the method has no use for
            _check_pipeline(f"augmentations.{number}", pipeline, fewest=int(number == 0))


def _check_pipeline(where: str, pipeline: DictConfig, fewest: int) -> None:
    for name, lowest in (("crop_size", 1), ("num_crops", fewest)):
        value = pipeline.get(name)
        if value is not None and (type(value) is not int or value < lowest):
            raise ValueError(
                f"{where}.{name} must be a whole number of at least {lowest}, got {value!r}"
            )
    for name in (*_OPERATIONS, "rrc"):
        if not isinstance(pipeline.get(name) or {}, DictConfig | dict):
            raise ValueError(
                f"{where}.{name} is a section of settings, got {pipeline[name]!r}: give "
                f"{where}.{name}.{'prob' if name in _OPERATIONS else 'crop_min_scale'}=..."
            )
    for name in ("mean", "std"):
        values = pipeline.get(name)
        if values is not None and not _are_three(values, above_zero=name == "std"):
            raise ValueError(
                f"{where}.{name} must be three numbers, of red, green and blue (grey images are "
                f"read as RGB), got {values}"
            )
    for name in _OPERATIONS:
        share = (pipeline.get(name) or {}).get("prob")
        if share is not None and not _is_number(share, 0, 1):
            raise ValueError(f"{where}.{name}.prob must be a number from 0 to 1, got {share!r}")
    crop = pipeline.get("rrc") or {}
    low, high = crop.get("crop_min_scale", 0.08), crop.get("crop_max_scale", 1.0)
    if not (_is_number(low, 0, 1) and _is_number(high, 0, 1) and 0 < low <= high):
        raise ValueError(
            f"{where}.rrc: crop_min_scale and crop_max_scale are shares of an image, above 0 and "
            f"at most 1, the first one no larger, got {low!r} and {high!r}"
        )


def _are_three(values: Any, *, above_zero: bool) -> bool:
    is_list = isinstance(values, ListConfig | list | tuple) and len(values) == 3
    return is_list and all(type(v) in (int, float) and (v > 0 or not above_zero) for v in values)


def _is_number(value: object, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # type: ignore[operator]
