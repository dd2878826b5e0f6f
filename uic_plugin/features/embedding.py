"""Features of a folder's images by a frozen network, into a store.

Workers read and transform images while the network runs; an image that cannot be read is recorded
and left out. On a CPU the first images decide whether the network runs in bfloat16, which is slower
on a processor without instructions for it.
"""

from __future__ import annotations

import ctypes
import errno
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from uic_plugin.data.folders import ImageList
from uic_plugin.data.loaders import leave_signals_to_parent
from uic_plugin.features.reading import Batch, FrozenImages, Preprocessing, collate, facts_of
from uic_plugin.features.store import (
    ABOUT_FILE,
    Entry,
    FeatureStore,
    FileFacts,
    StoreIdentity,
    StoreWriter,
    writing,
)
from uic_plugin.networks.layers import layer_outputs
from uic_plugin.networks.pretrained import Backbone

PRECISIONS = ("auto", "32", "bf16")
_TRIED = 16  # images to compare the two precisions on
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_FASTER = 1.1  # minimum speed-up by which bfloat16 is chosen


@dataclass(frozen=True)
class Embedded:
    """The result of `embed_images`.

    Attributes:
        store: all features.
        names: images of the list that have features, in its order.
        added: number of images that were computed in this call.
        bad: images that cannot be read.
        seconds: duration of the call.
    """

    store: FeatureStore
    names: list[str]
    added: int
    bad: list[Entry]
    seconds: float


