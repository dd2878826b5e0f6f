"""Read stored features of images, in the order of a list of paths."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_LINES = "images.jsonl"  # in a store of `uic embed`: one line per image, in row order


def read_features(source: Path, paths: Sequence[str]) -> np.ndarray:
    """Return the features of images, row by row in the order of `paths`.

    Args:
        source: a `.npz` with the arrays `features` (N, D) and `paths` (N,); a folder with
            `features.npy` and `images.jsonl`, one line per image with its `path`, and with a
            `reason` if it could not be read and has no row; or a `.npy` with one row per path, in
            their order.
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
    row = {path: number for number, path in enumerate(kept)}  # an image's last row counts
    if len(kept) > len(features):
        raise ValueError(f"{source}: {len(features)} rows of features, {len(kept)} paths")
    missing = [path for path in paths if path not in row]
    if missing:
        raise ValueError(
            f"{source} has no features of {len(missing)} of the {len(paths)} images, as "
            f"{missing[0]!r}: make them of the same folder"
        )
    if kept == list(paths):
        return features[: len(kept)]
    return features[np.fromiter((row[path] for path in paths), np.int64, len(paths))]


def _open(source: Path) -> tuple[np.ndarray, list[str] | None]:
    if not source.exists():
        raise FileNotFoundError(f"{source}: there are no such features")
    try:
        if source.is_dir():
            with open(source / _LINES, encoding="utf-8") as lines:
                said = [json.loads(line) for line in lines if line.endswith("\n")]
            kept = [str(line["path"]) for line in said if not line.get("reason")]
            return np.load(source / "features.npy", mmap_mode="r"), kept
        if source.suffix == ".npz":
            with np.load(source) as arrays:
                if not {"features", "paths"} <= set(arrays.files):
                    raise ValueError(f"{source} needs the arrays features and paths")
                return arrays["features"], [str(path) for path in arrays["paths"]]
        return np.load(source, mmap_mode="r"), None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source}: no features ({error})") from error
