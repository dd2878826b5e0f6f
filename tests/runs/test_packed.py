"""A packed folder is the folder it was packed from: the same training, labels and figures."""

import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from uic_plugin.data.images import annotations_of, fingerprint_of, path_of, relative_paths
from uic_plugin.data.labels import read_labels
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.packed import PackedImages
from uic_plugin.data.packing import pack_images
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.pseudo_labels import Draw
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs import datasets
from uic_plugin.runs.settings import prepare_config
from uic_plugin.runs.training import pretrain


@pytest.fixture(scope="module")
def data(digits, tmp_path_factory):
    """Every eighth digit in class folders, and packed: overrides of each by name."""
    root = tmp_path_factory.mktemp("data")
    for path in sorted(digits.glob("train/*/*.png"))[::8]:
        target = root / "train" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    pack_images(root / "train", root / "packed", PackSettings(16, workers=0))
    common = ["data.dataset=custom", f"data.val_path={digits / 'val'}"]
    return {
        "folder": [*common, f"data.train_path={root / 'train'}"],
        "packed": [*common, f"data.train_path={root / 'packed'}", "data.format=packed"],
    }


def train(cfg):
    result = pretrain(cfg, reporter=EpochReporter("test"))
    return read_checkpoint(result.run_dir / "last.ckpt")


def equal(first, second):
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name
    for one, two in ((first["uic"]["bank"], second["uic"]["bank"]),):
        assert torch.equal(one["targets"], two["targets"])
        assert one["fingerprint"] == two["fingerprint"]


def folder_of(given):
    return Path(next(w.partition("=")[2] for w in given if w.startswith("data.train_path=")))


@pytest.mark.slow
@pytest.mark.all_digits
def test_training_labels_and_figures_are_the_same(data, recipe, tmp_path, uic):
    """Stopped and resumed in the other form, either way round, is not stopped at all."""
    more = ["scheduler.name=none", "optimizer.batch_size=60"]
    expected = train(recipe(*data["folder"], *more))
    for first, then in (("packed", "folder"), ("folder", "packed")):
        run = tmp_path / first
        train(recipe(*data[first], *more, "max_epochs=1", f"run_dir={run}"))
        workers = f"data.num_workers={2 * (then == 'packed')}"
        equal(train(recipe(*data[then], *more, f"run_dir={run}", workers)), expected)
    figures = set()
    for form in ("packed", "folder"):
        done = uic("knn", tmp_path / "run", *data[form][2:])
        assert done.returncode == 0, done.stderr
        figures.add(done.stdout.partition("top-1")[2])
        done = uic("label", tmp_path / "run", folder_of(data[form]), "--out", f"{form}.csv")
        assert done.returncode == 0, done.stderr
    assert len(figures) == 1
    assert (tmp_path / "packed.csv").read_bytes() == (tmp_path / "folder.csv").read_bytes()
    done = uic("label", tmp_path / "folder", "--out", "own.csv")  # trained on the packed one last
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "own.csv").read_bytes() == (tmp_path / "folder.csv").read_bytes()
    given = (folder_of(data["packed"]), "--out", "train.csv", "--view", "train")
    done = uic("label", tmp_path / "folder", *given)
    assert done.returncode == 0, done.stderr
    assert len(read_labels(tmp_path / "train.csv")) == 181


@pytest.mark.all_digits
def test_labels_migrate_to_either_form(data, recipe, tmp_path, uic):
    train(recipe(*data["folder"], "max_epochs=1"))
    less = tmp_path / "less"
    shutil.copytree(folder_of(data["folder"]), less)
    for path in sorted(less.glob("3/*.png"))[:2]:
        path.unlink()
    pack_images(less, tmp_path / "packed", PackSettings(16, workers=0))
    migrated = {}
    for form in ("less", "packed"):
        done = uic("labels", "migrate", tmp_path / "run", "--data", form, "--out", f"{form}.ckpt")
        assert done.returncode == 0, done.stderr
        assert "179 images keep their label, 0 new ones have one now, 2 are gone" in done.stdout
        migrated[form] = read_checkpoint(tmp_path / f"{form}.ckpt")["uic"]["bank"]
    assert migrated["less"]["fingerprint"] == migrated["packed"]["fingerprint"]
    assert torch.equal(migrated["less"]["targets"], migrated["packed"]["targets"])


def items(cfg):
    """Training images of a recipe, and some items with the same random views in every call."""
    dataset = datasets.pretrain_dataset(*prepare_config(cfg))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return dataset, [dataset[Draw.at(number, 0, number)] for number in range(0, 50, 7)]


def same_items(one, two):
    (first, ours), (second, theirs) = one, two
    assert fingerprint_of(first) == fingerprint_of(second)
    assert relative_paths(first) == relative_paths(second)
    assert len(first) == len(second)
    annotations = annotations_of(second)
    if annotations is None:
        annotations = np.full(len(second), -1)
    assert annotations_of(first).tolist() == annotations.tolist()
    for (index, views, target), (number, crops, annotation) in zip(ours, theirs, strict=True):
        assert (index, target) == (number, annotation)
        assert all(map(torch.equal, views, crops))


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["data.fraction=0.3"],
        ["data.no_labels=true"],
        ["data.no_labels=true", "data.fraction=0.3"],
    ],
)
class TestSameImages:
    def test_packed(self, data, recipe, more):
        packed = items(recipe(*data["packed"], *more))
        assert isinstance(packed[0], PackedImages)
        same_items(packed, items(recipe(*data["folder"], *more)))

    def test_decoded_copy_of_the_digits(self, recipe, more, monkeypatch):
        with_copy = items(recipe(*more))
        monkeypatch.setattr(datasets, "packed_copy", lambda folder: None)
        without = items(recipe(*more))
        assert isinstance(with_copy[0], PackedImages)
        assert not isinstance(without[0], PackedImages)
        assert path_of(with_copy[0], 3) == path_of(without[0], 3)
        same_items(with_copy, without)


