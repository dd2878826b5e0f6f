"""Stored features of the images that a command is about, instead of a pass through the network.

    store = covering_store([FeatureStore.open(Path("features"))], folder)
    rows = stored_rows(store, folder, names)                   # (N, D) float16

A store of a folder also serves the folders below it: one of `data/` has those of `data/train` and
`data/val`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from uic_plugin.data.features import read_features
from uic_plugin.features.reading import facts_of
from uic_plugin.features.store import ABOUT_FILE, Entry, FeatureStore


def covering_store(stores: Sequence[FeatureStore], folder: Path) -> FeatureStore:
    """Return the first store with features of a folder, or of a folder above it.

    Raises:
        ValueError: if there is none, with the folders of the stores.
    """
    for store in stores:
        if _prefix(store, folder) is not None:
            return store
    others = ", ".join(f"{store.path} those of {store.identity.folder}" for store in stores)
    raise ValueError(
        f"no features of {folder.resolve()}: {others}; 'uic embed' makes them, --features takes "
        f"several"
    )


def stored_rows(store: FeatureStore, folder: Path, names: Sequence[str]) -> np.ndarray:
    """Return features of images, (N, D) float16 in the order of their names.

    Args:
        store: with features of the folder, or of a folder above it.
        folder: of the images.
        names: N paths below it, with forward slashes.

    Raises:
        ValueError: if the store is of another folder, or an image has no features, could not be
            read, or has changed since.
    """
    prefix = _prefix(store, folder)
    if prefix is None:
        raise ValueError(
            f"{store.path} holds features of another folder ({store.identity.folder} there, "
            f"{folder.resolve()} here): give the one that they are of, or make others with "
            f"'uic embed'"
        )
    entries = [store.entries.get(prefix + name) for name in names]
    missing = [name for name, entry in zip(names, entries, strict=True) if entry is None]
    if missing:
        raise ValueError(
            f"{store.path} has no features of {len(missing)} of the {len(names)} images, as "
            f"{missing[0]!r}: 'uic embed' of the same folder adds them"
        )
    known = [entry for entry in entries if entry is not None]
    bad = next((entry for entry in known if entry.row is None), None)
    if bad is not None:
        raise ValueError(
            f"{store.path} has no features of {bad.name!r}, which could not be read ({bad.reason})"
        )
    _check_unchanged(store, folder, names, known)
    return store.features([entry.name for entry in known])


def read_any_features(source: Path, folder: Path, names: Sequence[str]) -> np.ndarray:
    """Return features of images, (N, D), from a store or from another file of features.

    Args:
        source: a store of `uic embed`; else see `read_features`.
        folder: of the images.
        names: N paths below it.

    Raises:
        FileNotFoundError, ValueError: as `stored_rows` and `read_features`.
    """
    if (source / ABOUT_FILE).is_file():
        return stored_rows(FeatureStore.open(source), folder, names)
    return read_features(source, names)


def _prefix(store: FeatureStore, folder: Path) -> str | None:
    """Return what stands before a name in a store; None for features of another folder."""
    inner, outer = folder.resolve(), Path(store.identity.folder)
    if inner == outer:
        return ""
    if outer in inner.parents:
        return inner.relative_to(outer).as_posix() + "/"
    # a folder may be linked to from the store's
    below = {parent for name in store.entries for parent in PurePosixPath(name).parents}
    linked = (path for path in sorted(below) if (outer / path).resolve() == inner)
    return next((path.as_posix() + "/" for path in linked), None)


def _check_unchanged(
    store: FeatureStore, folder: Path, names: Sequence[str], entries: Sequence[Entry]
) -> None:
    """Refuse features of files that have changed; files that are gone are left to the caller."""
    facts = facts_of(folder)
    for name, entry in zip(names, entries, strict=True):
        try:
            changed = facts(name) != entry.facts
        except OSError:
            continue
        if changed:
            raise ValueError(
                f"{folder / name} has changed since {store.path} was made: 'uic embed' of the same "
                f"folder brings it up to date"
            )
