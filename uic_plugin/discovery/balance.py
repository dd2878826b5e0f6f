"""Decide whether classes are of equal size, where nobody has said so.

Wanting classes of equal size finds better classes where they are of about equal size, and splits
the large ones where they are not. So heads begin with sizes that are left to the images. Where
these come out about equal by themselves, equal ones are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from uic_plugin.discovery.heads import HeadBank

EQUAL, OWN = 1.0, 0.1  # exponents of the classes' shares: equal sizes, and the images' own
_SMALLEST = 0.2  # of the classes
_ABOUT_EQUAL = 0.6  # chosen on samples of training images, see docs/discover.md
_IMAGES = 50_000


@dataclass(frozen=True)
class Balance:
    """A decision between equal classes and the images' own sizes.

    Attributes:
        exponent: what was chosen, `EQUAL` or `OWN`.
        smallest: mean size of the smallest fifth of the classes, of sizes that are left to the
            images, relative to N / K; 1 if all classes are of equal size; None of corrected
            classes, whose sizes a person has seen.
    """

    exponent: float
    smallest: float | None

    def explanation(self) -> str:
        """Return a line for a user."""
        if self.smallest is None:
            return f"classes of the sizes that they have (--balance {self.exponent:g})"
        chosen = "about equal size" if self.exponent == EQUAL else "their own sizes"
        return (
            f"classes of {chosen} (--balance {self.exponent:g}): with sizes left to the images, "
            f"the smallest fifth of the classes has {self.smallest:.2f} of an equal share"
        )


def decide_balance(shares: torch.Tensor) -> Balance:
    """Choose equal classes if the smallest of those that the images suggest are not very small.

    Args:
        shares: (H, K) of heads that leave the sizes to the images; each row adds up to 1.
    """
    count = shares.shape[1]
    smallest = shares.sort(1).values[:, : max(1, int(_SMALLEST * count))]
    size = float(smallest.mean()) * count
    return Balance(EQUAL if size >= _ABOUT_EQUAL else OWN, size)


@torch.no_grad()
def class_shares(heads: HeadBank, reduced: torch.Tensor, *, chunk: int = 4096) -> torch.Tensor:
    """Return the share of images in each class, (H, K), by each head's answers.

    Args:
        heads: H classifiers of K classes.
        reduced: (N, d) features of unit length; of more than 50,000 only that many, evenly spaced,
            are counted.
        chunk: images at once.
    """
    rows = torch.linspace(0, len(reduced) - 1, min(len(reduced), _IMAGES)).long()
    counts = torch.zeros(len(heads.classes), max(heads.classes))
    for first in range(0, len(rows), chunk):
        labels = heads(reduced[rows[first : first + chunk]].float()).argmax(2).T
        counts.scatter_add_(1, labels, torch.ones(labels.shape))
    return counts / len(rows)
