"""Where the images are, or what is wrong with the folder."""

import pytest
from omegaconf import OmegaConf

from uic_plugin.data.resolve import resolve_data


def resolve(**data):
    defaults = {"dataset": "custom", "train_path": None, "val_path": None}
    return resolve_data(OmegaConf.create({**defaults, **data}))


@pytest.fixture
def tree(tmp_path):
    def make(*files):
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return tmp_path

    return make


def test_class_folders_are_annotations(tree):
    root = tree("train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png")
    source = resolve(train_path=str(root / "train"), val_path=str(root / "val"))
    assert (source.labelled, source.num_classes, source.reader) == (True, 2, "custom")
    source = resolve(train_path=str(root / "train"), no_labels=True)
    assert (source.labelled, source.num_classes, source.val) == (False, 1, None)


def test_flat_folder(tree):
    source = resolve(train_path=str(tree("flat/1.png", "flat/readme.txt") / "flat"))
    assert (source.labelled, source.num_classes) == (False, 1)


def test_digits_are_made(data_dir):
    source = resolve(dataset="digits")
    assert source.train == data_dir / "digits" / "train"
    assert source.num_classes == 10


def test_cifar10_as_folders_or_as_torchvision_keeps_it(tree):
    root = tree("folders/cat/1.png", "original/cifar-10-batches-py/data_batch_1")
    assert resolve(dataset="cifar10", train_path=str(root / "folders")).reader == "custom"
    original = resolve(dataset="cifar10", train_path=str(root / "original"))
    assert (original.reader, original.num_classes) == ("cifar10", 10)
    with pytest.raises(FileNotFoundError, match="uic data cifar10"):
        resolve(dataset="cifar10", train_path="datasets/cifar10/train")


def test_folders_that_do_not_fit(tree):
    root = tree("train/a/1.png", "train/b/2.png", "val/a/3.png", "val/c/4.png", "flat/1.png")
    with pytest.raises(ValueError, match=r"differ \(b, c\)"):
        resolve(train_path=str(root / "train"), val_path=str(root / "val"))
    with pytest.raises(ValueError, match="no subfolder with images per class"):
        resolve(train_path=str(root / "train"), val_path=str(root / "flat"))
    with pytest.raises(FileNotFoundError, match=r"data.val_path=.*no such folder"):
        resolve(train_path=str(root / "train"), val_path=str(root / "nowhere"))
    with pytest.raises(ValueError, match="parquet, h5, packed, got 'zip'"):
        resolve(train_path=str(root / "train"), format="zip")
