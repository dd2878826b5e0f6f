"""Label a folder of images with a trained network, once (UIC, section 4.3: fixed labels)."""

from __future__ import annotations

import dataclasses
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

from uic_plugin.data.draws import Draw
from uic_plugin.data.folders import images_below
from uic_plugin.data.labels import (
    LabelTable,
    check_label_file,
    read_labels,
    relabel_like,
    write_labels,
)
from uic_plugin.data.listed import decode
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.pack_pixels import digest_of_all
from uic_plugin.data.packed import PackedByPath, check_decoded_size, is_packed, open_packed
from uic_plugin.data.views import BAD_IMAGE_ERRORS
from uic_plugin.networks.weights import weights_fingerprint
from uic_plugin.runs.datasets import training_paths
from uic_plugin.runs.label_settings import LabelSettings
from uic_plugin.runs.run import Run
from uic_plugin.seeding import derive_seed, seed_step

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
        root: the folder, or a packed one.
        transform: an image to a tensor.
        images: paths below the folder; by default all images, sorted.
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
        self._packed = PackedByPath(root) if is_packed(root) else None
        self.images = images or (self._packed.names if self._packed else images_below(root))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, bool]:
        path = self.root / self.images[index]
        try:
            image = self._packed.image(self.images[index]) if self._packed else decode(path)
            return self.transform(image), True
        except BAD_IMAGE_ERRORS as error:
            if not self.skip_bad:
                raise
            warnings.warn(f"{path} cannot be read and gets no label ({error})", stacklevel=2)
            return self.transform(Image.new("RGB", (64, 64))), False


def label_images(
    run: Run,
    out: Path,
    *,
    data: Path | None = None,
    settings: LabelSettings | None = None,
    like: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelTable:
    """Write the pseudo labels of all images below a folder to a label file.

    The columns `second` and `second_confidence` are the next best class. Classes keep the names
    of the label file that the run was trained with (`fixed_labels`), where that file is still
    there. What is done lies in `OUT.rows` until the file is complete; the same call resumes there.

    Args:
        run: a trained run with pseudo classes.
        out: `.parquet` or `.csv`.
        data: a folder, or a packed one; all images below it are labelled. By default the run's own
            training images, no more of them than it was trained on.
        settings: how.
        like: an edited label file of this run's classes, whose numbers and names are used.
        progress: is told how many images of how many are done.

    Returns:
        What was written.

    Raises:
        ValueError: for a method without pseudo classes or an unknown ending.
        FileNotFoundError: if there are no images.
    """
    settings = settings or LabelSettings()
    classifier = run.classifier(settings.classes)
    check_label_file(out)
    reference = _reference(run.config, like)
    dataset = _images_to_label(run, data, settings)
    check_label_file(out, dataset.images)
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = out.with_name(out.name + ".rows")
    _label_rest(run, classifier, dataset, settings, kept, progress)
    table = _table_of(dataset, kept)
    if reference is not None:
        table = relabel_like(table, reference)
    write_labels(out, table)
    kept.unlink()
    return table


def _images_to_label(run: Run, data: Path | None, settings: LabelSettings) -> ImageFiles:
    cfg = run.config
    transform = run.view if settings.view == "center" else _FirstView(run.augmentation)
    own = training_paths(cfg, run.source) if data is None else None
    skip = cfg.data.on_bad_image == "skip"
    if data is not None and is_packed(data):
        check_decoded_size(open_packed(data), cfg.augmentations[0].crop_size)
    dataset = ImageFiles(data or run.source.train, transform, own, skip_bad=skip)
    if settings.mode == "train" and len(dataset) % settings.batch_size == 1:
        raise ValueError(
            f"--batch-size {settings.batch_size} leaves one of the {len(dataset)} images alone, "
            f"and one image has no batch statistics: choose another"
        )
    return dataset


def _label_rest(
    run: Run,
    classifier: torch.nn.Module,
    dataset: ImageFiles,
    settings: LabelSettings,
    kept: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Label the images that an earlier, stopped call has left, and append their rows to a file."""
    seed, size = run.config.seed, settings.batch_size
    done = _open_rows(kept, _identity(run, dataset, settings), len(dataset), size)
    classifier.to(run.device).train(settings.mode == "train")
    batches = _batches(dataset, run.config, done, size, random=settings.view == "train")
    with open(kept, "ab") as file:
        for number, (images, readable) in enumerate(batches, done // size):
            seed_step(derive_seed(seed, "label step", number))
            rows = np.full(len(images), _UNREADABLE, _ROW)
            if readable.any():
                rows[readable.numpy()] = _rows(classifier, images[readable].to(run.device))
            file.write(rows.tobytes())
            file.flush()
            done += len(rows)
            progress(done, len(dataset))


def _table_of(dataset: ImageFiles, kept: Path) -> LabelTable:
    """Return the rows of a complete file as a label table, without unreadable images."""
    with open(kept, "rb") as file:
        file.readline()
        rows = np.frombuffer(file.read(), _ROW)
    readable = np.flatnonzero(rows["label"] >= 0)
    rows = rows[readable]
    return LabelTable(
        [dataset.images[i] for i in readable],
        rows["label"].astype(np.int64),
        rows["confidence"],
        rows["entropy"],
        {
            "second": rows["second"].astype(np.int64),
            "second_confidence": rows["second_confidence"],
        },
    )


def _reference(cfg: DictConfig, like: Path | None) -> LabelTable | None:
    """Return the label file whose names the classes have: as given, else as trained with."""
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
    """Return batches of the images that are left, in order."""
    left = range(done, len(dataset))
    order = [Draw.at(index, 0, index) for index in left] if random else list(left)
    yield from view_loader(
        dataset,
        seed=cfg.seed,
        batch_size=batch_size,
        num_workers=cfg.data.num_workers,
        sampler=order,
    )


def _identity(run: Run, dataset: ImageFiles, settings: LabelSettings) -> bytes:
    """Return a line that says whose rows these are: images, weights and settings.

    Images are known by their names and by what their files are now, so that one that has changed
    since a stopped call is labelled again, with all others.
    """
    names = [str(dataset.root.resolve()), _state_of(dataset), *dataset.images]
    digest = hashlib.blake2b("\0".join(names).encode(errors="surrogateescape"))
    digest.update(weights_fingerprint(run.backbone).encode())
    digest.update(weights_fingerprint(run.head).encode())
    cfg = run.config
    given = [*dataclasses.astuple(settings), cfg.seed, str(cfg.augmentations[0]), _ROW.descr]
    return json.dumps([digest.hexdigest()[:32], *given]).encode() + b"\n"


def _state_of(dataset: ImageFiles) -> str:
    """Return what says that the content of images is that of before."""
    if is_packed(dataset.root):
        about = open_packed(dataset.root).about
        return f"{about.files} {about.size} {about.square}"
    return digest_of_all(dataset.root, list(dataset.images))


def _open_rows(path: Path, identity: bytes, num_images: int, batch_size: int) -> int:
    """Return how many images a stopped call has labelled; cut off its unfinished batch."""
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
