"""Decode images in processes, each of which writes its pixels to their place in one file.

The list is cut into chunks. A process takes the next chunk, decodes it, and learns where its pixels
begin as soon as all chunks before it are decoded; until then it decodes further ones. So the file
has the order of the list whatever the number of processes, and no pixel goes through a pipe.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from uic_plugin.data.listed import opened
from uic_plugin.data.rgb import as_rgb, upright
from uic_plugin.data.views import BAD_IMAGE_ERRORS

CHUNK = 64  # images
_HELD = 4  # decoded chunks that a process may hold back
_CHECK_SECONDS = 1.0  # between looks at the parent process, or at the time
_CONTEXT: Any = multiprocessing.get_context("fork")  # the list is mapped memory, which is inherited


@dataclass(frozen=True)
class PixelJob:
    """The images to decode, and how.

    Attributes:
        root: folder of the images.
        name: path of an image below it, by its number.
        total: number of images N.
        size: pixels of the shorter side, 0 for all.
        square: whether to cut the central square.
        file: descriptor of the file of pixels.
        start: byte of the file at which pixels begin.
    """

    root: Path
    name: Callable[[int], str]
    total: int
    size: int
    square: bool
    file: int
    start: int

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.total // CHUNK)

    def numbers(self, chunk: int) -> range:
        """Return the numbers of a chunk's images."""
        return range(chunk * CHUNK, min((chunk + 1) * CHUNK, self.total))

    def paths(self, chunk: int) -> list[str]:
        """Return the files of a chunk's images."""
        return [os.path.join(self.root, self.name(number)) for number in self.numbers(chunk)]


@dataclass(frozen=True)
class WrittenChunk:
    """A chunk whose pixels are in the file.

    Attributes:
        chunk: its number.
        end: bytes of pixels up to its last one.
        sizes: (n, 2) int32 heights and widths, 0 for images that cannot be read.
        bad: their numbers and the reasons.
        files: digest of the files' sizes and times.
    """

    chunk: int
    end: int
    sizes: np.ndarray
    bad: list[tuple[int, str]]
    files: str


def fitted(image: Image.Image, size: int, square: bool) -> Image.Image:
    """Return an RGB image whose shorter side has at most `size` pixels, or its central square.

    It is the arithmetic of torchvision's `Resize` and `CenterCrop`, bilinear with antialiasing: an
    evaluation that resizes to the same size finds nothing left to do.
    """
    width, height = image.size
    shorter, longer = min(width, height), max(width, height)
    if size and (shorter > size or (square and shorter != size)):
        other = int(size * longer / shorter)
        shape = (size, other) if width <= height else (other, size)
        image = image.resize(shape, Image.Resampling.BILINEAR)
    if square:
        left, top = (round((side - size) / 2) for side in image.size)
        image = image.crop((left, top, left + size, top + size))
    return image


def _pixels(path: str, size: int, square: bool) -> tuple[tuple[int, int], bytes]:
    """Return width and height of an image as it is packed, and its pixels."""
    with opened(path) as image:
        image.load()
        # as `decode`, without the copy that `convert` makes of an RGB image
        rgb = upright(image) if image.mode == "RGB" else as_rgb(image)
        rgb = fitted(rgb, size, square)
        return rgb.size, rgb.tobytes()


