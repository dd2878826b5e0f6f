"""Find classes in features: neighbours, k-means, training, and a vote of the heads of lowest loss.

    found = discover(features, 30, DiscoverySettings())
    found.answers.labels                                       # (N,)

Intermediate results are kept in an optional work folder until the end: a search that was stopped
resumes from there, with the results of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from uic_plugin.discovery.balance import Balance
from uic_plugin.discovery.candidates import HeadSearch
from uic_plugin.discovery.choice import ClassCount, choose_count
from uic_plugin.discovery.correction import Corrected
from uic_plugin.discovery.heads import HeadBank
from uic_plugin.discovery.model import (
    Answers,
    ClassModel,
    aligned_heads,
    class_means,
    head_labels,
    voted_labels,
)
from uic_plugin.discovery.preparation import prepare, within_classes
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.discovery.training import TrainingState, finite_order
from uic_plugin.discovery.work import Prepared, Progress, WorkFolder

_HASHED = 16_384  # rows at once
_KEPT_FORM = 2  # of intermediate results; those of another form are made anew


@dataclass(frozen=True)
class Found:
    """Classes.

    Attributes:
        model: labels images by their features.
        answers: for the features that the classes were found in.
        losses: of the heads, lowest first; the first is that of the model's first head.
        agreement: of the heads with the answer, mean over images and heads, in [0, 1].
        count: how the number of classes was chosen; None if it was given.
        balance: how their sizes were decided; None if `balance` was given.
    """

    model: ClassModel
    answers: Answers
    losses: list[float]
    agreement: float
    count: ClassCount | None
    balance: Balance | None = None


def check_count(num_images: int, num_classes: int | None) -> None:
    """Refuse images that cannot be divided into classes.

    Raises:
        ValueError: for fewer than two images or classes, or fewer images than classes.
    """
    if num_images < 2:
        raise ValueError(f"{num_images} image cannot be divided into classes: give at least 2")
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"--classes must be at least 2, or auto, got {num_classes}")
    if num_classes is not None and num_images < num_classes:
        raise ValueError(
            f"{num_images} images cannot be divided into {num_classes} classes: choose at most "
            f"--classes {num_images}"
        )


def discover(
    features: np.ndarray,
    num_classes: int | None,
    settings: DiscoverySettings,
    *,
    corrected: Corrected | None = None,
    about: dict[str, str | int | None] | None = None,
    work: Path | None = None,
    keep_work: bool = False,
    progress: Progress = lambda title, done, total: None,
) -> Found:
    """Divide images into classes by their features.

    Args:
        features: (N, D) of any float type, optionally memory-mapped.
        num_classes: K; None to choose it, or to use that of `corrected`.
        settings: of the search.
        corrected: classes to start from, whose numbers and names are kept; hidden ones stay so.
        about: description of the features' network, saved with the model.
        work: folder of intermediate results; removed at the end.
        keep_work: leave it there, for a caller who may be stopped behind this.
        progress: called with a title, the number of steps done, and of all.

    Raises:
        ValueError: for images that cannot be divided, see `check_count` and `fit_reduction`; if
            all heads diverge.
        FileExistsError: if `work` holds files of something else.
    """
    if corrected is not None:
        num_classes = corrected.num_classes
    check_count(len(features), num_classes)
    folder = None if work is None else WorkFolder(work, identity_of(features, settings, corrected))
    prepared = prepare(features, settings, folder, progress)
    count = None
    if num_classes is None:
        count = _chosen(prepared, settings, folder, progress)
        num_classes = count.chosen
    prepared = within_classes(prepared, num_classes)
    search = HeadSearch(prepared, num_classes, settings, folder, progress, corrected)
    trained = search.trained()
    order = finite_order(trained.losses)
    model = _model_of(trained.state, order, trained.prepared, settings, corrected, about or {})
    answers = model(features)
    if corrected is not None:  # a person's correction decides an image's class
        rows = np.flatnonzero(corrected.moved)
        if len(rows):
            answers.replace(rows, model(features[rows], corrected.labels[rows]))
    if work is not None and not keep_work:
        shutil.rmtree(work, ignore_errors=True)
    losses: list[float] = trained.losses[order].tolist()
    return Found(model, answers, losses, float(answers.agreement.mean()), count, trained.balance)


def _chosen(
    prepared: Prepared,
    settings: DiscoverySettings,
    folder: WorkFolder | None,
    progress: Progress,
) -> ClassCount:
    """Choose the number of classes, resuming from the work folder."""
    return choose_count(
        prepared.reduced,
        prepared.neighbours,
        settings,
        known=[] if folder is None else folder.read_curve(),
        save=(lambda _: None) if folder is None else folder.write_curve,
        progress=progress,
    )


def _model_of(
    state: TrainingState,
    order: list[int],
    prepared: Prepared,
    settings: DiscoverySettings,
    corrected: Corrected | None,
    about: dict[str, str | int | None],
) -> ClassModel:
    """Return the trained heads as a model, the best first, with the same classes in all of them."""
    heads = state.teacher.some(order)  # of corrected classes all have the same class numbers
    if corrected is None:
        labels = head_labels(state.teacher, prepared.reduced)
        heads = aligned_heads(state.teacher, labels, order)
    heads.requires_grad_(False)
    voted = voted_labels(heads, settings.voters(), prepared.reduced)
    if corrected is None:
        voted = _numbered_by_size(heads, voted)
    means = class_means(prepared.reduced, voted, heads.classes[0])
    given = () if corrected is None else (corrected.names, corrected.hidden)
    return ClassModel(prepared.reduction, heads, settings.voters(), means, about, *given)


def _numbered_by_size(heads: HeadBank, voted: torch.Tensor) -> torch.Tensor:
    """Renumber the classes of all heads, the largest of the vote first; return its labels (N,)."""
    count = heads.classes[0]
    order = torch.bincount(voted, minlength=count).argsort(descending=True, stable=True)
    heads.reorder(order.expand(len(heads.classes), -1))
    return order.argsort()[voted]


def identity_of(
    features: np.ndarray, settings: DiscoverySettings, corrected: Corrected | None
) -> str:
    """Return what a search is of: a hash of the settings, the features and corrected classes."""
    digest = hashlib.blake2b(digest_size=16)
    about = [_KEPT_FORM, features.shape, str(features.dtype), dataclasses.asdict(settings)]
    said = json.dumps(about)
    digest.update(said.encode())
    for first in range(0, len(features), _HASHED):
        digest.update(np.ascontiguousarray(features[first : first + _HASHED]).data)
    if corrected is not None:
        digest.update(corrected.labels.tobytes() + corrected.moved.tobytes())
    return digest.hexdigest()
