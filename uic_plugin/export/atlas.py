"""A Parquet file for embedding-atlas.

embedding-atlas classes.parquet --image image --text name --x x --y y --neighbors neighbors
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from uic_plugin.data.rgb import as_rgb
from uic_plugin.export.classes import Exported, readable
from uic_plugin.files import replacing
from uic_plugin.report.page.projection import project

NEIGHBOURS = 15
_CHUNK = 2048  # rows at once, fewer where there are many, see `nearest`
_GAPS = 1 << 25  # distances that are held at once: 0.4 GB with their order
_SIDE = 128  # pixels of the longer side of an image in the file


def write_atlas(chosen: Exported, features: np.ndarray, path: Path) -> None:
    """Write images, positions and neighbours.

    Columns: `image` (struct of JPEG bytes and path), `path`, `label`, `name`, `confidence`,
    `entropy`, `x`, `y`, and `neighbors` (struct of `ids`, row numbers, and `distances`).

    Args:
        chosen: the N images.
        features: (N, D).
        path: the Parquet file.

    Raises:
        ImportError: without pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install pyarrow") from error
    projection = project(features)
    ids, distances = nearest(projection.components.astype(np.float32), NEIGHBOURS)
    table = chosen.table
    columns = {
        "image": [{"bytes": _jpeg(chosen.folder / name), "path": name} for name in table.paths],
        "path": table.paths,
        "label": table.labels,
        "name": [chosen.name_of(row) for row in range(len(table))],
        "confidence": table.confidence,
        "entropy": table.entropy,
        "x": projection.map[:, 0],
        "y": projection.map[:, 1],
        "neighbors": [
            {"ids": i, "distances": d}
            for i, d in zip(ids.tolist(), distances.tolist(), strict=True)
        ],
    }
    with replacing(path) as part:
        parquet.write_table(pa.table(columns), str(part))


def nearest(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of each row, itself first, in bounded memory.

    Args:
        rows: (N, D) float32.
        count: at most so many.

    Returns:
        (N, count) indices and Euclidean distances, ascending.
    """
    count = min(count, len(rows))
    ids = np.empty((len(rows), count), np.int64)
    distances = np.empty((len(rows), count), np.float32)
    squares = (rows**2).sum(1)
    chunk = max(1, min(_CHUNK, _GAPS // max(1, len(rows))))
    for start in range(0, len(rows), chunk):
        part = slice(start, min(start + chunk, len(rows)))
        gap = squares[part, None] - 2 * rows[part] @ rows.T + squares
        gap[np.arange(part.stop - start), np.arange(start, part.stop)] = -1  # itself first
        best = np.argpartition(gap, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(gap, best, 1), axis=1, kind="stable")
        ids[part] = np.take_along_axis(best, order, 1)
        found = np.take_along_axis(gap, ids[part], 1)
        distances[part] = np.sqrt(np.maximum(found, 0))
    return ids, distances


def _jpeg(path: Path) -> bytes:
    with readable(path) as image:
        image.draft("RGB", (_SIDE, _SIDE))
        small = as_rgb(image)
    small.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=85)
    return out.getvalue()
