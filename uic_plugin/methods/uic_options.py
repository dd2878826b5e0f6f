"""What a recipe may say under `method_kwargs` for `method=uic`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from uic_plugin.methods.options import (
    PseudoLabelOptions,
    _choice,
    _count,
    _flag,
    _number,
    _option,
    _positive,
)

_KEPT = "label_source=bank or swap"  # what options of labels that are kept need


def _is_classes(value: object) -> bool:
    """Tell whether a value is a list of numbers of classes."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and all(type(entry) is int and entry >= 2 for entry in value)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class UICOptions(PseudoLabelOptions):
    """Options of UIC; defaults follow the paper (section 4.2).

    Attributes:
        more_heads: pseudo classes K of each further head, as [30, 300]; telemetry, pages and
            `uic label` look at the first head, which has num_pseudo_classes.
        balanced_sampling: draw all classes equally often; off: every image once.
        fix_empty_classes: split the largest class for each empty one.
        label_init: "random", independent draws; "balanced", equal class sizes; "clusters", k-means
            on the untrained network's features, once (a variant of ours); with label_source=swap
            a cosine classifier begins with their directions, too.
        views: 1: the loss and the next label come from one view; 2: the label from the first,
            the loss on the second. label_source=swap and step have two, whatever stands here.
        label_view: "train": labels come from the training step's own view; "center": from a pass
            over centered views at the end of each epoch, network in eval mode (Table 3).
        label_every: epochs between two such passes; above 1 there is one after the last epoch, too,
            so that another max_epochs is another run.
        label_momentum: labels from a moving average of the weights that keeps this share of itself
            in every step of the optimizer, below 1; 0: from the network itself, as in the paper.
        fixed_labels: label file, as `uic label` writes it; its labels never change (Table 2).
        label_source: "bank": labels of the epoch before; "step": of a second view in the same step
            (Eq. 7), nothing kept of an image, classes balanced by a running mean of the answers
            instead of the order (a variant of ours, for images that are seen once); "swap": each
            of two views is labelled by the answer to the other, balanced, and both are learned
            from (Eq. 7 both ways); the bank keeps the answers.
        prior_window: steps that the running mean of label_source=step goes back.
        kmeans_sample: with label_init=clusters, see DeepCluster's.
        swap_balance: how label_source=swap balances labels: "sinkhorn", within the batch of all
            ranks; "prices", a price per class that is kept from step to step, for batches much
            smaller than the number of classes; "none".
        label_epsilon: divides the logits of those labels: the smaller, the harder they are.
        sinkhorn_iterations: iterations of Sinkhorn-Knopp in each step.
        price_rate: how far a price moves in a step.
        instance_share: with label_source=swap, share of the loss in which every image of the step
            is a class of its own and its other view has to be found among all views (SimCLR's
            loss); the rest is of the pseudo classes. Needs balanced_sampling=false.
        instance_temperature: divides the cosines of that share.
        small_crops: with label_source=swap, crops of a second, smaller size, which learn the labels
            of the two large ones; augmentations.1 says how they are made.
        settle_rounds: with classifier=cosine, rounds of k-means after the last epoch of `uic
            pretrain`, from the classifiers as trained, on embeddings of training images, after
            which each direction is the mean of its class; 0: as trained.
    """

    removed: ClassVar[Mapping[str, object]] = {"bank_share": 0.0, "draw_all_first": False}
    more_heads: Sequence[int] = _option((), "a list of whole numbers of at least 2", _is_classes)
    balanced_sampling: bool = _flag(True, needs=_KEPT)
    fix_empty_classes: bool = _flag(True, needs=_KEPT)
    label_init: str = _choice("random", "random", "balanced", "clusters", needs=_KEPT)
    views: int = _choice(1, 1, 2)  # type: ignore[misc]  # an option here, fixed elsewhere
    label_view: str = _choice("train", "train", "center")
    label_every: int = _count(1, 1)
    label_momentum: float = _number(
        0.0, "a number of at least 0 and below 1", lambda value: 0 <= value < 1
    )
    fixed_labels: str | None = _option(
        None, "a label file", lambda value: value is None or type(value) is str
    )

    label_source: str = _choice("bank", "bank", "step", "swap")
    prior_window: int = _count(10, 1, needs="label_source=step")
    kmeans_sample: int = _count(10_000_000, 1, needs="label_init=clusters")
    swap_balance: str = _choice("sinkhorn", "sinkhorn", "prices", "none", needs="label_source=swap")
    label_epsilon: float = _positive(0.05, needs="label_source=swap")
    sinkhorn_iterations: int = _count(3, 1, needs="swap_balance=sinkhorn")
    price_rate: float = _positive(0.1, needs="swap_balance=prices")
    instance_share: float = _number(
        0.0, "a number of at least 0 and below 1", lambda value: 0 <= value < 1
    )
    instance_temperature: float = _positive(0.2, needs="instance_share")
    small_crops: int = _count(0, 0)  # type: ignore[misc]  # an option here, fixed elsewhere
    settle_rounds: int = _count(0, 0, needs="classifier=cosine")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "more_heads", list(self.more_heads))
        if self.label_source != "bank":
            object.__setattr__(self, "views", 2)
        self._check_sources()
        self._check_swap()
        if self.balanced_sampling and not self.fix_empty_classes:
            raise ValueError(
                "method_kwargs.balanced_sampling=true needs fix_empty_classes=true: an empty "
                "class cannot be sampled; set both to false to train without either"
            )
        if self.fixed_labels and self.label_init == "clusters":
            raise ValueError(
                "method_kwargs.fixed_labels and label_init=clusters are two ways to the first "
                "labels: choose one"
            )
        if self.fixed_labels and len(self.head_classes) > 1:
            raise ValueError(
                f"method_kwargs.fixed_labels holds labels of one head, heads is "
                f"{len(self.head_classes)}: set heads=1 and more_heads=[]"
            )

    @property
    def head_classes(self) -> tuple[int, ...]:
        """Number of pseudo classes of each head."""
        return (*super().head_classes, *self.more_heads)

    def risks(self) -> list[str]:
        """Return what may go wrong with these options, a line each."""
        is_free = not (self.balanced_sampling or self.fix_empty_classes)
        if self.label_source != "bank" or self.fixed_labels is not None or not is_free:
            return []
        return [
            "labels of the bank with neither balanced_sampling nor fix_empty_classes end in one "
            "class for all images: set both to true, as --config-name custom/uic_paper has them"
        ]

    def needed_for(self, name: str) -> str | None:
        """Return what an option needs to have an effect and does not have here."""
        # with label_source=swap the bank's first labels are read by its balanced order alone
        is_read = self.label_source != "swap" or self.balanced_sampling
        starts_nothing = not is_read and self.classifier != "cosine"
        if name == "label_init" and self.label_init == "clusters" and starts_nothing:
            return "classifier=cosine or balanced_sampling=true"
        return super().needed_for(name)

    def _check_sources(self) -> None:
        """Refuse two ways to the labels that exclude each other."""
        sources = {
            "label_view=center": self.label_view == "center",
            "views=2": self.views == 2 and self.label_source == "bank",
            "label_momentum": self.label_momentum > 0,
            "fixed_labels": self.fixed_labels is not None,
        }
        chosen = [name for name, is_chosen in sources.items() if is_chosen]
        # a moving average says whose labels they are, the others of which view
        others = [name for name in chosen if name != "label_momentum"]
        if self.label_every > 1 and self.label_view != "center":
            raise ValueError(
                f"method_kwargs.label_every={self.label_every} needs passes over centered views: "
                f"set label_view=center"
            )
        pair = others[:2]
        if {"label_momentum", "fixed_labels"} <= set(chosen):
            pair = ["label_momentum", "fixed_labels"]
        if len(pair) > 1:
            raise ValueError(
                f"method_kwargs.{pair[0]} and {pair[1]} are two ways to the labels: choose one"
            )
        kept = {"label_view=center", "fixed_labels"} & set(chosen)
        if self.label_init == "clusters":
            kept.add("label_init=clusters")
        if self.label_source == "step" and kept:
            raise ValueError(
                f"method_kwargs.{kept.pop()} needs labels that are kept: set label_source=bank"
            )

    def _check_swap(self) -> None:
        """Refuse what only goes with label_source=swap, and what does not."""
        if self.label_source == "swap":
            if self.fixed_labels is not None:
                raise ValueError(
                    "method_kwargs.fixed_labels are labels that never change, label_source=swap "
                    "makes new ones in every step: learn from the file with a recipe that keeps "
                    "labels, as --config-name custom/uic_paper"
                )
            if self.instance_share and self.balanced_sampling:
                raise ValueError(
                    "method_kwargs.instance_share needs every image at most once in a batch, "
                    "balanced_sampling=true repeats some: set it to false, or instance_share=0"
                )
            return
        for name in ("instance_share", "small_crops"):
            if getattr(self, name):
                raise ValueError(
                    f"method_kwargs.{name} needs label_source=swap: set that, or {name}=0"
                )
