"""Report the classes of a label file: sizes (Fig. 3), classes of low entropy (Fig. 4), numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from uic_plugin.data.folders import folder_annotations
from uic_plugin.data.labels import LabelTable, read_labels
from uic_plugin.data.listed import decode
from uic_plugin.data.originals import image_folder
from uic_plugin.data.views import BAD_IMAGE_ERRORS
from uic_plugin.evaluation.clustering import agreement, class_statistics
from uic_plugin.report.figures import plot_class_sizes, plot_classes
from uic_plugin.report.tables import write_csv

_TILE = 48  # pixels, of an image in the picture


def report_classes(
    labels: Path, data: Path, out: Path, *, show: int = 12, num_classes: int | None = None
) -> dict[str, float | int]:
    """Write `classes.csv`, `class_sizes.png` and `classes.png`; return numbers for a terminal.

    Annotations are the images' folders, if there are any; only the numbers depend on them.

    Args:
        labels: a label file.
        data: the folder of its images; also packed, or a split's .csv.
        out: folder to write to.
        show: classes in the picture, those of lowest mean entropy.
        num_classes: K; by default the highest label plus 1.

    Raises:
        FileNotFoundError: if there is no label file, an image of it is missing, or the folder that
            images were packed from is gone.
        ValueError: if it is not a label file, or `show` is less than 1.
    """
    if show < 1:
        raise ValueError(f"--show must be at least 1, got {show}")
    table = read_labels(labels)
    if not len(table):
        raise ValueError(f"{labels} has no row")
    data = image_folder(data)
    missing = [path for path in table.paths if not (data / path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(table)} images of {labels} are not in {data}, as "
            f"{missing[0]!r}: give the folder that the labels were made of"
        )
    highest = int(table.labels.max())
    if num_classes is None:
        num_classes = highest + 1
    if highest >= num_classes:
        raise ValueError(f"{labels} has label {highest}, --num-classes is {num_classes}: raise it")
    columns = class_statistics(table.labels, table.confidence, table.entropy, num_classes)
    used = np.flatnonzero(columns["size"])
    numbers: dict[str, float | int] = {
        "images": len(table),
        "classes used": len(used),
        "smallest class": int(columns["size"][used].min()),
        "median class": float(np.median(columns["size"][used])),
        "largest class": int(columns["size"][used].max()),
        "mean entropy, nats": float(table.entropy.mean()),
    }
    annotations = folder_annotations(table.paths)
    if annotations is not None:
        numbers.update(agreement(annotations, table.labels, num_classes))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(
        out / "classes.csv",
        [{"class": c, **{name: column[c] for name, column in columns.items()}} for c in used],
    )
    plot_class_sizes(columns["size"], out / "class_sizes.png")
    sharpest = used[np.argsort(columns["entropy"][used], kind="stable")][:show]
    _picture(table, data, sharpest, out / "classes.png")
    return numbers


def _picture(table: LabelTable, data: Path, chosen: np.ndarray, path: Path) -> None:
    columns = 12
    order = np.argsort(table.entropy, kind="stable")
    members = np.concatenate([order[table.labels[order] == c][:columns] for c in chosen])
    images = []
    for member in members:  # a picture's few images
        try:
            square = decode(data / table.paths[member]).resize((_TILE, _TILE))
        except FileNotFoundError:
            raise
        except BAD_IMAGE_ERRORS:  # as on the page
            square = Image.new("RGB", (_TILE, _TILE), (128, 128, 128))
        images.append(np.asarray(square))
    sizes = np.bincount(table.labels, minlength=int(table.labels.max()) + 1)
    plot_classes(
        images,
        table.labels[members],
        -table.entropy[members],
        path,
        sizes=sizes,
        order=chosen,
        columns=columns,
        blocks=1 if len(chosen) < 8 else 2,
    )
