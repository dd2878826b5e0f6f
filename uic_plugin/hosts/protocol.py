"""What a run needs of the framework that it trains in, its host.

Each host has one adapter, a module of this folder whose names are those of `Host`. mypy holds the
modules against it where `uic_plugin.hosts.load_host` returns them. Code that all adapters share
stands beside them (`attach`, `online_classifier`, `online_knn`, `schedules`, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from uic_plugin.methods.base import HostMethod

if TYPE_CHECKING:
    from uic_plugin.hosts.lightning import pl

Augmentation = Callable[[Image.Image], "list[torch.Tensor]"]
Item = TypeVar("Item", covariant=True)
View = Callable[[Image.Image], torch.Tensor]


class SizedDataset(Protocol[Item]):
    """A dataset that knows how many items it has."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


class Host(Protocol):
    """A host, as one adapter module offers it."""

    @property
    def METHODS(self) -> Mapping[str, type[HostMethod]]:
        """The host's registry of methods by name, with ours after `register`."""

    @property
    def UICMethod(self) -> type[HostMethod]:
        """Our `uic` as a method of this host."""

    @property
    def BACKBONE_KEY(self) -> str:
        """The name under which its methods hold their backbone."""

    @property
    def OPTIMIZERS(self) -> tuple[str, ...]:
        """Values that `optimizer.name` may have."""

    @property
    def SCHEDULERS(self) -> tuple[str, ...]:
        """Values that `scheduler.name` may have, our linear one among them."""

    def register(self) -> None:
        """Add our methods, and our networks where the host has a registry of them, once."""

    def build_method(self, cfg: DictConfig) -> HostMethod:
        """Build a method of the registry from a composed recipe.

        Learning rates are taken as they are: they are scaled already.
        """

    def backbone_names(self) -> list[str]:
        """Return the names that `backbone.name` may have, timm's not among them."""

    def augmentation(self, dataset: str, pipelines: Sequence[DictConfig]) -> Augmentation:
        """Return the host's augmentation, an image to a list of crops (C, H, W).

        Raises:
            ValueError: for an operation that this host does not have.
        """

    def pretrain_dataset(
        self, dataset: str, transform: Augmentation, path: Path, *, no_labels: bool
    ) -> SizedDataset[tuple[int, list[torch.Tensor], int]]:
        """Return the host's training dataset, items [index, crops, annotation]."""

    def h5_dataset(
        self,
        path: Path,
        transform: Augmentation | View,
        *,
        labelled: bool,
        with_number: bool,
    ) -> SizedDataset[tuple[object, ...]]:
        """Return the images of an HDF5 file, items (view, class), or (index, view, class).

        Raises:
            ValueError: if the host reads no such files, or its list of them is of another file.
        """

    def eval_transforms(self, dataset: str) -> tuple[View, View]:
        """Return the host's transforms for linear training and for evaluation."""

    def linear_model(self, backbone: nn.Module, cfg: DictConfig) -> pl.LightningModule:
        """Return the host's linear evaluation of a frozen backbone."""

    def knn_accuracy(
        self,
        train: tuple[torch.Tensor, torch.Tensor],
        test: tuple[torch.Tensor, torch.Tensor],
        *,
        k: int,
        temperature: float,
        distance: str,
    ) -> float:
        """Return top-1 in percent of the host's weighted k-NN classifier.

        Args:
            train: features (N, D) and their annotations (N,).
            test: features (M, D) and their annotations (M,).
            k: neighbors that vote.
            temperature: of the weights of their votes.
            distance: "cosine" or "euclidean".
        """
