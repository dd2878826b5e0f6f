"""Write classes in the formats of other programs."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from uic_plugin.data.folders import check_outside
from uic_plugin.data.labels import read_labels
from uic_plugin.export.classes import Exported, flat_names, link_or_copy, readable, select
from uic_plugin.files import replacing_folder

Writer = Callable[[Exported, Path, bool, np.ndarray | None], None]


def export_classes(
    labels: Path,
    folder: Path,
    kind: str,
    out: Path,
    *,
    copy: bool = False,
    everything: bool = False,
    features: np.ndarray | None = None,
) -> Exported:
    """Write the classes of a label file to a new folder, completely or not at all.

    Args:
        labels: a label file.
        folder: the folder of its images.
        kind: one of `KINDS`.
        out: folder to make.
        copy: copy images instead of linking to them.
        everything: include images marked as wrong, and hidden classes.
        features: (N, D) in the order of the label file, which embedding-atlas needs for its map.

    Raises:
        ValueError: for an unknown kind, one that needs features without them, or a folder among
            the images.
        FileExistsError: if `out` exists and is not empty.
        FileNotFoundError: if an image is missing.
        OSError: if it cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"--to must be one of {', '.join([*KINDS, 'onnx'])}, got {kind!r}")
    check_outside(out, folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty: give a new folder with --out")
    table = read_labels(labels)
    chosen = select(table, folder, everything=everything)
    if features is not None and chosen.left_out:  # else all of them, which may be memory-mapped
        features = features[chosen.rows]
    part = out.with_name(f".{out.name}.export")  # `.NAME.part` is of commands that make datasets
    shutil.rmtree(part, ignore_errors=True)
    with replacing_folder(part, out):
        part.mkdir(parents=True)
        KINDS[kind](chosen, part, copy, features)
        part.replace(out)
    return chosen


def _folders(chosen: Exported, out: Path, copy: bool, features: np.ndarray | None) -> None:
    """Write one folder per class, under its name."""
    _into(chosen, out, copy, chosen.directories)


def _imagefolder(chosen: Exported, out: Path, copy: bool, features: np.ndarray | None) -> None:
    """Write numbered folders: torchvision sorts the folders, and its targets are these numbers."""
    width = len(str(len(chosen.directories) - 1))
    _into(chosen, out, copy, [f"{k:0{width}}_{name}" for k, name in enumerate(chosen.directories)])


def _into(chosen: Exported, out: Path, copy: bool, directories: list[str]) -> list[str]:
    """Write one folder per class; return the images' paths below `out`."""
    flat = flat_names(chosen.table.paths)
    names = [f"{directories[int(c)]}/{flat[row]}" for row, c in enumerate(chosen.target)]
    for path, name in zip(chosen.table.paths, names, strict=True):
        link_or_copy(chosen.folder / path, out / name, copy=copy)
    return names


def _csv(chosen: Exported, out: Path, copy: bool, features: np.ndarray | None) -> None:
    """Write one row per image: the label file's columns, the class's name, the absolute path."""
    table = chosen.table
    more = {name: values for name, values in table.extra.items() if name != "name"}
    with open(
        out / "classes.csv", "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "path", "label", "name", "confidence", "entropy", *more])
        for row, path in enumerate(table.paths):
            numbers = (table.confidence[row], table.entropy[row], *(v[row] for v in more.values()))
            name = chosen.name_of(row)
            writer.writerow([chosen.folder / path, path, table.labels[row], name, *numbers])


def _coco(chosen: Exported, out: Path, copy: bool, features: np.ndarray | None) -> None:
    """Write COCO's JSON: a class is a category, and an image has one box, the whole of it."""
    _write_coco(chosen, chosen.table.paths, out / "annotations.json")


def _write_coco(chosen: Exported, names: list[str], file: Path) -> None:
    images, annotations = [], []
    for row, path in enumerate(chosen.table.paths):
        with readable(chosen.folder / path) as image:
            width, height = image.size
        images.append({"id": row + 1, "file_name": names[row], "width": width, "height": height})
        score = float(chosen.table.confidence[row])
        annotations.append(
            {
                "id": row + 1,
                "image_id": row + 1,
                "category_id": int(chosen.target[row]) + 1,
                "bbox": [0, 0, width, height],
                "area": width * height,
                "iscrowd": 0,
                **({"score": score} if np.isfinite(score) else {}),
            }
        )
    content = {
        "info": {"description": "pseudo classes of images, as boxes of whole images"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(chosen.names)],
    }
    file.write_text(json.dumps(content))


def _lightly_studio(chosen: Exported, out: Path, copy: bool, features: np.ndarray | None) -> None:
    """Write a folder per class, which become tags, and boxes of whole images in COCO's JSON.

    LightlyStudio reads classes of whole images from neither; `add_images_from_path(tag_depth=1)`
    takes the folders, `add_samples_from_coco` the boxes with their names and scores.
    """
    names = _into(chosen, out / "images", copy, chosen.directories)
    _write_coco(chosen, names, out / "annotations.json")


def _fiftyone(chosen: Exported, out: Path, copy: bool, features: np.ndarray | None) -> None:
    """Write a directory of the kind FiftyOneImageClassificationDataset."""
    labels: dict[str, dict[str, object]] = {}
    for row, path in enumerate(chosen.table.paths):
        name = f"{row:07}"
        link_or_copy(chosen.folder / path, out / "data" / (name + Path(path).suffix), copy=copy)
        entry: dict[str, object] = {"label": chosen.name_of(row), "attributes": {"path": path}}
        if np.isfinite(chosen.table.confidence[row]):
            entry["confidence"] = float(chosen.table.confidence[row])
        labels[name] = entry
    (out / "labels.json").write_text(json.dumps({"classes": chosen.names, "labels": labels}))


def _embedding_atlas(chosen: Exported, out: Path, copy: bool, features: np.ndarray | None) -> None:
    from uic_plugin.export.atlas import write_atlas

    if features is None:
        raise ValueError("--to embedding-atlas needs --features: they give x, y and neighbours")
    write_atlas(chosen, features, out / "classes.parquet")


KINDS: dict[str, Writer] = {
    "folders": _folders,
    "imagefolder": _imagefolder,
    "csv": _csv,
    "coco": _coco,
    "fiftyone": _fiftyone,
    "embedding-atlas": _embedding_atlas,
    "lightly-studio": _lightly_studio,
}
LINKING = ("folders", "imagefolder", "fiftyone", "lightly-studio")  # kinds with the images in them
