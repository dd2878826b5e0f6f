"""What a recipe may say under `method_kwargs` for the methods of this plugin."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from uic_plugin.pseudo_labels.sampler import MAX_SHUFFLED
from uic_plugin.pseudo_labels.storage import STORAGES

Options = TypeVar("Options", bound="MethodOptions")


def _option(
    default: Any, wanted: str, accepts: Callable[[Any], bool], needs: str | None = None
) -> Any:
    """Return a field whose values must be `wanted`, which `accepts` decides.

    `needs` says without which other option it has no effect: "head=mlp", "bank_storage=mmap or
    auto", or "instance_share" for any value but 0.
    """
    metadata = {"wanted": wanted, "accepts": accepts, "needs": needs}
    return dataclasses.field(default=default, metadata=metadata)


def _choice(default: Any, *choices: Any, needs: str | None = None) -> Any:
    return _option(default, f"one of {list(choices)}", lambda value: value in choices, needs)


def _count(default: int, lowest: int, needs: str | None = None) -> Any:
    return _option(
        default,
        f"a whole number of at least {lowest}",
        lambda value: type(value) is int and value >= lowest,
        needs,
    )


def _flag(default: bool, needs: str | None = None) -> Any:
    return _option(default, "true or false", lambda value: type(value) is bool, needs)


def _number(
    default: float, wanted: str, accepts: Callable[[float], bool], needs: str | None = None
) -> Any:
    return _option(
        default, wanted, lambda value: type(value) in (int, float) and bool(accepts(value)), needs
    )


def _positive(default: float, needs: str | None = None) -> Any:
    return _number(default, "a number above 0", lambda value: 0 < value < float("inf"), needs)


@dataclass(frozen=True)
class MethodOptions:
    """Options of every method of this plugin.

    Attributes:
        on_bad_image: "stop" at an unreadable image, or "skip" it for the next readable one.
        max_bad_images: with "skip", stop nevertheless when more than so many were skipped in an
            epoch; none: never.
    """

    # crops of each image that the training loader makes, and smaller ones beside them
    views: ClassVar[int] = 1
    small_crops: ClassVar[int] = 0
    # options that earlier versions had, with the value at which they did nothing
    removed: ClassVar[Mapping[str, object]] = {}
    on_bad_image: str = _choice("stop", "stop", "skip")
    max_bad_images: int | None = _option(
        None,
        "none or a whole number of at least 0",
        lambda value: value is None or (type(value) is int and value >= 0),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.metadata["accepts"](value):
                raise ValueError(
                    f"method_kwargs.{field.name} must be {field.metadata['wanted']}, got {value!r}"
                )

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all options."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def from_mapping(cls: type[Options], given: Mapping[str, Any], method: str = "uic") -> Options:
        """Return the options of a recipe's `method_kwargs`.

        Args:
            given: names and values.
            method: whose options they are, for the message.

        Raises:
            ValueError: for an unknown name, listing the valid ones, or an impossible value.
        """
        given = cls._without_removed(given, method)
        unknown = [name for name in given if name not in cls.names()]
        if unknown:
            close = difflib.get_close_matches(unknown[0], cls.names(), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"unknown option method_kwargs.{unknown[0]}{hint} "
                f"Valid options of {method}: {', '.join(cls.names())}"
            )
        return cls(**given)

    @classmethod
    def _without_removed(cls, given: Mapping[str, Any], method: str) -> dict[str, Any]:
        """Leave out removed options that did nothing, as runs of earlier versions have them."""
        for name in given.keys() & cls.removed.keys():
            if given[name] != cls.removed[name]:
                raise ValueError(
                    f"method_kwargs.{name}={given[name]} is an option of earlier versions of "
                    f"{method} that gained nothing and was removed: leave it out; a run that was "
                    f"trained with it is read by the version that trained it"
                )
        return {name: value for name, value in given.items() if name not in cls.removed}

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain Python values."""
        return dataclasses.asdict(self)

    def risks(self) -> list[str]:
        """Return what may go wrong with these options, a line each."""
        return []

    def needed_for(self, name: str) -> str | None:
        """Return what an option needs to have an effect and does not have here, as "head=mlp".

        Args:
            name: of the option; one that there is not has no needs.
        """
        needs = {field.name: field.metadata["needs"] for field in dataclasses.fields(self)}
        needed = needs.get(name)
        if needed is None:
            return None
        other, _, value = needed.partition("=")
        given = getattr(self, other)
        has_it = given in value.split(" or ") if value else bool(given)
        if has_it:
            return self.needed_for(other)
        return needed if value else f"{needed} above 0"


