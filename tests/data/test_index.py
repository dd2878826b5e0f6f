"""An index file stands for a walk through the folder: same names, order, classes, fingerprint."""

import json
import os

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from uic_plugin.data.folders import images_below
from uic_plugin.data.held_out import index_of_split
from uic_plugin.data.images import fingerprint_of, path_of, relative_paths
from uic_plugin.data.index import IndexedImages, folder_groups, read_index, save_index, write_index


@pytest.fixture
def index(digits, tmp_path):
    write_index(digits / "train", tmp_path / "train.index")
    return read_index(tmp_path / "train.index")


def test_index_of_a_folder_equals_the_folder(index, digits):
    folder = ImageFolder(str(digits / "train"))
    images = IndexedImages(digits / "train", np.asarray, index)
    assert relative_paths(images) == relative_paths(folder)
    assert fingerprint_of(images) == fingerprint_of(folder)
    assert images.targets.tolist() == folder.targets
    assert index.classes == folder.classes
    assert len(images) == len(folder)
    for number in (0, 700, len(folder) - 1):
        assert path_of(images, number) == path_of(folder, number)
        view, target = images[number]
        assert np.array_equal(view, np.asarray(folder[number][0]))
        assert target == folder[number][1]
    numbered = IndexedImages(digits / "train", np.asarray, index, labelled=False, with_number=True)
    assert (numbered[5][0], numbered[5][2]) == (5, -1)


def test_deep_folders_and_odd_names(tmp_path):
    root = tmp_path / "images"
    for name in ("b/y/2.png", "b/x.png", "b/y/1.JPG", "a/\udcff.png", "a/ä b.png", "a/no.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    assert write_index(root, tmp_path / "i") == 5
    index = read_index(tmp_path / "i")
    assert list(index.names()) == relative_paths(ImageFolder(str(root), allow_empty=True))
    assert index.targets().tolist() == [0, 0, 1, 1, 1]


def test_links_in_a_circle_are_followed_once(tmp_path):
    root = tmp_path / "images"
    for name in ("a/1.png", "a/deep/2.png", "b/3.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "self").symlink_to(".")
    (root / "a" / "deep" / "all").symlink_to(root)
    (root / "a" / "deep" / "up").symlink_to("..")
    (root / "b" / "there").symlink_to("../a")  # no circle: listed under both paths
    expected = [*("a/1.png", "a/deep/2.png"), "b/3.png", "b/there/1.png", "b/there/deep/2.png"]
    assert images_below(root) == expected
    write_index(root, tmp_path / "i")
    index = read_index(tmp_path / "i")
    assert list(index.names()) == expected
    assert index.classes == ["a", "b"]
    (tmp_path / "link").symlink_to(root)
    assert images_below(tmp_path / "link") == expected


def test_only_folders_are_looked_at(digits, tmp_path, monkeypatch):
    asked, look = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **kwargs: asked.append(path) or look(path))
    assert len(images_below(digits / "train")) == 1442
    assert len(asked) < 20


def test_flat_folder(tmp_path):
    for name in ("2.png", "1.png"):
        (tmp_path / name).write_bytes(b"")
    write_index(tmp_path, tmp_path / "i")
    index = read_index(tmp_path / "i")
    assert list(index.names()) == ["1.png", "2.png"]
    assert index.classes == []
    assert index.targets().tolist() == [-1, -1]


def test_a_damaged_index_is_refused(tmp_path):
    path = tmp_path / "i"
    save_index(path, [("a", ["a/1.png", "a/2.png"])])
    whole = path.read_bytes()
    for change in (whole.replace(b"a/2", b"a/3"), whole[:-1], whole + b"x"):
        path.write_bytes(change)
        with pytest.raises(ValueError, match="damaged"):
            read_index(path)
    for change in (b"", b"{}\n", b"\x89PNG", json.dumps({"format": 1}).encode()):
        path.write_bytes(change)
        with pytest.raises(ValueError, match="no index of images"):
            read_index(path)
    with pytest.raises(FileNotFoundError, match="uic data index"):
        read_index(tmp_path / "none")


def test_names_outside_the_folder_are_refused(tmp_path):
    save_index(tmp_path / "i", [("", ["../secret.png", "/etc/x.png"])])
    images = IndexedImages(tmp_path, np.asarray, read_index(tmp_path / "i"))
    for number in (0, 1):
        with pytest.raises(ValueError, match="outside of the images' folder"):
            images[number]


def test_nothing_to_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_index(tmp_path / "none", tmp_path / "i")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images there"):
        write_index(tmp_path / "empty", tmp_path / "i")
    assert not list(tmp_path.glob("i*"))


def test_index_of_a_split_file(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rows = [("b2.png", "dog"), ("a1.png", "cat"), ("b1.png", "dog")]
    for name, _ in rows:
        (images / name).write_bytes(b"")
    split = tmp_path / "train.csv"
    split.write_text("filename,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    assert index_of_split(split, tmp_path / "i") == 3
    index = read_index(tmp_path / "i")
    assert list(index.names()) == ["a1.png", "b1.png", "b2.png"]
    assert index.classes == ["cat", "dog"]
    assert index.targets().tolist() == [0, 1, 1]
    split.write_text("filename,label\na1.png,cat\na1.png,dog\n")
    with pytest.raises(ValueError, match=r"lists 'a1\.png' twice"):
        index_of_split(split, tmp_path / "i")
    split.write_text("filename,label\nmissing.png,cat\n")
    with pytest.raises(FileNotFoundError, match="1 of the 1 images"):
        index_of_split(split, tmp_path / "i")


def test_images_beside_class_folders_are_not_left_out(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("cat/a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds images, as b\.png, beside subfolders, as cat/"):
        list(folder_groups(tmp_path))
