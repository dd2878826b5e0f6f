"""Train heads on features: the label of an image comes from one of its neighbours.

An image's other view is one of its nearest neighbours; its label is the answer to that view of a
teacher, the running mean of the heads' weights, divided by each class's running share so that no
class becomes over-represented. All heads train in the same steps, on the same pairs; those of
lowest loss are kept.

Sources: UIC, Eq. 7 (the label comes from another view, classes are balanced); Adaloglou et al.,
"Exploring the limits of deep image clustering using pretrained models", BMVC 2023, Eq. 4 to 8
(neighbours as views, the soft loss, weights of pairs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from uic_plugin.discovery.correction import anchor_answers
from uic_plugin.discovery.heads import HeadBank
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.seeding import make_generator

_PRIOR_MEMORY = 0.9  # momentum of the running shares of the classes
_LEAST_SHARE = 1e-6  # lower bound of a class's share


@dataclass
class TrainingState:
    """Everything that a resumed training needs.

    Attributes:
        student, teacher: the heads.
        prior: (H, K) running share of each class.
        optimizer: its state, None before the first step.
        step: number of steps done.
    """

    student: HeadBank
    teacher: HeadBank
    prior: torch.Tensor
    optimizer: dict | None = None
    step: int = 0


def first_state(
    centroids: list[torch.Tensor], settings: DiscoverySettings, *, seed: int
) -> TrainingState:
    """Return heads that answer as k-means does, and classes of equal share."""
    student = HeadBank.from_centroids(
        centroids,
        temperature=settings.temperature,
        hidden=settings.hidden if settings.head == "mlp" else 0,
        generator=make_generator(seed, "hidden layers"),
    )
    counts = torch.tensor(student.classes)[:, None].float()
    prior = torch.where(student.absent, 0.0, 1 / counts)
    return TrainingState(student, student.frozen_copy(), prior)


def train_heads(
    state: TrainingState,
    reduced: torch.Tensor,
    neighbours: torch.Tensor,
    settings: DiscoverySettings,
    *,
    anchors: torch.Tensor | None = None,
    save: Callable[[TrainingState], None] = lambda state: None,
    save_every: int = 200,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingState:
    """Train all heads, resuming from `state`.

    Args:
        state: modified and returned.
        reduced: (N, d) features of unit length.
        neighbours: (N, k) other images of each.
        settings: of the training.
        anchors: (N,) int64 classes given by people, -1 for none; see `correction`.
        save: called with the state every `save_every` steps and at the end.
        save_every: number of steps.
        progress: called with the number of steps done, and of all.
    """
    total = settings.steps(len(reduced))
    optimizer = torch.optim.AdamW(
        state.student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    while state.step < total:
        images, others = _pairs(neighbours, settings, state.step)
        pair = torch.cat([reduced[images], reduced[others]]).float()
        logits = state.student(pair)
        with torch.no_grad():
            answers = state.teacher(pair).log_softmax(2)
            if anchors is not None:
                anchor_answers(answers, anchors[torch.cat([images, others])])
            _follow_shares(state.prior, answers)
            gradient = _gradient(logits.log_softmax(2), answers, state.prior, settings)
        optimizer.zero_grad(set_to_none=True)
        logits.backward(gradient)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(state.teacher.parameters()),
                list(state.student.parameters()),
                1 - settings.ema,
            )
        state.step += 1
        if state.step % save_every == 0 or state.step == total:
            state.optimizer = optimizer.state_dict()
            save(state)
        progress(state.step, total)
    return state


def _pairs(
    neighbours: torch.Tensor, settings: DiscoverySettings, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of a step and one neighbour of each, decided by (seed, step) alone."""
    count, most = neighbours.shape
    size = min(settings.batch_size, count)
    batches = max(1, count // size)
    order = make_generator(settings.seed, "order", step // batches)
    images = torch.randperm(count, generator=order)[(step % batches) * size :][:size]
    draw = torch.randint(most, (size,), generator=make_generator(settings.seed, "pair", step))
    return images, neighbours[images, draw].long()


def _follow_shares(prior: torch.Tensor, answers: torch.Tensor) -> None:
    shares = answers.exp().mean(0)
    prior.mul_(_PRIOR_MEMORY).add_(shares, alpha=1 - _PRIOR_MEMORY)


def balanced_labels(
    log_p: torch.Tensor, others: torch.Tensor, prior: torch.Tensor, settings: DiscoverySettings
) -> torch.Tensor:
    """Return pseudo labels of images from the teacher's answers to their neighbours, (B, H, K).

    A soft label is proportional to (student x teacher) ** beta / prior ** balance: likely by both,
    relative to the class's share. A hard label depends on the teacher only.

    Args:
        log_p: (B, H, K) log probabilities of the student for the images.
        others: (B, H, K) those of the teacher for a neighbour of each.
        prior: (H, K) share of each class.
        settings: `labels`, `balance`, `beta`.
    """
    log_prior = settings.exponent() * prior.clamp_min(_LEAST_SHARE).log()
    if settings.labels == "hard":
        labels = (others - log_prior).argmax(2, keepdim=True)
        return torch.zeros_like(others).scatter_(2, labels, 1)
    return ((log_p + others).mul_(settings.beta).sub_(log_prior)).softmax(2)


def _gradient(
    log_p: torch.Tensor, answers: torch.Tensor, prior: torch.Tensor, settings: DiscoverySettings
) -> torch.Tensor:
    """Return the derivative of the sum over heads of the mean `pair_loss` by the student's logits.

    It is that of a cross entropy with the balanced labels, times beta and the weight of the pair:
    in closed form it takes half of autograd's time. Heads do not depend on each other, so that
    their sum trains each of them separately.
    """
    labels = balanced_labels(log_p, _swapped(answers), prior, settings)
    gradient = log_p.exp().sub_(labels)
    scale = 1 / len(log_p)
    if settings.labels == "soft":
        weight = pair_weights(answers).mul_(settings.beta * scale)
        return gradient.mul_(torch.cat([weight, weight])[:, :, None])
    return gradient.mul_(scale)


def pair_weights(answers: torch.Tensor) -> torch.Tensor:
    """Return how likely a pair is of one class, by the mean of all teachers, (B, 1) in [0, 1]."""
    half = len(answers) // 2
    same = (answers[:half] + answers[half:]).exp_().sum(2)
    return same.mean(1, keepdim=True)


def _swapped(answers: torch.Tensor) -> torch.Tensor:
    half = len(answers) // 2
    return torch.cat([answers[half:], answers[:half]])


def pair_loss(
    log_p: torch.Tensor, answers: torch.Tensor, prior: torch.Tensor, settings: DiscoverySettings
) -> torch.Tensor:
    """Return the loss of each pair and head, (B, H): the mean over both directions.

    Args:
        log_p: (2B, H, K) log probabilities of the heads: B images, then a neighbour of each.
        answers: (2B, H, K) those of the teacher.
        prior: (H, K) share of each class.
        settings: `labels`, `balance`, `beta`.
    """
    half = len(log_p) // 2
    others = _swapped(answers)
    if settings.labels == "hard":
        labels = balanced_labels(log_p, others, prior, settings)
        loss = -(labels * log_p).sum(2)
        return (loss[:half] + loss[half:]) / 2
    log_prior = settings.exponent() * prior.clamp_min(_LEAST_SHARE).log()
    loss = -((log_p + others) * settings.beta - log_prior).logsumexp(2)
    return pair_weights(answers) * (loss[:half] + loss[half:]) / 2


@torch.no_grad()
def judge_heads(
    teacher: HeadBank,
    prior: torch.Tensor,
    reduced: torch.Tensor,
    neighbours: torch.Tensor,
    settings: DiscoverySettings,
    *,
    pairs: int = 50_000,
    chunk: int = 2048,
) -> torch.Tensor:
    """Return the mean loss of each head's teacher, (H,), without any annotation.

    All heads are compared on the same pairs. For hard labels the entropy of the class shares is
    subtracted; otherwise one class for all images would have the lowest loss.
    """
    generator = make_generator(settings.seed, "judge")
    count = min(pairs, max(4 * len(reduced), 1))
    images = torch.randint(len(reduced), (count,), generator=generator)
    draw = torch.randint(neighbours.shape[1], (count,), generator=generator)
    others = neighbours[images, draw].long()
    total = torch.zeros(len(teacher.classes), dtype=torch.float64)
    for first in range(0, count, chunk):
        part = slice(first, first + chunk)
        answers = teacher(torch.cat([reduced[images[part]], reduced[others[part]]]).float())
        answers = answers.log_softmax(2)
        total += pair_loss(answers, answers, prior, settings).double().sum(0)
    loss = total / count
    if settings.labels == "hard":
        loss += (prior.clamp_min(_LEAST_SHARE).log() * prior).sum(1)
    return loss.float()


def finite_order(losses: torch.Tensor) -> list[int]:
    """Return the heads whose loss is a number, those of lowest loss first.

    Args:
        losses: (H,).

    Raises:
        ValueError: if there are none.
    """
    order: list[int] = losses.argsort().tolist()  # what is no number comes last
    kept = order[: int(losses.isfinite().sum())]
    if not kept:
        raise ValueError("the training of all heads diverged: choose a lower --lr")
    return kept
