"""Regions that may contain an object: selective search, once per image, cached by its content.

Source: Uijlings et al., Selective Search for Object Recognition, 2013; OpenCV's implementation.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from uic_plugin.evaluation.voc.settings import ProposalSettings
from uic_plugin.files import replacing


class ProposalCache:
    """Regions of images in a folder, one file per content of an image and settings.

    Args:
        folder: of the files; several runs may share it.
        settings: of the search.
    """

    def __init__(self, folder: Path, settings: ProposalSettings) -> None:
        self.folder, self.settings = folder, settings
        self._keys: dict[str, str] = {}

    def compute(
        self,
        images: Sequence[str],
        processes: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> int:
        """Search in the images that have no file yet.

        Args:
            images: their paths.
            processes: number of parallel processes.
            progress: called with the number of images done, and of all.

        Returns:
            Number of images searched.

        Raises:
            ImportError: without OpenCV's contributed modules.
        """
        missing = [path for path in images if not self._file(path).exists()]
        if not missing:
            return 0
        _opencv()
        done = len(images) - len(missing)
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(max(1, processes), mp_context=context) as pool:
            jobs = [pool.submit(_search, p, str(self._file(p)), self.settings) for p in missing]
            try:
                for number, job in enumerate(as_completed(jobs), done + 1):
                    job.result()
                    progress(number, len(images))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return len(missing)

    def of(self, image: str) -> torch.Tensor:
        """Return the regions (P, 4) float32 of a computed image, as `Objects.boxes`."""
        return torch.from_numpy(np.load(self._file(image)).astype(np.float32))

    def _file(self, image: str) -> Path:
        if image not in self._keys:
            digest = hashlib.blake2b(repr(self.settings).encode(), digest_size=16)
            digest.update(Path(image).read_bytes())
            self._keys[image] = digest.hexdigest()
        key = self._keys[image]
        return self.folder / key[:2] / f"{key}.npy"


def selective_search(image: Image.Image, settings: ProposalSettings) -> np.ndarray:
    """Return sorted regions (P, 4) int32 of an image: x, y of two corners as `Objects.boxes`.

    Raises:
        ImportError: without OpenCV's contributed modules.
    """
    cv2 = _opencv()
    cv2.setNumThreads(1)  # processes share the cores
    scale = settings.side / min(image.size) if settings.side else 1.0
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(pixels[:, :, ::-1]))
    if settings.mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    corners = search.process().astype(np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    corners *= np.tile(np.divide(image.size, size), 2)
    boxes = np.rint(corners).astype(np.int32)
    sides = boxes[:, 2:] - boxes[:, :2]
    # the search orders regions by the C library's random numbers, which nothing seeds
    boxes = np.unique(boxes[(sides >= settings.smallest).all(1)], axis=0)
    if len(boxes) > settings.most:
        chosen = np.random.default_rng(0).choice(len(boxes), settings.most, replace=False)
        boxes = boxes[np.sort(chosen)]
    return boxes


def _search(path: str, out: str, settings: ProposalSettings) -> None:
    with Image.open(path) as image:
        boxes = selective_search(image, settings)
    # another run may search in the same image at the same time
    own = Path(f"{out}.{os.getpid()}")
    with replacing(own) as part, open(part, "wb") as file:
        np.save(file, boxes)
    os.replace(own, out)


def _opencv() -> Any:
    try:
        import cv2

        if hasattr(cv2, "ximgproc"):
            return cv2
    except ImportError:
        pass
    raise ImportError(
        "selective search needs OpenCV with its contributed modules: pip install "
        "'uic-plugin[voc]' (opencv-contrib-python-headless; remove other builds of OpenCV first)"
    )
