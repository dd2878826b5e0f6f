"""A recipe's further classifiers that have more pseudo classes than there are images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from omegaconf import DictConfig


def fit_heads(cfg: DictConfig, num_images: int) -> None:
    """Leave out further classifiers that have more classes than there are images, in place.

    Nobody who has two hundred images chose the three hundred classes of a recipe. The first
    classifier stays as it is: its number of classes is the user's.

    Args:
        cfg: a prepared recipe whose `more_heads` nobody has typed.
        num_images: N.
    """
    more = list(cfg.method_kwargs.get("more_heads") or [])
    fitting = fitting_heads(more, num_images)
    if len(fitting) == len(more) or cfg.method_kwargs.num_pseudo_classes > num_images:
        return
    left_out = ", ".join(str(count) for count in more if count > num_images)
    warnings.warn(
        f"{num_images} images: the classifier of {left_out} pseudo classes is left out "
        f"(method_kwargs.more_heads=[{','.join(map(str, fitting))}])",
        stacklevel=3,
    )
    cfg.method_kwargs.more_heads = fitting


def fitting_heads(more_heads: Sequence[int], num_images: int) -> list[int]:
    """Return those of some classifiers' numbers of classes that so many images can have."""
    return [count for count in more_heads if count <= num_images]
