"""Label a folder of images with a trained network, once (UIC, section 4.3: fixed labels)."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch.utils.data import Dataset

from uic_plugin.data.center import center_view
from uic_plugin.data.draws import Draw
from uic_plugin.data.folders import images_below
from uic_plugin.data.labels import (
    LabelTable,
    check_label_file,
    read_labels,
    relabel_like,
    write_labels,
)
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.resolve import DataSource
from uic_plugin.data.views import BAD_IMAGE_ERRORS
from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.runs.datasets import training_paths
from uic_plugin.hosts.foreign import set_views
from uic_plugin.methods import has_pseudo_labels
from uic_plugin.networks.weights import weights_fingerprint
from uic_plugin.seeding import derive_seed

_ROW = np.dtype(
    [
        ("label", "<i4"),
        ("confidence", "<f4"),
        ("entropy", "<f4"),
        ("second", "<i4"),
        ("second_confidence", "<f4"),
    ]
)
_UNREADABLE = np.array((-1, 0, 0, -1, 0), _ROW)


class ImageFiles(Dataset[tuple[torch.Tensor, bool]]):
    """Images below a folder, items (image, whether it could be read).

    Args:
        root: the folder.
        transform: an image to a tensor.
        images: paths below the folder; all images, sorted, unless told.
        skip_bad: put a black image where one cannot be read, and warn; else it is an error.

    Attributes:
        images: paths below the folder, with forward slashes.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
    """

    def __init__(
        self,
        root: Path,
        transform: Callable[[Any], torch.Tensor],
        images: list[str] | None = None,
        *,
        skip_bad: bool = False,
    ) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: there is no such folder of images")
        self.root, self.transform, self.skip_bad = root, transform, skip_bad
        self.images = images or images_below(root)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, bool]:
        path = self.root / self.images[index]
        try:
            with Image.open(path) as image:
                return self.transform(image.convert("RGB")), True
        except BAD_IMAGE_ERRORS as error:
            if not self.skip_bad:
                raise
            warnings.warn(f"{path} cannot be read and gets no label ({error})", stacklevel=2)
            return self.transform(Image.new("RGB", (64, 64))), False


def label_images(
    method: Any,
    cfg: DictConfig,
    source: DataSource,
    out: Path,
    *,
    data: Path | None = None,
    view: str = "center",
    mode: str = "eval",
    batch_size: int = 256,
    like: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelTable:
    """Pseudo labels of all images below a folder, written to a label file.

    The columns `second` and `second_confidence` are the next best class. Classes keep the names
    of the label file that the run was trained with (`fixed_labels`), where that file is still
    there. What is done lies in `OUT.rows` until the file is complete; the same call resumes there.

    Args:
        method: a trained method with a head.
        cfg: its prepared recipe.
        source: where its training images are.
        out: `.parquet` or `.csv`.
        data: a folder; all images below it are labelled. The run's own training images unless
            told, no more of them than it was trained on.
        view: "center", or "train" for one random view of the recipe's augmentation.
        mode: "eval", or "train" for dropout and batch statistics as in training.
        batch_size: images at once; in mode "train" it changes the statistics.
        like: an edited label file of this run's classes, whose numbers and names are used.
        progress: is told how many images of how many are done.

    Raises:
        ValueError: for a method without pseudo classes or an unknown view, mode or ending.
        FileNotFoundError: if there are no images.
    """
    for name, value, choices in (
        ("view", view, ("center", "train")),
        ("mode", mode, ("eval", "train")),
    ):
        if value not in choices:
            raise ValueError(f"--{name} must be one of {', '.join(choices)}, got {value!r}")
    if not has_pseudo_labels(cfg.method):
        raise ValueError(
            f"{cfg.method} has no pseudo classes to label images with: give a run of uic"
        )
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {batch_size}")
    check_label_file(out)
    reference = _reference(cfg, like)
    set_views(cfg.augmentations, 1)
    augmentation = load_host().augmentation(source.transforms, cfg.augmentations)
    transform = center_view(augmentation) if view == "center" else _FirstView(augmentation)
    own = training_paths(cfg, source) if data is None else None
    skip = cfg.data.on_bad_image == "skip"
    dataset = ImageFiles(data or source.train, transform, own, skip_bad=skip)
    device = torch.device(
        "cuda" if torch.cuda.is_available() and cfg.accelerator != "cpu" else "cpu"
    )
    if mode == "train" and len(dataset) % batch_size == 1:
        raise ValueError(
            f"--batch-size {batch_size} leaves one of the {len(dataset)} images alone, and one "
            f"image has no batch statistics: choose another"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = out.with_name(out.name + ".rows")
    identity = _identity(
        method,
        dataset,
        view,
        mode,
        batch_size,
        cfg.seed,
        str(cfg.augmentations[0]),
        _ROW.descr,
    )
    done = _open_rows(kept, identity, len(dataset), batch_size)
    # a copy: in mode "train" a pass moves the running statistics
    network = copy.deepcopy(torch.nn.Sequential(backbone_of(method), _Logits(method.head)))
    network.to(device)
    network.train(mode == "train")
    with open(kept, "ab") as file:
        for number, (images, readable) in enumerate(
            _batches(dataset, cfg, done, batch_size, random=view == "train"), done // batch_size
        ):
            torch.manual_seed(derive_seed(cfg.seed, "label step", number))
            rows = np.full(len(images), _UNREADABLE, _ROW)
            if readable.any():
                rows[readable.numpy()] = _rows(network, images[readable].to(device))
            file.write(rows.tobytes())
            file.flush()
            done += len(rows)
            progress(done, len(dataset))
    with open(kept, "rb") as file:
        file.readline()
        rows = np.frombuffer(file.read(), _ROW)
    kept_rows = np.flatnonzero(rows["label"] >= 0)
    rows = rows[kept_rows]
    table = LabelTable(
        [dataset.images[i] for i in kept_rows],
        rows["label"].astype(np.int64),
        rows["confidence"],
        rows["entropy"],
        {
            "second": rows["second"].astype(np.int64),
            "second_confidence": rows["second_confidence"],
        },
    )
    if reference is not None:
        table = relabel_like(table, reference)
    write_labels(out, table)
    kept.unlink()
    return table


def _reference(cfg: DictConfig, like: Path | None) -> LabelTable | None:
    """The label file whose names the classes have: the one given, else the one trained with."""
    if like is not None:
        return read_labels(like)
    fixed = cfg.method_kwargs.get("fixed_labels")
    if not fixed or not Path(fixed).expanduser().is_file():
        return None
    table = read_labels(Path(fixed).expanduser())
    if not table.names:
        return None
    # the network was trained with these numbers: what they were before does not matter
    own = {name: values for name, values in table.extra.items() if name != "source_label"}
    return replace(table, extra=own)


class _Logits(torch.nn.Module):
    """Logits of the first of a head's classifiers."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(features)[1]
        return logits[:, : self.head.num_classes]


