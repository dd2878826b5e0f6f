"""The image files that a packed folder or a split's .csv stands for."""

from __future__ import annotations

from pathlib import Path

from uic_plugin.data.folders import ImageList, list_images


def image_root(data: Path) -> Path:
    """Return the folder of images, or the packed one, that `data` is, or that a split is of.

    Raises:
        FileNotFoundError: if there is no such split, or an image of it is missing.
        ValueError: for a .csv that is no split.
    """
    return list_images(data).root if data.suffix == ".csv" else data


def image_folder(data: Path) -> Path:
    """Return the folder of image files that a folder, a packed one or a split's .csv stands for.

    Raises:
        FileNotFoundError: if that of a packed folder is gone; also as `image_root`.
        ValueError: as `image_root`.
    """
    root = image_root(data)
    folder = ImageList(root, [], None).originals
    if folder != root and not folder.is_dir():
        raise FileNotFoundError(
            f"{root} is a packed folder, and {folder}, which it was made of, is gone: give the "
            f"folder that these images are in now"
        )
    return folder
