"""Stored features in place of a pass of a run's network over its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uic_plugin.data.images import annotations_of, relative_paths
from uic_plugin.data.packed import PackedImages
from uic_plugin.features.store import FeatureStore
from uic_plugin.features.stored import covering_store, stored_rows
from uic_plugin.networks.layers import FEATURES, MLP
from uic_plugin.networks.weights import weights_fingerprint
from uic_plugin.runs.run import Run

MEAN = "+mean"  # after a layer's name: mean of a map over its pixels, of tokens over theirs


@dataclass(frozen=True)
class StoredSet:
    """The stored features of a dataset.

    Attributes:
        features: (N, D) float32.
        classes: (N,) int64 annotations.
    """

    features: torch.Tensor
    classes: torch.Tensor


@dataclass(frozen=True)
class StoredSets:
    """The stored features of datasets, all by one layer of a run's network.

    Attributes:
        layer: the layer's name, with `+mean` unless its output is a vector for sure.
        preprocessing: of the images.
        sets: one per dataset.
    """

    layer: str
    preprocessing: str
    sets: list[StoredSet]


def stored_features(
    run: Run,
    paths: Sequence[Path],
    datasets: Sequence[Any],
    view: Callable[[Any], Any] | None = None,
) -> StoredSets:
    """Return stored features of a run's network.

    Args:
        run: whose network they have to be of.
        paths: the stores; each dataset's folder, or one above it, has to be that of one of them.
        datasets: annotated images in files.
        view: a preprocessing that they may have, beside the run's own centered view.

    Raises:
        FileNotFoundError: if there is no such store.
        ValueError: for a store of another network, folder or preprocessing, or images without
            features in it.
    """
    stores = [FeatureStore.open(path) for path in paths]
    _check_network(run, stores, view)
    identities = {(s.identity.layer, s.identity.preprocessing) for s in stores}
    if len(identities) > 1:
        raise ValueError(
            f"the stores {', '.join(map(str, paths))} are of several layers or sizes: make them "
            f"alike"
        )
    ((layer, preprocessing),) = identities
    layer = layer if layer in (FEATURES, MLP) else layer + MEAN
    return StoredSets(layer, preprocessing, [_stored_set(stores, dataset) for dataset in datasets])


def _stored_set(stores: Sequence[FeatureStore], dataset: Any) -> StoredSet:
    names, classes = relative_paths(dataset), annotations_of(dataset)
    folder = _folder_of(dataset)
    if names is None or folder is None or classes is None:
        raise ValueError(
            f"--features are of annotated image files, and the images of this run are a "
            f"{type(dataset).__name__}: leave --features out"
        )
    rows = stored_rows(covering_store(stores, folder), folder, names)
    features = torch.from_numpy(np.asarray(rows, np.float32))
    return StoredSet(features, torch.from_numpy(np.asarray(classes, np.int64)))


def _folder_of(dataset: Any) -> Path | None:
    """Return the folder that the names of a dataset's images are below; None without files."""
    if hasattr(dataset, "h5_path"):
        return None
    if isinstance(dataset, PackedImages) and dataset.originals is None:
        return dataset.store.path
    root = getattr(dataset, "root", None)
    return None if root is None else Path(root)


def _check_network(
    run: Run, stores: Sequence[FeatureStore], view: Callable[[Any], Any] | None
) -> None:
    """Refuse features of another network, or of other views of the images."""
    own = weights_fingerprint(run.encoder.eval())
    views = [str(run.view), *([] if view is None else [str(view)])]
    for store in stores:
        identity = store.identity
        if identity.fingerprint != own:
            raise ValueError(
                f"{store.path} holds features of another network ({identity.backbone}, weights "
                f"{identity.fingerprint}; those of {run.weights} are {own}): make them with "
                f"'uic embed --backbone {run.folder}'"
            )
        if identity.preprocessing not in views:
            there, here = (" ".join(text.split()) for text in (identity.preprocessing, views[-1]))
            raise ValueError(
                f"{store.path} holds features of another preprocessing ({there} there, {here} "
                f"here): choose the size that it was made with"
            )