@pytest.mark.all_digits
def test_flat_folders(data, recipe, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(folder_of(data["folder"]).glob("*/*.png"))[::3]):
        shutil.copy(path, flat / f"{number:04d}.png")
    pack_images(flat, tmp_path / "packed", PackSettings(0, workers=0))
    given = ["data.dataset=custom", "data.val_path=null"]
    packed = recipe(*given, f"data.train_path={tmp_path / 'packed'}", "data.format=packed")
    same_items(items(packed), items(recipe(*given, f"data.train_path={flat}")))


@pytest.mark.parametrize("form", ["folder", "packed"])
def test_test_images_may_be_packed_as_well(data, recipe, digits, tmp_path, form):
    pack_images(digits / "val", tmp_path / "val", PackSettings(0, workers=0))
    pairs = [
        datasets.eval_datasets(*prepare_config(recipe(*data[form], *more)))
        for more in ([], [f"data.val_path={tmp_path / 'val'}"])
    ]
    assert isinstance(pairs[1][1], PackedImages)
    for one, two in zip(*pairs, strict=True):
        assert len(one) == len(two)
        for number in range(0, len(one), 50):
            assert torch.equal(one[number][0], two[number][0])
            assert one[number][1] == two[number][1]
    shutil.copytree(digits / "val", tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "9")
    pack_images(tmp_path / "other", tmp_path / "less", PackSettings(0, workers=0))
    with pytest.raises(ValueError, match=r"class folders of .* differ .9."):
        prepare_config(recipe(*data[form], f"data.val_path={tmp_path / 'less'}"))


def test_a_run_on_the_copy_is_the_run_without(recipe, tmp_path, monkeypatch):
    small = ["max_epochs=1", "data.fraction=0.2", "optimizer.batch_size=32"]
    copied = train(recipe(*small, f"run_dir={tmp_path / 'copied'}"))
    monkeypatch.setattr(datasets, "packed_copy", lambda folder: None)
    equal(copied, train(recipe(*small, f"run_dir={tmp_path / 'decoded'}")))


class TestBadImages:
    @pytest.fixture
    def broken(self, data, tmp_path):
        root = tmp_path / "broken"
        shutil.copytree(folder_of(data["folder"]), root)
        for bad in root.glob("4/*.png"):
            bad.write_bytes(b"no image at all")
        settings = PackSettings(0, on_bad_image="skip", workers=0)
        pack_images(root, tmp_path / "packed", settings)
        return root, bad.relative_to(root).as_posix()

    def test_it_is_treated_as_the_file(self, data, broken, recipe, tmp_path):
        given = ["data.dataset=custom", "data.val_path=null", "max_epochs=1"]
        forms = {
            "folder": [f"data.train_path={broken[0]}"],
            "packed": [f"data.train_path={tmp_path / 'packed'}", "data.format=packed"],
        }
        found, said = [], []
        for name, form in forms.items():
            cfg = recipe(*given, *form, f"run_dir={tmp_path / 'runs' / name}")
            with pytest.raises(ValueError, match=r"cannot read .*broken/4/.*png .not an image"):
                train(cfg)
            for path in (tmp_path / "runs" / name).iterdir():
                path.unlink()
            cfg.data.on_bad_image = "skip"
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found.append(train(cfg))
            said.append({str(w.message) for w in caught if "skipped" in str(w.message)})
        equal(*found)
        assert said[0] == said[1] != set()

    @pytest.mark.all_digits
    def test_the_copy_of_a_broken_folder(self, broken, recipe, monkeypatch):
        root, bad = broken
        cfg = recipe("data.dataset=digits", f"data.train_path={root}", "data.val_path=null")
        for copied in (True, False):
            if not copied:
                monkeypatch.setattr(datasets, "packed_copy", lambda folder: None)
            dataset = datasets.pretrain_dataset(*prepare_config(cfg))
            assert isinstance(dataset, PackedImages) == copied
            number = relative_paths(dataset).index(bad)
            assert path_of(dataset, number) == str(root / bad)
            with pytest.raises(OSError, match=r"cannot identify image file .*broken/4/"):
                dataset[number]


class TestMistakes:
    def test_too_few_pixels(self, data, recipe, tmp_path):
        small = tmp_path / "small"
        pack_images(folder_of(data["folder"]), small, PackSettings(4, workers=0))
        cfg, source = prepare_config(recipe(*data["packed"], f"data.train_path={small}"))
        with pytest.raises(ValueError, match=r"with --size 4, the crops have 16 pixels: pack it"):
            datasets.pretrain_dataset(cfg, source)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["data.format=packed"], "no packed images there; 'uic data pack' makes them"),
            (["data.format=image_folder"], "is a packed folder: set data.format=packed"),
        ],
    )
    def test_the_wrong_form(self, data, recipe, given, message):
        form = "folder" if given == ["data.format=packed"] else "packed"
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            prepare_config(recipe(*data[form], *given))
