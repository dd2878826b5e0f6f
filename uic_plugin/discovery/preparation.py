"""Prepare features for a search: components and neighbours, for classes of equal size evened out.

Where classes are of equal size, they often differ in other components than those that spread most,
and holding these back finds better ones. Of classes of very different size it makes small ones
look large.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from uic_plugin.discovery.neighbours import nearest_neighbours
from uic_plugin.discovery.reduction import fit_reduction, reduce_features
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.discovery.work import Prepared, Progress, WorkFolder

_CHUNK = 16_384


def prepare(
    features: np.ndarray,
    settings: DiscoverySettings,
    folder: WorkFolder | None,
    progress: Progress,
) -> Prepared:
    """Return principal components and neighbours, from the work folder if they are there."""
    kept = None if folder is None else folder.read_prepared()
    if kept is not None:
        return kept
    reduction = fit_reduction(features, settings.dims, seed=settings.seed)
    reduced = reduce_features(features, reduction)
    neighbours = nearest_neighbours(
        reduced,
        settings.neighbours,
        seed=settings.seed,
        progress=lambda done, total: progress("neighbours", done, total),
    )
    prepared = Prepared(reduction, reduced, neighbours)
    if folder is not None:
        folder.write_prepared(prepared)
    return prepared


def evened(
    prepared: Prepared,
    settings: DiscoverySettings,
    folder: WorkFolder | None,
    progress: Progress,
) -> Prepared:
    """Return components of more equal spread and their neighbours, as many as in `prepared`."""
    count = prepared.neighbours.shape[1]  # depends on the number of classes
    name = f"evened-{count}"
    kept = None if folder is None else folder.read_prepared(name)
    if kept is not None:
        return kept
    factor = prepared.reduction.evening()
    reduced = torch.empty_like(prepared.reduced)
    for first in range(0, len(reduced), _CHUNK):
        part = slice(first, first + _CHUNK)
        rows = prepared.reduced[part].float() * factor
        reduced[part] = torch.nn.functional.normalize(rows, dim=1)
    neighbours = nearest_neighbours(
        reduced,
        count,
        seed=settings.seed,
        progress=lambda done, total: progress("neighbours for equal classes", done, total),
    )
    even = Prepared(prepared.reduction.evened(), reduced, neighbours)
    if folder is not None:
        folder.write_prepared(even, name)
    return even


def within_classes(prepared: Prepared, num_classes: int) -> Prepared:
    """Leave each image no more neighbours than half of an average class.

    In a small folder the others are of other classes, and their classes would become one.
    """
    most = max(1, len(prepared.reduced) // (2 * num_classes))
    if most >= prepared.neighbours.shape[1]:
        return prepared
    return dataclasses.replace(prepared, neighbours=prepared.neighbours[:, :most].contiguous())
