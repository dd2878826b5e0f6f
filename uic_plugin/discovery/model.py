"""Classes as a function of features, to label further images with `uic label`.

model = ClassModel.load(Path("images-classes/model.pt"))
answer = model(features)                                   # labels, confidence, agreement, ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from uic_plugin.discovery.heads import HeadBank
from uic_plugin.discovery.reduction import Reduction
from uic_plugin.files import save_tensors

_VERSION = 2
_CHUNK = 2048


@dataclass(frozen=True)
class Answers:
    """The heads' answers to N images.

    Attributes:
        labels: (N,) int64 classes, most likely by the mean of the voting heads.
        second: (N,) int64 second most likely classes.
        confidence: (N,) float32 probability of the label, in [0, 1].
        entropy: (N,) float32 of the mean probabilities, in nats.
        agreement: (N,) float32 share of all heads with this label, in [0, 1].
        distance: (N,) float32 1 - cosine between an image and the mean of its class, in [0, 2].
        heads: (N, V) int64 class by each of the voting heads.
    """

    labels: np.ndarray
    second: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    agreement: np.ndarray
    distance: np.ndarray
    heads: np.ndarray

    def replace(self, rows: np.ndarray, others: Answers) -> None:
        """Put the answers to M images in the place of those in M rows."""
        for name in (field.name for field in dataclasses.fields(self)):
            getattr(self, name)[rows] = getattr(others, name)

    def extra_columns(self) -> dict[str, np.ndarray]:
        """Return columns of a label file beside path, label, confidence and entropy."""
        names = ("agreement", "distance", "second")
        columns = {name: getattr(self, name) for name in names}
        return columns | {f"head_{i}": column for i, column in enumerate(self.heads.T)}


class ClassModel:
    """The heads of a discovery, the best one first, with the same number for the same class.

    Args:
        reduction: features to inputs of the heads.
        heads: at least one, of K classes each, the best first.
        voters: how many of the first heads vote; the others only measure the agreement.
        means: (K, d) unit mean of each class's images; zeros for an empty class.
        features: describes the network and layer of the features.
        names: names that people gave to classes.
        hidden: classes that people have hidden.
    """

    def __init__(
        self,
        reduction: Reduction,
        heads: HeadBank,
        voters: int,
        means: torch.Tensor,
        features: dict[str, str | int | None],
        names: dict[int, str] | None = None,
        hidden: Collection[int] = (),
    ) -> None:
        self.reduction, self.heads, self.voters = reduction, heads, voters
        self.means, self.features = means, features
        self.names, self.hidden = dict(names or {}), set(hidden)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.heads.classes[0]

    @torch.no_grad()
    def __call__(self, features: np.ndarray, decided: np.ndarray | None = None) -> Answers:
        """Return answers for (N, D) features of any float type, in chunks.

        Args:
            features: (N, D).
            decided: (N,) classes that a person has decided: they are the labels, the other
                columns are of these, and the second class is the most probable other one.
        """
        parts = []
        for first in range(0, len(features), _CHUNK):
            part = slice(first, first + _CHUNK)
            rows = torch.from_numpy(np.array(features[part], np.float32))
            own = None if decided is None else torch.from_numpy(decided[part])
            parts.append(self._answers(self.reduction(rows), own))
        columns = zip(*parts, strict=True)
        return Answers(*(torch.cat(column).numpy() for column in columns))

    def _answers(
        self, reduced: torch.Tensor, decided: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        logits = self.heads(reduced)
        p = vote(logits, self.voters)
        labels = p.argmax(1) if decided is None else decided
        confidence = p.gather(1, labels[:, None]).squeeze(1)
        second = p.scatter(1, labels[:, None], -1.0).argmax(1)
        by_head = logits.argmax(2)
        agreement = (by_head == labels[:, None]).float().mean(1)
        entropy = torch.special.entr(p).sum(1)
        distance = 1 - (reduced * self.means[labels]).sum(1)
        return labels, second, confidence, entropy, agreement, distance, by_head[:, : self.voters]

    def save(self, path: Path) -> None:
        """Write the model, through a temporary file."""
        content = {
            "version": _VERSION,
            "reduction": dataclasses.asdict(self.reduction),
            "classes": self.heads.classes,
            "temperature": self.heads.temperature,
            "hidden": self.heads.hidden,
            "heads": self.heads.state_dict(),
            "voters": self.voters,
            "means": self.means,
            "features": self.features,
            "names": self.names,
            "hidden_classes": sorted(self.hidden),  # "hidden" is the width of the heads' layer
        }
        save_tensors(content, path)

    @classmethod
    def load(cls, path: Path) -> ClassModel:
        """Read a model.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged, or of another version.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such model; 'uic discover' writes one")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            version = content["version"]
        except Exception as error:  # torch raises many kinds for a foreign or damaged file
            raise ValueError(f"{path} is no model of 'uic discover', or is damaged") from error
        if version not in (1, _VERSION):
            raise ValueError(f"{path} is of version {version}, this program reads 1 and {_VERSION}")
        kept = content["reduction"]
        ones = torch.ones_like  # version 1 scaled nothing
        plain = {"scale": ones(kept["mean"]), "spread": ones(kept["axes"][0])}
        reduction = Reduction(**(plain | kept))
        heads = HeadBank(
            reduction.axes.shape[1],
            content["classes"],
            temperature=content["temperature"],
            hidden=content["hidden"],
        )
        heads.load_state_dict(content["heads"])
        heads.requires_grad_(False)
        about = content["features"], content["names"], content.get("hidden_classes", ())
        return cls(reduction, heads, content["voters"], content["means"], *about)


