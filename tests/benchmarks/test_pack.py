"""Packing against Pillow's own decoding, and what it costs to get one packed image.

    UIC_PHOTOS=FOLDER pytest -m benchmark --benchmark-enable -s tests/benchmarks/test_pack.py

FOLDER holds photographs in class folders, as imagenette160/train; without it JPEGs of 160 pixels
are drawn. All figures are ratios within one run, measured in turns.
"""

import multiprocessing
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from uic_plugin.data.pack import PackSettings
from uic_plugin.data.packed import PackStore
from uic_plugin.data.packing import pack_images

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1200)]
IMAGES, SIZE, PROCESSES, ROUNDS = 6000, 128, 2, 3


@pytest.fixture(scope="module")
def photos(photos_of):
    """A folder of 6,000 photographs of 160 pixels."""
    return photos_of(IMAGES, 200, 160)


def decode_and_resize(paths):
    """What Pillow itself takes for a list of files."""
    for path in paths:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            scale = SIZE / min(image.size)
            if scale < 1:
                shape = tuple(int(side * scale) for side in image.size)
                image = image.resize(shape, Image.Resampling.BILINEAR)


def seconds_of_pillow(paths):
    """Seconds of processes that decode half of the files each, and keep nothing."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=decode_and_resize, args=(paths[number::PROCESSES],))
        for number in range(PROCESSES)
    ]
    start = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - start


def test_packing_is_as_fast_as_decoding(photos, tmp_path):
    paths = sorted(photos.rglob("*.*"))
    ratios = []
    for number in range(ROUNDS):
        pillow = seconds_of_pillow(paths)
        out = tmp_path / str(number)
        start = time.perf_counter()
        pack_images(photos, out, PackSettings(SIZE, workers=PROCESSES))
        packing = time.perf_counter() - start
        shutil.rmtree(out)
        again = seconds_of_pillow(paths)
        ratios.append((pillow + again) / 2 / packing)
        print(
            f"\n{len(paths)} images: Pillow {len(paths) / pillow:.0f} and {len(paths) / again:.0f} "
            f"a second, packing {len(paths) / packing:.0f}, ratio {ratios[-1]:.2f}",
            end="",
        )
    assert statistics.median(ratios) >= 0.9


def rate(get, numbers):
    """Images a second, copied out so that every pixel is read."""
    start = time.perf_counter()
    for number in numbers:
        np.array(get(number))
    return len(numbers) / (time.perf_counter() - start)


def test_random_access(photos, tmp_path):
    store = pack_images(photos, tmp_path / "packed", PackSettings(0))
    names = list(store.index.names())
    column = as_arrow(store, tmp_path / "pixels.arrow")

    def of_arrow(number):
        shape = (*store.sizes[number].tolist(), 3)
        return np.frombuffer(column[number].as_buffer(), np.uint8).reshape(shape)

    def decoded(number):
        with Image.open(store.folder / names[number]) as image:
            return np.asarray(image.convert("RGB"))

    found = {"npy": [], "arrow": [], "decoded": []}
    for number in range(ROUNDS):
        order = np.random.default_rng(number).permutation(len(store)).tolist()
        found["npy"].append(rate(store.raw, order))
        found["arrow"].append(rate(of_arrow, order))
        found["decoded"].append(rate(decoded, order[:1000]))
    rates = {name: statistics.median(values) for name, values in found.items()}
    shown = ", ".join(f"{name} {value:.0f}" for name, value in rates.items())
    print(f"\nrandom single images a second: {shown}", end="")
    assert rates["npy"] > 0.9 * rates["arrow"]
    assert rates["npy"] > 10 * rates["decoded"]


def as_arrow(store: PackStore, path: Path) -> pa.ChunkedArray:
    """The same pixels as a column of an Arrow file, mapped into memory."""
    schema = pa.schema([("pixels", pa.large_binary())])
    with pa.ipc.new_file(str(path), schema) as writer:
        for first in range(0, len(store), 256):
            rows = range(first, min(first + 256, len(store)))
            cells = [store.raw(number).tobytes() for number in rows]
            writer.write_batch(pa.record_batch([pa.array(cells, pa.large_binary())], schema))
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()["pixels"]
