"""What an episode of few-shot classification is made of."""

from __future__ import annotations

from dataclasses import dataclass

DISTANCES = ("euclidean", "cosine")


@dataclass(frozen=True)
class EpisodeSettings:
    """Size, number and distance of the episodes.

    Attributes:
        ways: classes of an episode, at least 2.
        shots: labelled images per class.
        queries: images per class to be classified.
        episodes: number of episodes, at least 2.
        distance: "euclidean", or "cosine" between unit vectors.
        seed: of the draws; (seed, episode) decides an episode.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    episodes: int = 600
    distance: str = "euclidean"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("ways", 2), ("shots", 1), ("queries", 1), ("episodes", 2)):
            if getattr(self, name) < lowest:
                raise ValueError(f"--{name} must be at least {lowest}, got {getattr(self, name)}")
        if self.distance not in DISTANCES:
            raise ValueError(
                f"--distance must be one of {', '.join(DISTANCES)}, got {self.distance!r}"
            )
