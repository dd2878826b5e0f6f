"""Start a search from classes that people have corrected.

The heads start from the means of the corrected classes instead of k-means. Images that a person has
moved keep their class: it replaces the teacher's answer, so that their neighbours learn it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from uic_plugin.data.labels import LabelTable
from uic_plugin.seeding import make_generator

_SURE = 0.98  # probability that the teacher gives a person's class
_CHUNK = 16_384


@dataclass(frozen=True)
class Corrected:
    """Corrected classes of N images, in the order of their features.

    Attributes:
        labels: (N,) int64 classes in [0, K), -1 for an image without one.
        moved: (N,) bool, whether a person has moved the image to its class; it has one.
        names: names of classes.
        hidden: classes that people have hidden.
    """

    labels: np.ndarray
    moved: np.ndarray
    names: dict[int, str] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.labels.max(initial=-1)) + 1

    def anchors(self) -> torch.Tensor:
        """Return the class of each moved image, (N,) int64, -1 for all others."""
        return torch.from_numpy(np.where(self.moved, self.labels, -1))


def read_corrections(table: LabelTable, images: list[str], source: str) -> Corrected:
    """Return the classes of a label file in the order of some images.

    A moved image is in another class than most images of its class before the edits
    (`source_label`). Images marked as wrong have no class.

    Args:
        table: the label file.
        images: N paths.
        source: name of the file, for errors.

    Raises:
        ValueError: if no image has a label, or a class has no image.
    """
    row_of = {path: row for row, path in enumerate(table.paths)}
    rows = np.asarray([row_of.get(path, -1) for path in images], np.int64)
    if not (rows >= 0).any():
        raise ValueError(f"--from {source} has labels of none of these {len(images)} images")
    labels = np.where(table.marked("wrong"), -1, table.labels)
    moved = _moved(table) & (labels >= 0)
    found = Corrected(
        np.where(rows >= 0, labels[rows], -1),
        (rows >= 0) & moved[rows],
        table.names,
        table.hidden,
    )
    sizes = np.bincount(found.labels[found.labels >= 0], minlength=found.num_classes)
    empty = np.flatnonzero(sizes == 0)
    if found.num_classes < 2 or len(empty):
        raise ValueError(
            f"--from {source} has {found.num_classes} classes of these images, "
            f"{len(empty)} of them empty: at least 2 are needed, none of them empty "
            f"({_way_out(np.setdiff1d(table.labels[rows[rows >= 0]], found.labels))})"
        )
    return found


def _way_out(wrong: np.ndarray) -> str:
    """Return what leaves no class empty, where all images of some classes are marked as wrong."""
    if not len(wrong):
        return "'uic labels apply' numbers them without gaps"
    return (
        f"all images of class {wrong[0]} are marked as wrong, and these have no class: 'uic labels "
        f"apply --wrong drop' leaves it out"
    )


def _moved(table: LabelTable) -> np.ndarray:
    """Return which images are in another class than most of their class before the edits, (N,)."""
    before = table.extra.get("source_label")
    if before is None or before.dtype.kind != "i" or not len(table):
        return np.zeros(len(table), bool)
    _, old = np.unique(before, return_inverse=True)
    counts = np.zeros((int(old.max()) + 1, int(table.labels.max()) + 1), np.int64)
    np.add.at(counts, (old, table.labels), 1)
    return counts.argmax(1)[old] != table.labels


def corrected_means(
    reduced: torch.Tensor, corrected: Corrected, heads: int, *, seed: int
) -> list[torch.Tensor]:
    """Return unit means of the corrected classes, one (K, d) for each head.

    Every head weighs the images by its own random draws (a bootstrap), so that heads differ and
    their agreement measures confidence; moved images count at least once.

    Args:
        reduced: (N, d) features of unit length.
        corrected: their classes.
        heads: number of heads.
        seed: of the weights.
    """
    labels = torch.from_numpy(corrected.labels)
    moved = torch.from_numpy(corrected.moved)
    means = []
    for head in range(heads):
        generator = make_generator(seed, "corrected means", head)
        weights = torch.poisson(torch.ones(len(labels)), generator=generator)
        weights = torch.where(moved, weights.clamp_min(1), weights)
        sums = torch.zeros(corrected.num_classes, reduced.shape[1])
        for first in range(0, len(labels), _CHUNK):
            part = slice(first, first + _CHUNK)
            known = labels[part] >= 0
            rows = reduced[part][known].float() * (weights[part][known, None] + 1e-3)
            sums.index_add_(0, labels[part][known], rows)
        means.append(torch.nn.functional.normalize(sums, dim=1))
    return means


def anchor_answers(answers: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Replace the teacher's answers to moved images by the person's.

    Args:
        answers: (B, H, K) log probabilities; modified and returned.
        classes: (B,) class of a moved image, -1 for all others.
    """
    moved = torch.nonzero(classes >= 0).squeeze(1)
    rest = math.log((1 - _SURE) / max(answers.shape[2] - 1, 1))
    sure = torch.full((len(moved), *answers.shape[1:]), rest)
    sure.scatter_(2, classes[moved, None, None].expand(-1, answers.shape[1], 1), math.log(_SURE))
    answers[moved] = sure
    return answers
