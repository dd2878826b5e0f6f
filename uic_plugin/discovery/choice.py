"""Choose the number of classes at which an image's class tells most about its neighbour's.

The soft loss estimates the negative mutual information, in nats, between the class of an image and
that of its neighbour. With too few classes there is little information; with too many, neighbours
are in different classes. Around its highest point the curve is flat and noisy, so that the fewest
classes with nearly as much information are chosen. The agreement between heads from different
starts is reported as well; it peaks near the same K if the images do have such classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from uic_plugin.discovery.model import head_labels
from uic_plugin.discovery.neighbours import spherical_kmeans
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.discovery.training import finite_order, first_state, judge_heads, train_heads
from uic_plugin.seeding import derive_seed

_HEADS = 6  # per K
_RATIO = 1.35  # between successive K
_MOST = 1000
_IMAGES_A_CLASS = 8  # at least, on average
_ENOUGH = 0.98  # of the highest information
_PATIENCE = 3  # values of K without a lower loss, after which the search stops


@dataclass(frozen=True)
class CurvePoint:
    """Loss and agreement of a number of classes.

    Attributes:
        classes: K.
        loss: of the best head, in nats; lower is better.
        agreement: adjusted Rand index between heads from different starts, mean over pairs.
    """

    classes: int
    loss: float
    agreement: float


@dataclass(frozen=True)
class ClassCount:
    """A chosen number of classes.

    Attributes:
        chosen: the smallest K with nearly the lowest loss.
        curve: all numbers tried, ascending.
    """

    chosen: int
    curve: list[CurvePoint]

    def explanation(self) -> str:
        """Return a line for a user."""
        points = {point.classes: point for point in self.curve}
        best = min(self.curve, key=lambda p: p.loss)
        most = max(self.curve, key=lambda p: p.agreement)
        told = f"neighbours tell most about each other's class there ({-best.loss:.3f} nats)"
        if best.classes != self.chosen:
            told = (
                f"the fewest at which neighbours tell nearly most about each other's class "
                f"({-points[self.chosen].loss:.3f} nats; {best.classes} classes {-best.loss:.3f})"
            )
        return (
            f"{self.chosen} classes: {told}; heads agree best at {most.classes} "
            f"(adjusted Rand index {most.agreement:.2f})"
        )


def choose_count(
    reduced: torch.Tensor,
    neighbours: torch.Tensor,
    settings: DiscoverySettings,
    *,
    known: Sequence[CurvePoint] = (),
    save: Callable[[list[CurvePoint]], None] = lambda curve: None,
    progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> ClassCount:
    """Try numbers of classes, with fewer heads and epochs than in `settings`.

    Args:
        reduced: (N, d) features of unit length.
        neighbours: (N, k) other images of each.
        settings: of the search.
        known: points of a stopped search.
        save: called with the curve after each K.
        progress: called with a title before each K.

    Raises:
        ValueError: if all heads of a K diverge.
    """
    # an older program kept losses that are no numbers
    computed = {point.classes: point for point in known if math.isfinite(point.loss)}
    curve: dict[int, CurvePoint] = {}  # of this call: what is refined must not depend on a stop

    def value(classes: int) -> CurvePoint:
        if classes not in computed:
            progress(f"classes: {classes}", 0, 1)
            computed[classes] = _try(reduced, neighbours, settings, classes)
            save(list(computed.values()))
        curve[classes] = computed[classes]
        return curve[classes]

    since = 0
    best: CurvePoint | None = None
    for classes in _grid(len(reduced)):
        point = value(classes)
        since = 0 if best is None or point.loss < best.loss else since + 1
        if since == 0:
            best = point
        if since == _PATIENCE:
            break
    _refine(curve, value)
    chosen = _fewest(curve, value)
    return ClassCount(chosen, sorted(curve.values(), key=lambda point: point.classes))


def _grid(num_images: int) -> Iterator[int]:
    most = max(2, min(_MOST, num_images // _IMAGES_A_CLASS))
    classes = 2
    while classes < most:
        yield classes
        classes = max(classes + 1, math.floor(classes * _RATIO))
    yield most


def _refine(curve: dict[int, CurvePoint], value: Callable[[int], CurvePoint]) -> None:
    """Halve the gaps beside the best K until they are below a tenth of it."""
    while True:
        tried = sorted(curve)
        best = min(tried, key=lambda classes: curve[classes].loss)
        number = tried.index(best)
        beside = tried[max(0, number - 1) : number + 2]
        gaps = [(a, b) for a, b in itertools.pairwise(beside) if b - a > max(1, best // 10)]
        if not gaps:
            return
        for low, high in gaps:
            value((low + high) // 2)


def _fewest(curve: dict[int, CurvePoint], value: Callable[[int], CurvePoint]) -> int:
    """Return the smallest K with nearly the best's information, halving the gap below it, too."""
    while True:
        tried = sorted(curve)
        wanted = max(-point.loss for point in curve.values())
        wanted *= _ENOUGH if wanted > 0 else 1
        chosen = next(classes for classes in tried if -curve[classes].loss >= wanted)
        below = max((classes for classes in tried if classes < chosen), default=chosen)
        if chosen - below <= max(1, chosen // 10):
            return chosen
        value((below + chosen) // 2)


def _try(
    reduced: torch.Tensor, neighbours: torch.Tensor, settings: DiscoverySettings, classes: int
) -> CurvePoint:
    from sklearn.metrics import adjusted_rand_score

    most = max(1, settings.max_steps // 4)
    quick = dataclasses.replace(
        settings,
        heads=_HEADS,
        head="linear",
        labels="soft",
        balance=1.0,  # only then the loss is the negative information
        epochs=max(1, settings.epochs // 2),
        min_steps=min(settings.min_steps, most),
        max_steps=most,
    )
    centroids = [
        spherical_kmeans(reduced, classes, seed=derive_seed(settings.seed, "count", classes, head))
        for head in range(quick.heads)
    ]
    state = first_state(centroids, quick, seed=settings.seed)
    train_heads(state, reduced, neighbours, quick)
    losses = judge_heads(state.teacher, state.prior, reduced, neighbours, quick)
    kept = finite_order(losses)
    sample = torch.linspace(0, len(reduced) - 1, min(len(reduced), 10_000)).long()
    labels = head_labels(state.teacher, reduced[sample]).numpy()
    pairs = itertools.combinations(sorted(kept), 2)
    scores = [adjusted_rand_score(labels[:, a], labels[:, b]) for a, b in pairs]
    return CurvePoint(classes, float(losses[kept[0]]), sum(scores) / max(len(scores), 1))
