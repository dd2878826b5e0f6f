"""Images from an index, from Parquet files, from HDF5: the same training as from their folder."""

import io
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from uic_plugin.data.parquet import ParquetImages
from uic_plugin.hosts import find_host
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.training import pretrain


def train(cfg):
    result = pretrain(cfg, reporter=EpochReporter("test"))
    return read_checkpoint(result.run_dir / "last.ckpt")


@pytest.fixture
def folder(digits, recipe, tmp_path):
    """Overrides for the folder of images, and what training on it gives."""
    given = [
        f"data.train_path={digits / 'train'}",
        f"data.val_path={digits / 'val'}",
        "max_epochs=1",
    ]
    return given, train(recipe(*given, f"run_dir={tmp_path / 'folder'}"))


def equal(first, second):
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name
    assert torch.equal(first["uic"]["bank"]["targets"], second["uic"]["bank"]["targets"])


@pytest.mark.all_digits
def test_index(folder, recipe, digits, tmp_path, uic):
    given, expected = folder
    assert uic("data", "index", digits / "train", "train.index").returncode == 0
    cfg = recipe(*given, f"data.index={tmp_path / 'train.index'}", f"run_dir={tmp_path / 'run'}")
    state = train(cfg)
    equal(state, expected)
    assert state["uic"]["bank"]["fingerprint"] == expected["uic"]["bank"]["fingerprint"]
    done = uic("knn", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    done = uic("label", tmp_path / "run", "--out", "labels.csv")
    assert done.returncode == 0, done.stderr


def parquet(source, target, parts):
    """The images of class folders as Hugging Face's datasets writes them."""
    datasets = pytest.importorskip("datasets")
    rows = {"image": [], "label": []}
    names = sorted(path.name for path in source.iterdir() if path.is_dir())
    for label, name in enumerate(names):
        for path in sorted((source / name).iterdir()):
            rows["image"].append({"bytes": path.read_bytes(), "path": path.name})
            rows["label"].append(label)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    table = datasets.Dataset.from_dict(rows, features=features)
    target.mkdir(parents=True)
    for number in range(parts):
        shard = table.shard(parts, number, contiguous=True)
        shard.to_parquet(str(target / f"train-{number:05d}-of-{parts:05d}.parquet"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.all_digits
def test_parquet(folder, recipe, digits, tmp_path, uic, monkeypatch, workers):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    _, expected = folder
    parquet(digits / "train", tmp_path / "p" / "train", 3)
    parquet(digits / "val", tmp_path / "p" / "val", 1)
    cfg = recipe(
        "data.format=parquet",
        f"data.train_path={tmp_path / 'p' / 'train'}",
        f"data.val_path={tmp_path / 'p' / 'val'}",
        f"data.num_workers={workers}",
        "max_epochs=1",
    )
    equal(train(cfg), expected)
    done = uic("knn", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("top-1")[-1].split("%")[0].split()[-1]) > 50
    done = uic("label", tmp_path / "run", "--out", "labels.csv")
    assert done.returncode == 1
    assert "holds no image files of their own" in done.stderr


@pytest.mark.parametrize(
    "cell", [None, {"bytes": None, "path": None}, {"bytes": None, "path": "../else.png"}]
)
def test_a_row_of_parquet_without_an_image(digits, tmp_path, monkeypatch, cell):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = next(digits.glob("train/*/*.png"))
    (tmp_path / "p").mkdir()
    cells = [{"bytes": path.read_bytes(), "path": path.name}, cell]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(cells, kind)})
    pyarrow.parquet.write_table(table, tmp_path / "p" / "train-00000-of-00001.parquet")
    images = ParquetImages(tmp_path / "p", lambda image: image.size)
    assert images[0][0] == Image.open(path).size
    with pytest.raises(OSError, match=r"row 1 of .*p has no image"):  # named, or skipped
        images[1]


def hdf5(source, target):
    h5py = pytest.importorskip("h5py")
    with h5py.File(target, "w") as file:
        for path in sorted(source.glob("*/*.png")):
            content = np.frombuffer(path.read_bytes(), np.uint8)
            file.require_group(path.parent.name)[path.name] = content


@pytest.mark.all_digits
def test_h5(folder, recipe, digits, tmp_path, monkeypatch, uic):
    monkeypatch.setenv("HOME", str(tmp_path))  # the host keeps a list of the images there
    _, expected = folder
    for part in ("train", "val"):
        hdf5(digits / part, tmp_path / f"{part}.h5")
    cfg = recipe(
        "data.format=h5",
        f"data.train_path={tmp_path / 'train.h5'}",
        f"data.val_path={tmp_path / 'val.h5'}",
        "max_epochs=1",
    )
    if find_host().line != "main":
        with pytest.raises(ValueError, match="needs solo-learn main"):
            train(cfg)
        return
    equal(train(cfg), expected)
    assert uic("knn", tmp_path / "run").returncode == 0
    (tmp_path / "train.h5").unlink()
    shutil.copy(tmp_path / "val.h5", tmp_path / "train.h5")  # the host's list is still the other's
    cfg.run_dir = str(tmp_path / "b")
    with pytest.raises(ValueError, match="is of another file: remove it"):
        train(cfg)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["data.format=zip"], ValueError, "one of image_folder, parquet, h5, packed, got 'zip'"),
        (["data.index=none.index"], FileNotFoundError, "no such index"),
        (["data.format=parquet"], FileNotFoundError, "no .parquet files"),
        (["data.format=h5"], ValueError, "needs an HDF5 file"),
    ],
)
def test_one_line_for_a_mistake(recipe, digits, given, error, message):
    with pytest.raises(error, match=message):
        train(recipe(*given, f"data.train_path={digits / 'train'}"))