@dataclass(frozen=True)
class PseudoLabelOptions(MethodOptions):
    """Options of every method that learns from pseudo labels.

    Attributes:
        num_pseudo_classes: K, at least 2 and at most the number of images.
        head: "linear", the classifier on the features; "mlp", an MLP before it (section 5.2).
        head_layers: layers of the MLP.
        head_width: width of every layer of the MLP.
        head_batch_norm: BatchNorm after every layer of the MLP.
        head_output: width of a last layer of the MLP without BatchNorm and ReLU, which makes it a
            projector before a cosine classifier; 0: none.
        classifier: "linear"; "cosine", between unit vectors: choose a temperature of about 0.1.
        heads: classifiers on the same network, each with labels of its own (SelfLabel, 3.3);
            telemetry and `uic label` look at the first.
        temperature: divides the logits in the loss, above 0.
        bank_storage: where labels lie. "memory"; "device", with the network; "mmap", in files that
            the ranks of a machine share; "auto", the first of device (a GPU), memory and mmap that
            is large enough. Results do not depend on it.
        bank_folder: an existing folder for those files, on a disk with room for two labels an
            image; by default the system's folder for temporary files. They are gone when the run
            ends, however.
        max_shuffled: the most images whose order is shuffled in memory, 20 bytes an image while it
            is made; of more it is computed as it is needed, which keeps 4 bytes an image. Both are
            balanced alike, but are other orders: a run resumes with the value that it began with.
    """

    # with a single class every image is right from the start and nothing is learned
    num_pseudo_classes: int = _count(3000, 2)
    head: str = _choice("linear", "linear", "mlp")
    head_layers: int = _count(2, 1, needs="head=mlp")
    head_width: int = _count(2048, 1, needs="head=mlp")
    head_batch_norm: bool = _flag(True, needs="head=mlp")
    head_output: int = _count(0, 0, needs="head=mlp")
    classifier: str = _choice("linear", "linear", "cosine")
    heads: int = _count(1, 1)
    temperature: float = _positive(1.0)
    bank_storage: str = _choice("auto", "auto", *STORAGES)
    bank_folder: str | None = _option(
        None,
        "a folder",
        lambda value: value is None or type(value) is str,
        needs="bank_storage=mmap or auto",
    )
    max_shuffled: int = _count(MAX_SHUFFLED, 0)

    @property
    def head_classes(self) -> tuple[int, ...]:
        """Number of pseudo classes of each head."""
        return (self.num_pseudo_classes,) * self.heads


@dataclass(frozen=True)
class DeepClusterOptions(PseudoLabelOptions):
    """Options of DeepCluster; defaults follow its paper (Caron et al., 2018, section 3).

    Attributes:
        pca_dim: dimensions of the whitened features that k-means clusters; fewer where the
            features have fewer.
        kmeans_iterations: of k-means, in every epoch.
        kmeans_sample: the most images that whitening and centroids are learned from; of more
            images so many are drawn, no fewer than clusters, and all are labelled.
        balanced_sampling: draw all clusters equally often, without the empty ones.
        reset_classifier: begin every epoch with a new classifier: clusters of two epochs have
            nothing to do with each other.
    """

    num_pseudo_classes: int = _count(10_000, 2)
    pca_dim: int = _count(256, 1)
    kmeans_iterations: int = _count(20, 1)
    kmeans_sample: int = _count(10_000_000, 1)
    balanced_sampling: bool = _flag(True)
    reset_classifier: bool = _flag(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads > 1:
            raise ValueError(
                f"deepcluster has one clustering: set method_kwargs.heads=1, got {self.heads}"
            )


@dataclass(frozen=True)
class SelfLabelOptions(PseudoLabelOptions):
    """Options of SelfLabel; defaults follow its paper (Asano et al., 2020, sections 3 and 4).

    Attributes:
        sinkhorn_lambda: power of the softmax, lambda of its Eq. 6; 25 (CIFAR: 10).
        sinkhorn_tolerance: ends Sinkhorn-Knopp, summed relative change of the images' factors.
        label_updates: times that all labels are assigned anew in the course of the training; no
            more than once in an epoch.
        label_spacing: "quadratic", more of them early; "linear".
        balanced_sampling: draw all classes equally often; off, as in the paper: every image once,
            classes being of equal size already.
        device_scores_gb: the most gigabytes of scores that are kept on the training device, 0 for
            none; above it they lie in memory up to 4 GB, then in a temporary file.
    """

    sinkhorn_lambda: float = _positive(25.0)
    sinkhorn_tolerance: float = _positive(0.1)
    label_updates: int = _count(100, 1)
    label_spacing: str = _choice("quadratic", "quadratic", "linear")
    balanced_sampling: bool = _flag(False)
    device_scores_gb: float = _number(
        4.0, "a number of at least 0", lambda value: 0 <= value < float("inf")
    )


@dataclass(frozen=True)
class SupervisedOptions(PseudoLabelOptions):
    """Options of supervised training, whose labels are the annotations.

    Attributes:
        num_pseudo_classes: the number of annotated classes, whatever stands here.
        heads: 1, whatever stands here.
    """

    num_pseudo_classes: int = _count(3000, 2)
    heads: int = _count(1, 1)

    def needed_for(self, name: str) -> str | None:
        """Return what an option needs to have an effect and does not have here."""
        if name in ("num_pseudo_classes", "heads"):
            return "a method that makes its labels, as method=uic"
        return super().needed_for(name)


@dataclass(frozen=True)
class InstDiscOptions(MethodOptions):
    """Options of instance discrimination; defaults follow its paper (Wu et al., 2018, section 4).

    Attributes:
        embedding_dim: dimensions of the unit vector that an image is remembered by.
        temperature: of the softmax over images.
        num_negatives: other images that an image is told apart from in a step; 0: all images, by
            an exact softmax, which learns much better where they are few.
        memory_momentum: share of itself that a remembered vector keeps when its image is seen.
    """

    embedding_dim: int = _count(128, 1)
    temperature: float = _positive(0.07)
    num_negatives: int = _count(4096, 0)
    memory_momentum: float = _number(
        0.5, "a number of at least 0 and below 1", lambda value: 0 <= value < 1
    )