@torch.no_grad()
def _rows(network: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    log_p = network(images).float().log_softmax(1)
    p = log_p.exp()
    confidence, labels = p.max(1)
    others, second = p.scatter(1, labels[:, None], -1).max(1)
    rows = np.empty(len(images), _ROW)
    rows["label"], rows["confidence"] = labels.cpu(), confidence.cpu()
    rows["second"], rows["second_confidence"] = second.cpu(), others.cpu()
    rows["entropy"] = -(p * log_p).sum(1).cpu()
    return rows


class _FirstView:
    """One view of an augmentation that makes several."""

    def __init__(self, augmentation: Callable[[Any], Any]) -> None:
        self.augmentation = augmentation

    def __call__(self, image: Any) -> torch.Tensor:
        views = self.augmentation(image)
        return views if isinstance(views, torch.Tensor) else views[0]

    def __repr__(self) -> str:
        return f"first view of {self.augmentation}"


def _batches(
    dataset: ImageFiles, cfg: DictConfig, done: int, batch_size: int, *, random: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of the images that are left, in order."""
    left = range(done, len(dataset))
    order = [Draw.at(index, 0, index) for index in left] if random else list(left)
    yield from view_loader(
        dataset,
        seed=cfg.seed,
        batch_size=batch_size,
        num_workers=cfg.data.num_workers,
        sampler=order,
    )


def _identity(method: Any, dataset: ImageFiles, *settings: Any) -> bytes:
    names = [str(dataset.root.resolve()), *dataset.images]
    digest = hashlib.blake2b("\0".join(names).encode(errors="surrogateescape"))
    digest.update(weights_fingerprint(backbone_of(method)).encode())
    digest.update(weights_fingerprint(method.head).encode())
    return json.dumps([digest.hexdigest()[:32], *settings]).encode() + b"\n"


def _open_rows(path: Path, identity: bytes, num_images: int, batch_size: int) -> int:
    """Images that an earlier, stopped call has labelled; its unfinished batch is cut off."""
    if path.exists():
        with open(path, "r+b") as file:
            if file.readline() == identity:
                count = (path.stat().st_size - len(identity)) // _ROW.itemsize
                if count < num_images:
                    count -= count % batch_size
                file.truncate(len(identity) + count * _ROW.itemsize)
                return min(count, num_images)
    path.write_bytes(identity)
    return 0
