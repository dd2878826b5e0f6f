"""Intermediate results of a search, from which a stopped one resumes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from uic_plugin.discovery.balance import Balance
from uic_plugin.discovery.choice import CurvePoint
from uic_plugin.discovery.reduction import Reduction
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.discovery.training import TrainingState, first_state
from uic_plugin.files import replacing, save_tensors

IDENTITY_FILE = "identity"
Progress = Callable[[str, int, int], None]  # a title, the number of steps done, and of all


@dataclass(frozen=True)
class Prepared:
    """Prepared features, the same for every number of classes.

    Attributes:
        reduction: features to principal components.
        reduced: (N, d) float16 of unit length.
        neighbours: (N, k) int32.
    """

    reduction: Reduction
    reduced: torch.Tensor
    neighbours: torch.Tensor


class WorkFolder:
    """Intermediate results of a stopped search; those of other features or settings are removed.

    Args:
        path: the folder.
        identity: of features and settings.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        mark = path / IDENTITY_FILE
        begun = IDENTITY_FILE + ".part"  # by a search that was stopped at its very first file
        found = [entry.name for entry in path.iterdir()] if path.exists() else []
        if not mark.is_file() and any(name != begun for name in found):
            raise FileExistsError(
                f"{path} holds files of something else, and a search keeps its intermediate "
                f"results there: move it away, or give another --out"
            )
        if mark.is_file() and mark.read_text() != identity:
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        with replacing(mark) as part:
            part.write_text(identity)

    def read_prepared(self, name: str = "prepared") -> Prepared | None:
        """Return components and neighbours, if they are there."""
        file = self.path / f"{name}.pt"
        if not file.is_file():
            return None
        content = torch.load(file, weights_only=True)
        reduced, neighbours = content.pop("reduced"), content.pop("neighbours")
        return Prepared(Reduction(**content), reduced, neighbours)

    def write_prepared(self, prepared: Prepared, name: str = "prepared") -> None:
        """Keep components and neighbours."""
        content = {
            **dataclasses.asdict(prepared.reduction),
            "reduced": prepared.reduced,
            "neighbours": prepared.neighbours,
        }
        save_tensors(content, self.path / f"{name}.pt")

    def read_curve(self) -> list[CurvePoint]:
        """Return the numbers of classes that were tried."""
        file = self.path / "curve.json"
        if not file.is_file():
            return []
        return [CurvePoint(**point) for point in json.loads(file.read_text())]

    def write_curve(self, curve: list[CurvePoint]) -> None:
        """Keep the numbers of classes that were tried."""
        with replacing(self.path / "curve.json") as part:
            part.write_text(json.dumps([dataclasses.asdict(point) for point in curve]))

    def read_balance(self, num_classes: int) -> Balance | None:
        """Return how the balance of so many classes was decided, if it was."""
        file = self.path / f"balance-{num_classes}.json"
        return Balance(**json.loads(file.read_text())) if file.is_file() else None

    def write_balance(self, balance: Balance, num_classes: int) -> None:
        """Keep how the balance of so many classes was decided."""
        with replacing(self.path / f"balance-{num_classes}.json") as part:
            part.write_text(json.dumps(dataclasses.asdict(balance)))

    def read_state(
        self, stage: str, num_classes: int, settings: DiscoverySettings
    ) -> TrainingState | None:
        """Return the heads of a stage, if they are there and of this number of classes.

        They may be fewer than in `settings`: some candidates' training may have diverged.
        """
        file = self.path / f"{stage}.pt"
        if not file.is_file():
            return None
        content = torch.load(file, weights_only=True)
        if set(content["classes"]) != {num_classes}:
            return None
        dim = content["student"]["weight"].shape[0]
        centroids = [torch.zeros(num_classes, dim)] * len(content["classes"])
        state = first_state(centroids, settings, seed=settings.seed)
        state.student.load_state_dict(content["student"])
        state.teacher.load_state_dict(content["teacher"])
        state.prior, state.step = content["prior"], content["step"]
        state.optimizer = content["optimizer"]
        return state

    def write_state(self, stage: str, state: TrainingState) -> None:
        """Keep the heads of a stage."""
        content = {
            "classes": state.student.classes,
            "student": state.student.state_dict(),
            "teacher": state.teacher.state_dict(),
            "prior": state.prior,
            "step": state.step,
            "optimizer": state.optimizer,
        }
        save_tensors(content, self.path / f"{stage}.pt")