HOSTILE = {
    "truncated.png": lambda whole: whole[: len(whole) // 2],
    "empty.png": lambda whole: b"",
    "text.png": lambda whole: b"no image at all",
    "bomb.png": lambda whole: (
        # a PNG header that promises 100,000 x 100,000 pixels
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x86\xa0\x00\x01\x86\xa0\x08\x02\x00\x00\x00"
        b"\xbe\xc3\x1b\x80"
    ),
}
UNUSUAL = {
    "cmyk.jpg": ("CMYK", (8, 8), "JPEG"),
    "palette.png": ("P", (8, 8), "PNG"),
    "sixteen.png": ("I;16", (8, 8), "PNG"),
    "one.png": ("RGB", (1, 1), "PNG"),
    "alpha.png": ("RGBA", (9, 5), "PNG"),
    "grey.png": ("L", (3, 20), "PNG"),
}


@pytest.fixture
def zoo(digits, tmp_path):
    """Digits in a flat folder, and images that are broken or unusual among them."""
    root = tmp_path / "zoo"
    root.mkdir()
    good = sorted(digits.glob("train/*/*.png"))
    for number, path in enumerate(good[::6]):
        (root / f"{number:04d}.png").write_bytes(path.read_bytes())
    for name, (mode, size, kind) in UNUSUAL.items():
        content = io.BytesIO()
        Image.new(mode, size).save(content, kind)
        (root / name).write_bytes(content.getvalue())
    return root


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, pytest.param(0, marks=pytest.mark.slow)])
@pytest.mark.all_digits
def test_hostile_images(recipe, zoo, uic, tmp_path, workers):
    given = ["data.dataset=custom", f"data.train_path={zoo}", f"data.num_workers={workers}"]
    given += ["method_kwargs.balanced_sampling=false", "optimizer.batch_size=32"]
    train(recipe(*given, f"run_dir={tmp_path / 'good'}"))  # the unusual ones are no trouble
    whole = next(zoo.glob("0*.png")).read_bytes()
    for name, damage in HOSTILE.items():
        (zoo / name).write_bytes(damage(whole))
        with pytest.raises(ValueError, match=f"cannot read .*{name}"):
            train(recipe(*given, f"run_dir={tmp_path / name}", "max_epochs=20"))
        for path in (tmp_path / name).glob("*"):
            path.unlink()
        (zoo / name).unlink()
    for name, damage in HOSTILE.items():
        (zoo / name).write_bytes(damage(whole))
    state = train(recipe(*given, "data.on_bad_image=skip", f"run_dir={tmp_path / 'skip'}"))
    assert state["uic"]["bank"]["num_samples"] == len(list(zoo.iterdir()))
    counts = [float(row["bad_images"]) for row in read_csv(tmp_path / "skip" / "epochs.csv")]
    assert all(1 <= count <= 10 for count in counts)
    limit = ["data.on_bad_image=skip", "data.max_bad_images=1", f"run_dir={tmp_path / 'limit'}"]
    cfg = recipe(*given, *limit)
    with pytest.raises(ValueError, match=r"2 images could not be read .* data.max_bad_images=1"):
        train(cfg)
