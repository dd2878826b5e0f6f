"""Keep the host's online classifier, which learns from annotations, from touching the rest.

It reads detached features, so its loss has no gradient in the network. Two things look at all
gradients together nevertheless: clipping, whose norm is one number for the whole optimizer, and
the scaler of 16-bit training, which skips a step for an infinite gradient anywhere. Both would let
annotations decide what the network learns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


def keep_gradients_finite(classifier: nn.Module) -> None:
    """Replace gradients of a classifier that are NaN or infinite by 0, before any scaler sees them.

    The scaler of 16-bit training then skips steps for the network's own gradients alone. A
    classifier that has diverged is found by its loss.
    """
    for parameter in classifier.parameters():
        parameter.register_hook(
            lambda grad: torch.nan_to_num(grad, nan=0.0, posinf=0.0, neginf=0.0)
        )


def clip_apart(clip: Callable[[], None], module: nn.Module, classifier: nn.Module) -> None:
    """Clip the gradients of a classifier and those of all else, each as if the other had none.

    Args:
        clip: clips whatever gradients there are, as Lightning's `configure_gradient_clipping`.
        module: the method, with the classifier in it.
        classifier: the host's online classifier.
    """
    apart = list(classifier.parameters())
    known = {id(parameter) for parameter in apart}
    rest = [parameter for parameter in module.parameters() if id(parameter) not in known]
    for hidden in (apart, rest):
        with _without_gradients(hidden):
            clip()


@contextmanager
def _without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    kept = [(parameter, parameter.grad) for parameter in parameters]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, grad in kept:
            parameter.grad = grad
