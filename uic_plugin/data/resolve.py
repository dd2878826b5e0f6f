"""Resolve a recipe's `data` section to existing folders, or raise an error that says what to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from uic_plugin.data.images import IMAGE_SUFFIXES
from uic_plugin.data.index import read_index
from uic_plugin.data.packed import is_packed, open_packed

# Class counts of datasets that the host reads through torchvision.
_TORCHVISION = {"cifar10": 10, "cifar100": 100, "stl10": 10}
_TORCHVISION_FOLDERS = {"cifar-10-batches-py", "cifar-100-python", "stl10_binary"}
FORMATS = ("image_folder", "parquet", "h5", "packed")
_COPIED = ("cifar10", "digits")  # datasets of small images that the plugin writes
KNOWN_DATASETS = ("digits", *_TORCHVISION, "imagenet", "imagenet100", "custom")


@dataclass(frozen=True)
class DataSource:
    """The location and kind of a run's images.

    Attributes:
        reader: the host's name of the dataset class: "custom" for any folder of images.
        transforms: dataset whose normalisation and evaluation transforms apply; "custom" takes
            them from the recipe.
        train: folder of the training images.
        val: folder of labelled test images, or None.
        labelled: whether the training folder has one subfolder per class.
        num_classes: number of annotated classes, 1 without annotations.
        format: "image_folder", "parquet", "h5" or "packed".
        index: list of the training images, which avoids a walk through their folder.
        has_copy: whether images are read from a decoded copy that is made on first use.
    """

    reader: str
    transforms: str
    train: Path
    val: Path | None
    labelled: bool
    num_classes: int
    format: str = "image_folder"
    index: Path | None = None
    has_copy: bool = False


def resolve_data(data: DictConfig) -> DataSource:
    """Check a recipe's data section.

    Raises:
        ValueError: for an unknown dataset or a folder of the wrong kind.
        FileNotFoundError: for a folder that is missing or has no images.
    """
    name = data.dataset
    if name not in KNOWN_DATASETS:
        raise ValueError(f"unknown data.dataset {name!r}: one of {', '.join(KNOWN_DATASETS)}")
    kind = data.get("format", "image_folder")
    if kind not in FORMATS:
        raise ValueError(f"data.format must be one of {', '.join(FORMATS)}, got {kind!r}")
    if name == "digits" and data.train_path is None:
        from uic_plugin.data.digits import prepare_digits

        root = prepare_digits(default_data_dir() / "digits")
        labelled = not data.get("no_labels", False)
        count = 10 if labelled else 1
        folders = root / "train", root / "val"
        return DataSource("custom", "custom", *folders, labelled, count, has_copy=True)
    if data.train_path is None:
        raise ValueError(
            "data.train_path is not set: give the folder of the training images, "
            "data.train_path=FOLDER"
        )
    if name == "cifar10" and not Path(data.train_path).expanduser().exists():
        raise FileNotFoundError(
            f"data.train_path={data.train_path}: there is no such folder; "
            f"'uic data cifar10 datasets/cifar10' makes it"
        )
    if kind == "packed":
        return _packed(data)
    if kind != "image_folder":
        return _in_files(data, kind)
    if data.get("index") is not None:
        return _indexed(data)
    return _folders(data)


def _folders(data: DictConfig) -> DataSource:
    """Resolve folders of images."""
    name = data.dataset
    train = _existing_folder("data.train_path", data.train_path)
    if is_packed(train):
        raise ValueError(f"data.train_path={train} is a packed folder: set data.format=packed")
    val = None
    if data.get("val_path") is not None:
        val = _test_folder(data.val_path)
    classes = class_folders(train)
    if name in _TORCHVISION and _TORCHVISION_FOLDERS & set(classes):
        labelled = not data.get("no_labels", False)
        count = _TORCHVISION[name] if labelled else 1
        return DataSource(name, name, train, val or train, labelled, count)
    if classes:
        _check_no_image_beside(train, classes)
        labelled = not data.get("no_labels", False)
        count = len(classes) if labelled else 1
    else:
        labelled, count = False, 1
        _check_flat_folder(train)
    if val is not None and not classes_below(val):
        raise ValueError(
            f"data.val_path={val} has no subfolder with images per class: evaluation needs "
            f"annotated images, or leave data.val_path out"
        )
    if val is not None and labelled:
        _check_same_classes(train, val)
    transforms = "custom" if name == "digits" else name
    has_copy = name in _COPIED
    return DataSource("custom", transforms, train, val, labelled, count, has_copy=has_copy)


def _packed(data: DictConfig) -> DataSource:
    """Resolve a packed folder; the test images may lie in one, too, or in a folder of images."""
    train = Path(data.train_path).expanduser()
    classes = open_packed(train).index.classes
    labelled = bool(classes) and not data.get("no_labels", False)
    val = None
    if data.get("val_path") is not None:
        val = _test_folder(data.val_path)
        if labelled:
            _check_same_classes(train, val)
    transforms = "custom" if data.dataset == "digits" else data.dataset
    count = len(classes) if labelled else 1
    return DataSource("custom", transforms, train, val, labelled, count, format="packed")


def classes_below(path: Path) -> list[str]:
    """Return the names of the class folders of a folder of images, also of a packed one."""
    return open_packed(path).index.classes if is_packed(path) else class_folders(path)


def _test_folder(path: str) -> Path:
    """Return a folder of test images, which may be packed whatever the training images are."""
    folder = Path(path).expanduser()
    return folder if is_packed(folder) else _existing_folder("data.val_path", path)


def _in_files(data: DictConfig, kind: str) -> DataSource:
    """Resolve images in files that hold many of them."""
    paths = {"train": Path(data.train_path).expanduser()}
    if data.get("val_path") is not None:
        paths["val"] = Path(data.val_path).expanduser()
    for name, path in paths.items():
        if not path.exists():
            raise FileNotFoundError(f"data.{name}_path={path}: there is no such file or folder")
        if path.is_dir() != (kind == "parquet"):
            wanted = "a folder of .parquet files" if kind == "parquet" else "an HDF5 file"
            raise ValueError(f"data.{name}_path={path}: data.format={kind} needs {wanted}")
    classes = packed_classes(kind, paths["train"])
    labelled = bool(classes) and not data.get("no_labels", False)
    count = len(classes) if labelled else 1
    train, val = paths["train"], paths.get("val")
    transforms = "custom" if data.dataset == "digits" else data.dataset
    return DataSource("custom", transforms, train, val, labelled, count, format=kind)


def packed_classes(kind: str, path: Path) -> list[str]:
    """Return the names of the classes in Parquet files or an HDF5 file."""
    if kind == "parquet":
        from uic_plugin.data.parquet import ParquetImages

        return ParquetImages(path, lambda image: image).classes
    try:
        import h5py
    except ImportError as error:
        raise ImportError("data.format=h5 needs h5py: pip install h5py") from error
    try:
        with h5py.File(path) as file:
            return sorted(file)
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file ({error})") from error


def _indexed(data: DictConfig) -> DataSource:
    """Resolve a folder whose images an index lists, without walking through it."""
    index = Path(data.index).expanduser()
    classes = read_index(index).classes
    train = Path(data.train_path).expanduser()
    if not train.is_dir():
        raise FileNotFoundError(f"data.train_path={train}: there is no such folder")
    val = None
    if data.get("val_path") is not None:
        val = _test_folder(data.val_path)
    labelled = bool(classes) and not data.get("no_labels", False)
    if labelled and val is not None and classes_below(val) != classes:
        raise ValueError(
            f"the class folders in {index} and {val} differ: annotations are numbered by folder"
        )
    transforms = "custom" if data.dataset == "digits" else data.dataset
    count = len(classes) if labelled else 1
    return DataSource("custom", transforms, train, val, labelled, count, index=index)


def without_images(data: DictConfig) -> DataSource:
    """Return a source for commands that need a run's network and normalisation but no images."""
    transforms = "custom" if data.dataset == "digits" else data.dataset
    return DataSource("custom", transforms, Path(), None, False, 1)


