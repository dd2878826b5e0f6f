"""Read features that were kept of images, in the order of a list of paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_PATHS = ("paths.txt", "paths.json", "paths.npy")


def read_features(source: Path, paths: Sequence[str]) -> np.ndarray:
    """Return the features of images, row by row in the order of `paths`.

    Args:
        source: a `.npz` with the arrays `features` (N, D) and `paths` (N,); a folder with
            `features.npy` and `paths.json`, `paths.txt` or `paths.npy`; or a `.npy` of as many rows
            as there are paths, in their order.
        paths: M paths below the images' folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no features, or not those of these images.
    """
    features, kept = _open(source)
    if features.ndim != 2 or features.dtype.kind != "f":
        raise ValueError(
            f"{source}: features are numbers of shape (images, dimensions), found "
            f"{features.dtype} {features.shape}"
        )
    if kept is None:
        if len(features) != len(paths):
            raise ValueError(
                f"{source} has features of {len(features)} images, there are {len(paths)}"
            )
        return features
    if len(kept) != len(features):
        raise ValueError(f"{source}: {len(features)} rows of features, {len(kept)} paths")
    if kept == list(paths):
        return features
    row = {path: number for number, path in enumerate(kept)}
    missing = [path for path in paths if path not in row]
    if missing:
        raise ValueError(
            f"{source} has no features of {len(missing)} of the {len(paths)} images, as "
            f"{missing[0]!r}: make them of the same folder"
        )
    return features[np.fromiter((row[path] for path in paths), np.int64, len(paths))]


def _open(source: Path) -> tuple[np.ndarray, list[str] | None]:
    if not source.exists():
        raise FileNotFoundError(f"{source}: there are no such features")
    try:
        if source.is_dir():
            beside = next((source / name for name in _PATHS if (source / name).is_file()), None)
            if beside is None:
                raise ValueError(f"{source}: no {' or '.join(_PATHS)} beside the features")
            return np.load(source / "features.npy", mmap_mode="r"), _paths(beside)
        if source.suffix == ".npz":
            with np.load(source) as arrays:
                if not {"features", "paths"} <= set(arrays.files):
                    raise ValueError(f"{source} needs the arrays features and paths")
                return arrays["features"], [str(path) for path in arrays["paths"]]
        return np.load(source, mmap_mode="r"), None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{source}: no features ({error})") from error


def _paths(file: Path) -> list[str]:
    if file.suffix == ".npy":
        return [str(path) for path in np.load(file)]
    if file.suffix == ".json":
        import json

        return [str(path) for path in json.loads(file.read_text(encoding="utf-8"))]
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    return text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