def embed_images(
    backbone: Backbone,
    images: ImageList,
    out: Path,
    *,
    precision: str = "auto",
    batch_size: int = 32,
    num_workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embedded:
    """Compute the missing features of a list of images; the same call resumes a stopped one.

    Args:
        backbone: the network.
        images: the list.
        out: the store's folder.
        precision: "32", "bf16", or "auto" for that of the store, else the faster one.
        batch_size: images per forward pass.
        num_workers: processes that read images; 0 reads them in this process.
        progress: called with the number of images done, and of all.

    Raises:
        ValueError: for an impossible setting, an unknown layer, a store of another network or
            folder, or if none of the images can be read.
        OSError: if the store cannot be written.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if batch_size < 1 or num_workers < 0:
        raise ValueError(
            f"--batch-size must be at least 1 and --workers at least 0, got {batch_size} and "
            f"{num_workers}"
        )
    start = time.perf_counter()
    old = FeatureStore.open(out) if (out / ABOUT_FILE).exists() else None
    network = FrozenNetwork(backbone)
    if precision == "auto":
        known = None if old is None else old.identity.precision
        precision = known or network.faster_precision(images)
    network.precision = precision
    identity = _identity(backbone, images.root, precision, network.dim(old))
    facts = facts_of(images.root)
    whole = old if old is not None and old.identity == identity else None
    if whole and not any(_is_missing(whole, facts, name) for name in images.names):
        return _embedded(whole, images, 0, start)  # which may lie where nobody may write
    with ExitStack() as stack:
        try:
            writer = stack.enter_context(writing(out, identity))
        except OSError as error:
            if whole and _is_read_only(error) and _lacks_only_bad(whole, facts, images.names):
                return _embedded(whole, images, 0, start)
            raise
        added = _add_missing(
            writer, network, images, progress, batch_size=batch_size, num_workers=num_workers
        )
    return _embedded(writer.store, images, added, start)


def _add_missing(
    writer: StoreWriter,
    network: FrozenNetwork,
    images: ImageList,
    progress: Callable[[int, int], None],
    *,
    batch_size: int,
    num_workers: int,
) -> int:
    """Compute the features that a store lacks; return how many there were."""
    facts = facts_of(images.root)
    missing = [name for name in images.names if _is_missing(writer.store, facts, name)]
    done, added = len(images.names) - len(missing), 0
    dataset = FrozenImages(images.root, missing, network.backbone)
    for entries, views in _batches(dataset, batch_size, num_workers):
        features = torch.empty(0, writer.store.identity.dim) if views is None else network(views)
        # an image that is still unreadable has its line already
        new = [entry for entry in entries if entry != writer.store.entries.get(entry.name)]
        writer.append(new, features.numpy())
        added += len(features)
        done += len(entries)
        progress(done, len(images.names))
    return added


def _embedded(store: FeatureStore, images: ImageList, added: int, start: float) -> Embedded:
    bad = store.bad(images.names)
    names = _readable(images, bad)
    return Embedded(store, names, added, bad, time.perf_counter() - start)


def _readable(images: ImageList, bad: list[Entry]) -> list[str]:
    """Return the names of the images that have features.

    Raises:
        ValueError: if there are none.
    """
    if len(bad) == len(images.names):
        raise ValueError(
            f"none of the {len(bad)} images of {images.root} can be read: {bad[0].name} "
            f"({bad[0].reason})"
        )
    unreadable = {entry.name for entry in bad}
    return [name for name in images.names if name not in unreadable]


def _identity(backbone: Backbone, folder: Path, precision: str, dim: int) -> StoreIdentity:
    """Return what all features of a backbone in a store have in common."""
    return StoreIdentity(
        backbone=backbone.name,
        weights=backbone.weights,
        size=backbone.size,
        fingerprint=backbone.fingerprint,
        layer=backbone.layer,
        preprocessing=backbone.preprocessing,
        precision=precision,
        folder=str(folder.resolve()),
        dim=dim,
    )


def keep_freed_memory() -> None:
    """Let glibc keep freed memory in the process, if possible.

    A network's maps have megabytes each; by default they are returned to the system and requested
    again for every batch, cleared page by page, which took as long as the forward pass.
    """
    if not sys.platform.startswith("linux"):
        return
    tell = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if tell is not None:
        tell(_M_MMAP_MAX, 0)
        tell(_M_TRIM_THRESHOLD, 2**31 - 1)


class FrozenNetwork:
    """A backbone's layer as a function of images, on a GPU if there is one."""

    def __init__(self, backbone: Backbone, precision: str = "32") -> None:
        keep_freed_memory()
        self.backbone, self.precision = backbone, precision
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network: nn.Module = backbone.network.eval().to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocessing = Preprocessing(backbone.transform)

    def __call__(self, views: torch.Tensor) -> torch.Tensor:
        """Return (B, D) float32 on the CPU: means of a map over its pixels, or over tokens.

        Args:
            views: (B, 3, H, W) float32, or what `Preprocessing.of_batch` makes them of.
        """
        with torch.inference_mode(), self._autocast():
            views = self.preprocessing.of_batch(views.to(self.device))
            views = views.contiguous(memory_format=torch.channels_last)
            output = layer_outputs(self.network, views, [self.backbone.layer])[self.backbone.layer]
            if output.ndim == 4:
                output = output.mean((2, 3))
            elif output.ndim == 3:
                output = output.mean(1)
        return output.flatten(1).float().cpu()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def dim(self, old: FeatureStore | None) -> int:
        """Return D, from a forward pass of a black image if there is no store."""
        if old is not None:
            return old.identity.dim
        side = self.backbone.shorter_side
        view = self.backbone.transform(Image.new("RGB", (side, side)))
        return self(view[None]).shape[1]

    def faster_precision(self, images: ImageList) -> str:
        """Return the faster of "32" and "bf16", by passes over the first readable images."""
        if self.device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported() else "32"
        dataset = FrozenImages(images.root, images.names[: 2 * _TRIED], self.backbone)
        views = [view for _, view in map(dataset.__getitem__, range(len(dataset)))]
        batch = [view for view in views if view is not None][:_TRIED]
        if not batch:
            return "32"
        stacked = torch.stack((batch * _TRIED)[:_TRIED])
        seconds = {}
        for precision in ("32", "bf16"):
            self.precision = precision
            self(stacked)
            times = []
            for _ in range(3):
                start = time.perf_counter()
                self(stacked)
                times.append(time.perf_counter() - start)
            seconds[precision] = min(times)
        return "bf16" if seconds["bf16"] * _FASTER < seconds["32"] else "32"


def _is_missing(store: FeatureStore, facts: Callable[[str], FileFacts], name: str) -> bool:
    """Return whether an image is new, its file has changed, or it could not be read before.

    What kept it from being read need not lie in the file: permissions, a drive that was away.
    """
    entry = store.entries.get(name)
    if entry is None or entry.row is None:
        return True
    try:
        return facts(name) != entry.facts
    except OSError:
        return True


def _lacks_only_bad(
    store: FeatureStore, facts: Callable[[str], FileFacts], names: Sequence[str]
) -> bool:
    """Return whether all images have features, but for unreadable ones that are as they were."""
    for name in names:
        entry = store.entries.get(name)
        if entry is None:
            return False
        try:
            if facts(name) != entry.facts:
                return False
        except OSError:
            if entry.row is not None:
                return False
    return True


def _is_read_only(error: OSError) -> bool:
    """Return whether an error says that a file must not be written, rather than cannot."""
    return isinstance(error, PermissionError) or error.errno == errno.EROFS


def _batches(dataset: FrozenImages, batch_size: int, num_workers: int) -> Iterator[Batch]:
    if not len(dataset):
        return
    yield from DataLoader(
        dataset,
        batch_size,
        num_workers=min(num_workers, len(dataset)),
        collate_fn=collate,
        multiprocessing_context="fork" if num_workers else None,
        worker_init_fn=leave_signals_to_parent,
        prefetch_factor=4 if num_workers else None,
    )
