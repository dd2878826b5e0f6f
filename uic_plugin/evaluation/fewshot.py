"""Few-shot classification on frozen features: the class whose mean is nearest (UIC, Table 6).

    features, classes = ...                                    # (N, D), (N,), computed once
    result = evaluate_episodes(features, classes, EpisodeSettings(ways=5, shots=5))
    result.mean, result.interval                               # percent, 95 %

Source: Snell et al., Prototypical Networks, 2017, section 2.2, without any training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from uic_plugin.evaluation.episode_settings import EpisodeSettings
from uic_plugin.seeding import derive_seed


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy over episodes.

    Attributes:
        accuracies: (E,) float64 of each episode, in percent.
        mean: their mean.
        interval: half of the 95 % confidence interval of the mean, 1.96 standard errors.
    """

    accuracies: np.ndarray

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return float(self.accuracies.mean())

    @property
    def interval(self) -> float:
        """Half the width of the interval, in percent."""
        count = len(self.accuracies)
        return float(1.96 * self.accuracies.std(ddof=1) / math.sqrt(count))


def check_classes(classes: np.ndarray, names: list[str], settings: EpisodeSettings) -> None:
    """Refuse a set of images that no episode can be drawn from.

    Args:
        classes: (N,) class of each image.
        names: names of the classes.
        settings: of the episodes.

    Raises:
        ValueError: for too few classes, or too few images of a class, which it names.
    """
    if len(names) < settings.ways:
        raise ValueError(f"--ways {settings.ways} classes an episode, the images have {len(names)}")
    sizes = np.bincount(classes, minlength=len(names))
    needed = settings.shots + settings.queries
    smallest = int(sizes.argmin())
    if sizes[smallest] < needed:
        raise ValueError(
            f"class {names[smallest]!r} has {sizes[smallest]} images, an episode takes "
            f"{settings.shots} shots and {settings.queries} queries of a class: lower --shots or "
            f"--queries, or leave the class out"
        )


def draw_episode(
    members: list[np.ndarray], settings: EpisodeSettings, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the images of one episode.

    Args:
        members: image numbers of each class.
        settings: of the episodes.
        number: index of the episode.

    Returns:
        (ways, shots) and (ways, queries) image numbers, all different.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "episode", number))
    chosen = rng.choice(len(members), settings.ways, replace=False)
    count = settings.shots + settings.queries
    drawn = np.stack([rng.choice(members[c], count, replace=False) for c in chosen])
    return drawn[:, : settings.shots], drawn[:, settings.shots :]


@torch.no_grad()
def evaluate_episodes(
    features: torch.Tensor, classes: np.ndarray, settings: EpisodeSettings
) -> FewShotResult:
    """Return the accuracy of the nearest class mean over random episodes.

    Args:
        features: (N, D) frozen features, of any float type, optionally memory-mapped.
        classes: (N,) class of each image, from 0.
        settings: of the episodes.

    Raises:
        ValueError: for shapes that do not match.
    """
    if features.ndim != 2 or len(features) != len(classes):
        raise ValueError(
            f"features of shape {tuple(features.shape)} are not of {len(classes)} images"
        )
    members = [np.flatnonzero(classes == c) for c in range(int(classes.max()) + 1)]
    members = [images for images in members if len(images)]
    truth = torch.arange(settings.ways).repeat_interleave(settings.queries)
    accuracies = np.empty(settings.episodes)
    for number in range(settings.episodes):
        support, query = draw_episode(members, settings, number)
        rows = features[torch.from_numpy(np.concatenate([support.ravel(), query.ravel()]))].float()
        answers = nearest_mean(
            rows[: support.size].view(settings.ways, settings.shots, -1),
            rows[support.size :],
            settings.distance,
        )
        accuracies[number] = 100 * float((answers == truth).double().mean())
    return FewShotResult(accuracies)


def nearest_mean(
    support: torch.Tensor, query: torch.Tensor, distance: str = "euclidean"
) -> torch.Tensor:
    """Return the class of each query whose mean of supports is nearest, (Q,) int64.

    Args:
        support: (ways, shots, D).
        query: (Q, D).
        distance: one of `DISTANCES`.
    """
    prototypes = support.mean(1)
    if distance == "cosine":
        return (F.normalize(query, dim=1) @ F.normalize(prototypes, dim=1).T).argmax(1)
    return torch.cdist(query, prototypes).argmin(1)
