"""Recipes written for another method, used with one of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig

from uic_plugin.methods import OWN_METHODS, MethodOptions, UICOptions

# `method_kwargs` of solo-learn's own methods, versions 1.0.2 and 1.0.6, by what they must be.
_WHOLE_NUMBERS = frozenset(
    """decoder_depth decoder_embed_dim decoder_num_heads epoch_queue_starts freeze_last_layer
    freeze_prototypes_epochs kmeans_iters num_prototypes pred_hidden_dim proj_hidden_dim
    proj_output_dim queue_size sk_iters warmup_teacher_temperature_epochs whitening_iters
    whitening_size""".split()
)
_NUMBERS = frozenset(
    """clip_grad cov_loss_weight lamb mask_ratio scale_loss sim_loss_weight sk_epsilon
    student_temperature teacher_temperature temperature temperature_k temperature_q
    var_loss_weight warmup_teacher_temperature whitening_eps""".split()
)
_SWITCHES = frozenset("iternorm norm_last_layer norm_pix_loss supervised use_bn_in_head".split())
HOST_OPTIONS = _WHOLE_NUMBERS | _NUMBERS | _SWITCHES

# of our own methods, whatever they learn from
_SAME_FOR_ALL = frozenset(
    ("num_pseudo_classes", "bank_storage", "bank_folder", "max_shuffled", *MethodOptions.names())
)


def typed_options(command_line: Iterable[str]) -> set[str]:
    """Return the options under `method_kwargs` that overrides name."""
    return {
        override.lstrip("+").split("=")[0].removeprefix("method_kwargs.")
        for override in command_line
        if override.lstrip("+").startswith("method_kwargs.")
    }


def check_host_options(given: Mapping[str, Any]) -> None:
    """Refuse what no method of the host knows, and values of a kind that it could not compute with.

    The host checks neither: it ends in an error of its own, in the first step at the latest.

    Args:
        given: `method_kwargs` of a method of the host.

    Raises:
        ValueError: for the first such option.
    """
    unknown = [name for name in given if name not in HOST_OPTIONS]
    if unknown:
        raise ValueError(
            f"unknown option method_kwargs.{unknown[0]}: no method of the host has it; the recipe "
            f"has {', '.join(name for name in given if name not in unknown)}"
        )
    for name, value in given.items():
        if value is None or (name == "clip_grad" and value is False):  # for the host to judge
            continue
        if name in _SWITCHES:
            wanted, fits = "true or false", type(value) is bool
        elif name in _NUMBERS:
            wanted, fits = "a number", type(value) in (int, float)
        elif name == "num_prototypes" and isinstance(value, (list, tuple)):  # one of each k-means
            wanted, fits = "whole numbers", all(type(count) is int for count in value)
        else:
            wanted, fits = "a whole number of at least 0", type(value) is int and value >= 0
        if not fits:
            raise ValueError(f"method_kwargs.{name} must be {wanted}, got {value!r}")


def own_options(
    given: Mapping[str, Any],
    command_line: Iterable[str],
    options_class: type[MethodOptions] = UICOptions,
    method: str = "uic",
) -> dict[str, Any]:
    """Return a method's part of a recipe's `method_kwargs`.

    What only other methods know (`proj_hidden_dim`) is left out with a warning. Where it stands in
    the recipe, that is another method's, and so are its values of names that both know
    (`temperature`, `head`): those count only if they were typed on the command line. Names that no
    method knows, or that were typed, stay, for the options to refuse.

    Args:
        given: the recipe's `method_kwargs`.
        command_line: overrides that the user typed.
        options_class: of the method.
        method: its name.
    """
    names = options_class.names()
    others = HOST_OPTIONS.union(*(other.options_class.names() for other in OWN_METHODS.values()))
    typed = typed_options(command_line)
    recipe = [name for name in given if name not in typed]
    foreign = [name for name in recipe if name in others and name not in names]
    if not foreign:
        return dict(given)
    foreign += [name for name in recipe if name in names and name not in _SAME_FOR_ALL]
    warnings.warn(
        f"{method} leaves out options of another method's recipe: {', '.join(sorted(foreign))}",
        stacklevel=2,
    )
    return {name: value for name, value in given.items() if name not in foreign}


def set_views(pipelines: ListConfig, views: int, small_crops: int = 0) -> None:
    """Let a recipe's augmentation pipelines make exactly `views` crops of each image, in place.

    The first pipeline makes them all; where a second one makes crops of the same size, as in
    recipes of two different augmentations, it makes the second view. Small crops are made by the
    first pipeline of a smaller size behind these.

    Raises:
        ValueError: if small crops are asked for and no pipeline makes them.
    """
    large = [
        number
        for number, pipeline in enumerate(pipelines)
        if pipeline.num_crops and pipeline.crop_size == pipelines[0].crop_size
    ]
    chosen = large[:views] if len(large) >= views else large[:1] * views
    for number, pipeline in enumerate(pipelines):
        pipeline.num_crops = chosen.count(number)
    if not small_crops:
        return
    small = [
        pipeline
        for pipeline in pipelines[max(chosen) + 1 :]
        if pipeline.crop_size < pipelines[0].crop_size
    ]
    if not small:
        raise ValueError(
            f"method_kwargs.small_crops={small_crops} needs a pipeline that makes them: add one "
            f"with a crop_size below {pipelines[0].crop_size} to augmentations, after the others"
        )
    small[0].num_crops = small_crops


def without_dali(data: DictConfig) -> None:
    """Let a recipe that asks for DALI read its images without it, in place, and say so."""
    if data.get("format", "image_folder") != "dali":
        return
    data.format = "image_folder"
    warnings.warn(
        "data.format=dali is taken for image_folder: pseudo labels decide the order of the images, "
        "and DALI shuffles on its own",
        stacklevel=2,
    )


def count_crops(pipelines: ListConfig) -> tuple[int, int]:
    """Return how many large and small crops of an image a recipe makes, as solo-learn counts them.

    Large ones have the size of the first pipeline's. Its methods take those for the first of an
    image's crops.
    """
    large = sum(p.num_crops for p in pipelines if p.crop_size == pipelines[0].crop_size)
    return large, sum(p.num_crops for p in pipelines) - large


def check_two_crops(pipelines: ListConfig) -> None:
    """Refuse what solo-learn's `main_pretrain.py` refuses without a word: not two large crops.

    It counts a pipeline's crops as large where their size is that of the first pipeline, and wants
    two; a method of ours that needs one then leaves the other out.

    Raises:
        ValueError: naming the sizes.
    """
    sizes = [int(pipeline.crop_size) for pipeline in pipelines for _ in range(pipeline.num_crops)]
    count = sizes.count(sizes[0]) if sizes else 0
    if count == 2:
        return
    raise ValueError(
        f"the recipe's augmentations make crops of {', '.join(map(str, sizes))} pixels, and "
        f"main_pretrain.py wants two of the first one's size: set augmentations.N.crop_size of "
        f"every pipeline to {sizes[0] if sizes else 224}, or augmentations.0.num_crops=2"
    )
