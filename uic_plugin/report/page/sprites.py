"""Thumbnails of many images in few files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, features

from uic_plugin.data.listed import opened
from uic_plugin.data.rgb import as_rgb
from uic_plugin.data.views import BAD_IMAGE_ERRORS

_SIDE = 8  # thumbnails in a row and in a column of a sprite
_MANY = 20_000  # maximum number of images with large thumbnails
_PROBED = 32  # images whose sizes are looked at


@dataclass(frozen=True)
class Sprites:
    """Files with `side` x `side` thumbnails each.

    Attributes:
        tile: pixels of a thumbnail's side.
        side: thumbnails in a row of a file.
        suffix: ending of the files `0`, `1`, ... with the dot.
        unreadable: indices of images that could not be read, which have a grey thumbnail.
    """

    tile: int
    side: int
    suffix: str
    unreadable: list[int]


def tile_size(paths: Sequence[Path]) -> int:
    """Choose the pixels of a thumbnail's side: 128, or 96 for many images; 32 or 64 for small ones.

    Args:
        paths: paths of the images.
    """
    largest = 1
    for path in paths[:: max(1, len(paths) // _PROBED)]:
        try:
            with opened(path) as image:
                largest = max(largest, *image.size)
        except BAD_IMAGE_ERRORS:
            continue
    usual = 128 if len(paths) <= _MANY else 96
    return next((size for size in (32, 64) if largest <= size), usual)


def write_sprites(
    paths: Sequence[Path],
    folder: Path,
    *,
    tile: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sprites:
    """Write the thumbnails of images as WebP files, or JPEG where Pillow has no WebP.

    A thumbnail is the central square of its image. One that cannot be read gets a grey thumbnail
    and a warning.

    Args:
        paths: N images, in the order of their thumbnails.
        folder: where `0.webp`, `1.webp`, ... are written.
        tile: pixels of a thumbnail's side; by default see `tile_size`.
        progress: called with the number of images done, and of all.

    Raises:
        OSError: if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tile = tile or tile_size(paths)
    suffix = ".webp" if features.check("webp") else ".jpg"
    per_file = _SIDE * _SIDE
    unreadable: list[int] = []
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL
        jobs = {
            pool.submit(
                _write_sprite,
                paths[start : start + per_file],
                tile,
                folder / f"{number}{suffix}",
            ): start
            for number, start in enumerate(range(0, len(paths), per_file))
        }
        try:
            for job in as_completed(jobs):
                unreadable += [jobs[job] + index for index in job.result()]
                done = min(done + per_file, len(paths))
                progress(done, len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if unreadable:
        unreadable.sort()
        warnings.warn(
            f"{len(unreadable)} images cannot be read and are grey on the page, as "
            f"{str(paths[unreadable[0]])!r}",
            stacklevel=2,
        )
    return Sprites(tile, _SIDE, suffix, unreadable)


def _write_sprite(paths: Sequence[Path], tile: int, out: Path) -> list[int]:
    """Write one file; return which of its images could not be read."""
    rows = -(-len(paths) // _SIDE)
    sheet = Image.new("RGB", (_SIDE * tile, rows * tile), (128, 128, 128))
    unreadable = []
    for index, path in enumerate(paths):
        try:
            with opened(path) as image:
                image.draft("RGB", (tile, tile))  # JPEG: decoded at a fraction of its size
                square = _thumbnail(as_rgb(image), tile)
        except BAD_IMAGE_ERRORS:
            unreadable.append(index)
            continue
        sheet.paste(square, ((index % _SIDE) * tile, (index // _SIDE) * tile))
    if out.suffix == ".webp":
        sheet.save(out, quality=92 if tile <= 32 else 80, method=2)
    else:
        sheet.save(out, quality=92 if tile <= 32 else 82)
    return unreadable


def _thumbnail(image: Image.Image, tile: int) -> Image.Image:
    small = max(image.size) * 2 <= tile
    method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return ImageOps.fit(image, (tile, tile), method)