def files_digest(paths: Sequence[str]) -> str:
    """Return 16 hexadecimal digits of the sizes and modification times of files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
        except OSError:
            digest.update(b"-\n")
    return digest.hexdigest()


def digest_of_all(root: Path, names: list[str]) -> str:
    """Return the `files` of a pack of these images, as their files are now."""
    paths = [os.path.join(root, name) for name in names]
    chunks = (files_digest(paths[i : i + CHUNK]) for i in range(0, len(paths), CHUNK))
    return hashlib.blake2b("".join(chunks).encode(), digest_size=8).hexdigest()


def written_chunks(
    job: PixelJob, *, first: int, offset: int, workers: int
) -> Iterator[WrittenChunk | None]:
    """Decode and write all chunks from `first` on, and yield each when it is written.

    It yields None when nothing has arrived for a while.

    Args:
        job: the images.
        first: number of the first chunk to decode.
        offset: bytes of pixels before it.
        workers: processes, or 0 for this one.

    Raises:
        OSError: if the file cannot be written, or a process has ended before its time.
    """
    if workers == 0:
        for chunk in range(first, job.chunks):
            decoded = _Decoded(job, chunk)
            yield decoded.write(job, offset)
            offset += decoded.num_bytes
        return
    turns = _Turns(first, offset)
    readers: list[Connection] = []
    processes: list[BaseProcess] = []
    try:
        for _ in range(min(workers, max(job.chunks - first, 1))):
            reader, writer = _CONTEXT.Pipe(duplex=False)
            readers.append(reader)
            arguments = (job, turns, writer, list(readers), os.getpid())
            process = _CONTEXT.Process(target=_work, args=arguments, daemon=True)
            process.start()
            processes.append(process)
            writer.close()
        yield from _received(dict(zip(readers, processes, strict=True)), job.chunks - first)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for reader in readers:
            reader.close()


def _received(
    senders: dict[Connection, BaseProcess], missing: int
) -> Iterator[WrittenChunk | None]:
    """Yield what the processes send until all chunks are there.

    Raises:
        OSError: one that a process has sent; or if a process has ended before its time, whose
            chunks the others would wait for.
    """
    open_ = dict(senders)
    while missing:
        ready: list[Any] = list(wait(list(open_), _CHECK_SECONDS))
        if not ready:
            yield None
        for reader in ready:
            try:
                message = reader.recv()
            except (EOFError, ConnectionResetError):
                process = open_.pop(reader)
                process.join()
                if process.exitcode or not open_:
                    raise OSError(
                        "a process that decodes images has ended before its time (out of "
                        "memory?): the same command resumes, with fewer --workers, say"
                    ) from None
                continue
            if isinstance(message, OSError):
                raise message
            missing -= 1
            yield message


class _Decoded:
    """A decoded chunk that waits for its place in the file."""

    def __init__(self, job: PixelJob, chunk: int) -> None:
        paths = job.paths(chunk)
        self.chunk, self.files = chunk, files_digest(paths)
        self.sizes = np.zeros((len(paths), 2), np.int32)
        self.pixels: list[bytes] = []
        self.bad: list[tuple[int, str]] = []
        for row, path in enumerate(paths):
            try:
                size, pixels = _pixels(path, job.size, job.square)
            except BAD_IMAGE_ERRORS as error:
                is_none = isinstance(error, UnidentifiedImageError)
                reason = "not an image" if is_none else str(error)
                self.bad.append((chunk * CHUNK + row, reason))
                continue
            self.sizes[row] = size[::-1]
            self.pixels.append(pixels)
        self.num_bytes = sum(map(len, self.pixels))

    def write(self, job: PixelJob, offset: int) -> WrittenChunk:
        """Write the pixels at their offset."""
        at = job.start + offset
        done = os.pwritev(job.file, self.pixels, at) if self.pixels else 0
        if done < self.num_bytes:  # a signal, or the last free bytes of the disk
            rest = memoryview(b"".join(self.pixels))[done:]
            while rest:
                done += (count := os.pwrite(job.file, rest, at + done))
                rest = rest[count:]
        return WrittenChunk(self.chunk, offset + self.num_bytes, self.sizes, self.bad, self.files)


class _Turns:
    """Which chunk is next, and where its pixels go: shared by the processes."""

    def __init__(self, first: int, offset: int) -> None:
        self._lock = _CONTEXT.Lock()
        self._taken, self._placed, self._end = (
            _CONTEXT.RawValue("q", value) for value in (first, first, offset)
        )

    def take(self) -> int:
        """Return the number of the next chunk that nobody has taken."""
        with self._lock:
            chunk: int = self._taken.value
            self._taken.value += 1
        return chunk

    def place(self, decoded: _Decoded) -> int | None:
        """Return the offset of a chunk's pixels; None while an earlier chunk has none."""
        with self._lock:
            if self._placed.value != decoded.chunk:
                return None
            offset: int = self._end.value
            self._placed.value += 1
            self._end.value += decoded.num_bytes
        return offset


def _work(
    job: PixelJob, turns: _Turns, out: Connection, readers: list[Connection], parent: int
) -> None:
    """Decode chunks until none is left, or the parent process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for reader in readers:  # inherited; the pipes are to break when the parent ends
        reader.close()
    held: deque[_Decoded] = deque()
    try:
        while (chunk := turns.take()) < job.chunks:
            held.append(_Decoded(job, chunk))
            _write_held(job, turns, out, held, most=_HELD, parent=parent)
        _write_held(job, turns, out, held, most=0, parent=parent)
    except BrokenPipeError:
        return
    except OSError as error:
        out.send(OSError(error.errno, os.strerror(error.errno or 0)))


def _write_held(
    job: PixelJob, turns: _Turns, out: Connection, held: deque[_Decoded], *, most: int, parent: int
) -> None:
    """Write the chunks whose turn it is; wait until no more than `most` are left."""
    while held:
        offset = turns.place(held[0])
        if offset is not None:
            out.send(held.popleft().write(job, offset))
        elif len(held) <= most:
            return
        elif os.getppid() != parent:
            raise BrokenPipeError
        else:
            time.sleep(0.001)
