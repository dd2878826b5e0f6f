"""Many heads start, those of lowest loss are kept and trained further.

A head stays near the k-means that it was initialised with, so that the share of good heads is that
of good starts; an eighth of the training tells them apart. Corrected classes are a single start,
without further candidates.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from uic_plugin.discovery.balance import (
    EQUAL,
    OWN,
    Balance,
    class_shares,
    decide_balance,
)
from uic_plugin.discovery.correction import Corrected, corrected_means
from uic_plugin.discovery.neighbours import spherical_kmeans
from uic_plugin.discovery.preparation import evened
from uic_plugin.discovery.settings import AUTO, DiscoverySettings
from uic_plugin.discovery.training import (
    TrainingState,
    finite_order,
    first_state,
    judge_heads,
    train_heads,
)
from uic_plugin.discovery.work import Prepared, Progress, WorkFolder
from uic_plugin.seeding import derive_seed

_SAVE_EVERY = 100  # steps


@dataclass(frozen=True)
class Trained:
    """Trained heads.

    Attributes:
        state: of the heads that were kept.
        losses: (H,) of these heads.
        prepared: the components that they read.
        balance: how their balance was decided; None if it was given.
    """

    state: TrainingState
    losses: torch.Tensor
    prepared: Prepared
    balance: Balance | None


@dataclass(frozen=True)
class HeadSearch:
    """A search for heads of a number of classes.

    Args:
        prepared: features and neighbours.
        num_classes: K.
        settings: of the search.
        folder: for intermediate results, from which a stopped search resumes; or None.
        progress: called with a title, the number of steps done, and of all.
        corrected: classes to start from, or None.
    """

    prepared: Prepared
    num_classes: int
    settings: DiscoverySettings
    folder: WorkFolder | None
    progress: Progress
    corrected: Corrected | None = None

    def trained(self) -> Trained:
        """Return trained heads, those of lowest loss among many candidates."""
        settings, balance, tried = self._decided()
        if settings.exponent() != EQUAL:
            return self._trained(settings, balance, tried)
        even = evened(self.prepared, settings, self.folder, self.progress)
        return dataclasses.replace(self, prepared=even)._trained(settings, balance, tried)

    def _trained(
        self, settings: DiscoverySettings, balance: Balance | None, tried: TrainingState | None
    ) -> Trained:
        state = self._kept("heads", settings)
        if state is None and self.corrected is not None:
            means = corrected_means(
                self.prepared.reduced, self.corrected, settings.heads, seed=settings.seed
            )
            state = first_state(means, settings, seed=settings.seed)
        if state is None:
            tried = tried or self._candidates(settings)
            best = finite_order(self._losses(tried, settings))[: settings.heads]
            state = TrainingState(
                tried.student.some(best),
                tried.teacher.some(best).requires_grad_(False),
                tried.prior[best].clone(),
            )
        self._train("heads", state, settings)
        return Trained(state, self._losses(state, settings), self.prepared, balance)

    def _decided(self) -> tuple[DiscoverySettings, Balance | None, TrainingState | None]:
        """Return settings whose balance is a number, and candidates, where some decided it."""
        if self.settings.balance != AUTO:
            return self.settings, None, None
        own = dataclasses.replace(self.settings, balance=OWN)
        if self.corrected is not None:
            return own, Balance(OWN, smallest=None), None
        balance = None if self.folder is None else self.folder.read_balance(self.num_classes)
        tried = None
        soft = dataclasses.replace(own, labels="soft")  # hard ones even out the sizes
        if balance is None:
            tried = self._candidates(soft)
            best = finite_order(self._losses(tried, soft))[: own.heads]
            balance = decide_balance(class_shares(tried.teacher.some(best), self.prepared.reduced))
            if self.folder is not None:  # near the border another number of threads may matter
                self.folder.write_balance(balance, self.num_classes)
        settings = dataclasses.replace(self.settings, balance=balance.exponent)
        return settings, balance, tried if settings == soft else None

    def _candidates(self, settings: DiscoverySettings) -> TrainingState:
        """Return many heads that each started from another k-means, after an eighth of training."""
        trial = settings.trial(len(self.prepared.reduced), self.num_classes)
        kind = "" if settings.labels == "soft" else f", {settings.labels} labels"
        stage = f"first heads, balance {settings.exponent():g}{kind}"
        state = self._kept(stage, trial)
        if state is None:
            state = first_state(self._starts, trial, seed=trial.seed)
        return self._train(stage, state, trial)

    @cached_property
    def _starts(self) -> list[torch.Tensor]:
        """A k-means for each candidate, (K, d), whatever the balance."""
        trial = self.settings.trial(len(self.prepared.reduced), self.num_classes)
        return [
            spherical_kmeans(
                self.prepared.reduced,
                self.num_classes,
                seed=derive_seed(trial.seed, "head", self.num_classes, head),
            )
            for head in range(trial.heads)
        ]

    def _train(
        self, stage: str, state: TrainingState, settings: DiscoverySettings
    ) -> TrainingState:
        return train_heads(
            state,
            self.prepared.reduced,
            self.prepared.neighbours,
            settings,
            anchors=None if self.corrected is None else self.corrected.anchors(),
            save=_nothing if self.folder is None else partial(self.folder.write_state, stage),
            save_every=_SAVE_EVERY,
            progress=partial(self.progress, stage),
        )

    def _kept(self, stage: str, settings: DiscoverySettings) -> TrainingState | None:
        """Return what a stopped search has kept of a stage, if anything."""
        if self.folder is None:
            return None
        return self.folder.read_state(stage, self.num_classes, settings)

    def _losses(self, state: TrainingState, settings: DiscoverySettings) -> torch.Tensor:
        """Return the loss of each head, (H,)."""
        return judge_heads(
            state.teacher, state.prior, self.prepared.reduced, self.prepared.neighbours, settings
        )


def _nothing(state: TrainingState) -> None:
    """Keep nothing."""
