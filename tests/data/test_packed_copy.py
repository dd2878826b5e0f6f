"""Decoded copies that the plugin makes itself: current, in the cache, and never in the way."""

import os
import shutil

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from uic_plugin.data import packed_copy as copies
from uic_plugin.data.images import fingerprint_of
from uic_plugin.data.packed_copy import packed_copy
from uic_plugin.data.packing import pack_images


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("UIC_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(digits, tmp_path):
    root = tmp_path / "digits"
    shutil.copytree(digits / "val", root)
    return root


@pytest.fixture
def packings(monkeypatch):
    """Which folders were packed."""
    made = []

    def counted(source, *given, **more):
        made.append(source)
        return pack_images(source, *given, **more)

    monkeypatch.setattr(copies, "pack_images", counted)
    return made


def same(store, root):
    folder = ImageFolder(str(root))
    assert store.about.fingerprint == fingerprint_of(folder)
    assert store.annotations.tolist() == folder.targets
    for number, (image, _) in enumerate(folder):
        assert store.image(number).tobytes() == image.tobytes()


def test_it_is_made_once_and_not_among_the_images(cache, folder, packings):
    before = sorted(folder.parent.iterdir())
    same(packed_copy(folder), folder)
    same(packed_copy(folder), folder)
    assert packings == [folder]
    assert sorted(folder.parent.iterdir()) == sorted([*before, cache])
    assert [path.name.rpartition("-")[0] for path in (cache / "packed").glob("*-*")] == ["digits"]


@pytest.mark.parametrize(
    "change",
    [
        lambda root, path: path.unlink(),
        lambda root, path: Image.new("RGB", (8, 8), (1, 2, 3)).save(path),
        lambda root, path: shutil.copy(path, root / "0" / "new.png"),
        lambda root, path: path.rename(path.with_name("renamed.png")),
    ],
)
def test_it_follows_the_files(cache, folder, packings, change):
    old = packed_copy(folder)
    kept = old.raw(3).copy()
    change(folder, sorted(folder.rglob("*.png"))[3])
    same(packed_copy(folder), folder)
    assert packings == [folder, folder]
    assert old.raw(3).tolist() == kept.tolist()  # a run that has it open keeps reading it
    assert {path.name[:7] for path in (cache / "packed").iterdir()} == {".lock", "digits-"}


def test_where_it_cannot_be_written_there_is_none(cache, folder, packings, monkeypatch):
    cache.write_text("a file where the cache would be")
    assert packed_copy(folder) is None
    cache.unlink()
    monkeypatch.setattr(copies, "_MOST_BYTES", 1000)  # too large
    assert packed_copy(folder) is None
    assert packings == []


def test_a_full_disk_or_a_damaged_copy_is_no_error(cache, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(copies, "pack_images", full)
        assert packed_copy(folder) is None
    copy = packed_copy(folder).path
    os.truncate(copy / "pixels.npy", 300)
    same(packed_copy(folder), folder)


def test_what_the_host_refuses_has_none(cache, folder):
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("no image")
    assert packed_copy(folder) is None
    shutil.rmtree(folder)
    folder.mkdir()
    assert packed_copy(folder) is None