def default_data_dir() -> Path:
    """Return the folder of datasets that the plugin makes: $UIC_DATA or the user's cache."""
    return Path(os.environ.get("UIC_DATA") or "~/.cache/uic-plugin").expanduser()


def class_folders(folder: Path) -> list[str]:
    """Return the names of the subfolders, in the order in which the host numbers them."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _existing_folder(key: str, path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.exists():
        raise FileNotFoundError(f"{key}={path}: there is no such folder")
    if not folder.is_dir():
        raise ValueError(f"{key}={path} is a file: give the folder that holds the images")
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"{key}={path}: the folder is empty")
    for empty in class_folders(folder):
        if not any((folder / empty).iterdir()):
            raise FileNotFoundError(
                f"{key}={path}: the class folder {empty!r} is empty; remove it or fill it"
            )
    return folder


def _has_images(folder: Path) -> bool:
    return any(path.name.lower().endswith(IMAGE_SUFFIXES) for path in folder.iterdir())


def _check_no_image_beside(folder: Path, classes: list[str]) -> None:
    if _has_images(folder):
        raise ValueError(
            f"data.train_path={folder} holds images and subfolders ({', '.join(classes[:3])}): "
            f"put all images into subfolders, or all into one folder without any"
        )


def _check_flat_folder(folder: Path) -> None:
    if not _has_images(folder):
        raise FileNotFoundError(
            f"data.train_path={folder}: no images there ({' '.join(IMAGE_SUFFIXES)})"
        )


def _check_same_classes(train: Path, val: Path) -> None:
    ours, theirs = classes_below(train), classes_below(val)
    if ours != theirs:
        only = sorted(set(ours) ^ set(theirs))
        raise ValueError(
            f"the class folders of {train} and {val} differ ({', '.join(only[:5])}"
            f"{', ...' if len(only) > 5 else ''}): annotations are numbered by folder"
        )