def vote(logits: torch.Tensor, voters: int) -> torch.Tensor:
    """Return the mean probabilities (B, K) of the first heads; `logits` is (B, H, K)."""
    return logits[:, :voters].softmax(2).mean(1)


@torch.no_grad()
def head_labels(heads: HeadBank, reduced: torch.Tensor) -> torch.Tensor:
    """Return labels (N, H) int32 of each head, in chunks."""
    labels = torch.empty(len(reduced), len(heads.classes), dtype=torch.int32)
    for first in range(0, len(reduced), _CHUNK):
        labels[first : first + _CHUNK] = heads(reduced[first : first + _CHUNK].float()).argmax(2)
    return labels


def aligned_heads(heads: HeadBank, labels: torch.Tensor, order: list[int]) -> HeadBank:
    """Return heads in another order, their classes numbered as those of the first are.

    The first head's classes are numbered by size, the largest first. Those of another head get the
    numbers of a one-to-one matching that maximises the number of shared images.

    Args:
        heads: as trained, all of K classes.
        labels: (N, H) by each head.
        order: all heads, the best one first.
    """
    from scipy.optimize import linear_sum_assignment

    count = heads.classes[0]
    best = labels[:, order[0]].long()
    numbers = [torch.bincount(best, minlength=count).argsort(descending=True, stable=True)]
    rank = torch.empty_like(numbers[0])
    rank[numbers[0]] = torch.arange(count)
    own = rank[best]
    for head in order[1:]:
        pairs = own * count + labels[:, head]
        table = torch.bincount(pairs, minlength=count * count).view(count, count)
        numbers.append(torch.from_numpy(linear_sum_assignment(-table.numpy())[1]))
    chosen = heads.some(order)
    chosen.reorder(torch.stack(numbers))
    return chosen


@torch.no_grad()
def voted_labels(heads: HeadBank, voters: int, reduced: torch.Tensor) -> torch.Tensor:
    """Return labels (N,) int64 by the mean of the first heads, in chunks."""
    parts = [
        vote(heads(reduced[first : first + _CHUNK].float()), voters).argmax(1)
        for first in range(0, len(reduced), _CHUNK)
    ]
    return torch.cat(parts)


def class_means(reduced: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Return the unit mean (K, d) of each class's images; zeros for an empty class."""
    sums = torch.zeros(count, reduced.shape[1])
    for first in range(0, len(reduced), _CHUNK):
        part = slice(first, first + _CHUNK)
        sums.index_add_(0, labels[part].long(), reduced[part].float())
    return torch.nn.functional.normalize(sums, dim=1)
