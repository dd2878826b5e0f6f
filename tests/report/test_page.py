"""What is written for the page of classes; tests/browser opens it."""

import base64
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data.features import read_features
from uic_plugin.data.labels import LabelTable, write_labels
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.packing import pack_images
from uic_plugin.report.classes import report_classes
from uic_plugin.report.page import write_class_page
from uic_plugin.report.page.history import history_of
from uic_plugin.report.page.order import COVERS, sample_images, thumbnail_order
from uic_plugin.report.page.projection import project
from uic_plugin.report.page.sprites import write_sprites


@pytest.fixture
def images(tmp_path):
    """Twelve images of one colour each, and a label file of them."""
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [f"{k:02}.png" for k in range(12)]
    for k, path in enumerate(paths):
        Image.new("RGB", (64, 64), (20 * k, 0, 255 - 20 * k)).save(folder / path)
    scores = np.linspace(0.4, 1, 12).astype(np.float32)
    table = LabelTable(paths, np.arange(12) % 3, scores, 1 - scores)
    write_labels(tmp_path / "labels.csv", table)
    return folder, table


def test_covers_come_first_then_class_by_class():
    labels = np.array([0] * 8 + [1] * 9)
    confidence = np.random.default_rng(0).random(17).astype(np.float32)
    order = thumbnail_order(labels, confidence)
    assert sorted(order) == list(range(17))
    head = order[: 2 * COVERS]
    assert labels[head].tolist() == [0] * COVERS + [1] * COVERS
    for c in (0, 1):
        best = np.flatnonzero(labels == c)[np.argsort(-confidence[labels == c])]
        assert head[labels[head] == c].tolist() == best[:COVERS].tolist()
    assert labels[order[2 * COVERS :]].tolist() == [0, 0, 1, 1, 1]


def test_a_sample_has_the_ends_of_every_class_and_small_classes_whole():
    labels = np.concatenate([np.zeros(50_000, int), np.ones(30_000, int), np.full(10, 2)])
    confidence = np.random.default_rng(1).random(len(labels)).astype(np.float32)
    rows = sample_images(labels, confidence, 3_000)
    assert len(rows) <= 3_000
    sizes = np.bincount(labels[rows])
    assert sizes[2] == 10
    assert min(sizes[:2]) >= 900
    for c in (0, 1):
        members = np.flatnonzero(labels == c)
        order = members[np.argsort(-confidence[members], kind="stable")]
        assert set(order[:300]) <= set(rows)
        assert set(order[-300:]) <= set(rows)
    assert sample_images(labels, confidence, len(labels)).tolist() == list(range(len(labels)))


def test_thumbnails_lie_where_the_page_looks(images, tmp_path):
    folder, table = images
    paths = [folder / path for path in table.paths] * 6  # 72: two files
    sprites = write_sprites(paths, tmp_path / "s", tile=32)
    assert sorted(os.listdir(tmp_path / "s")) == [f"0{sprites.suffix}", f"1{sprites.suffix}"]
    for number, path in enumerate(paths):
        with Image.open(tmp_path / "s" / f"{number // 64}{sprites.suffix}") as sheet:
            place = number % 64
            got = sheet.convert("RGB").getpixel((place % 8 * 32 + 16, place // 8 * 32 + 16))
        with Image.open(path) as image:
            want = image.getpixel((0, 0))
        assert np.abs(np.subtract(got, want)).max() < 24  # the files are lossy


def test_an_unreadable_image_is_grey_and_named(images, tmp_path):
    folder, table = images
    (folder / "03.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"1 images cannot be read.*03\.png"):
        sprites = write_sprites([folder / p for p in table.paths], tmp_path / "s")
    assert sprites.unreadable == [3]


def test_what_a_killed_call_left_is_removed(images, tmp_path):
    folder, table = images
    (tmp_path / "page" / ".files.abc.old").mkdir(parents=True)
    write_class_page(table, tmp_path / "labels.csv", folder, tmp_path / "page")
    assert sorted(os.listdir(tmp_path / "page")) == ["files", "index.html"]


def test_an_unreadable_image_is_grey_in_the_picture(images, tmp_path):
    folder, table = images
    path = folder / table.paths[3]
    path.write_bytes(path.read_bytes()[:60])
    write_labels(tmp_path / "labels.csv", table)
    report_classes(tmp_path / "labels.csv", folder, tmp_path / "out")
    assert (tmp_path / "out" / "classes.png").stat().st_size > 100
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        report_classes(tmp_path / "labels.csv", folder, tmp_path / "out")


def test_components_keep_distances():
    rows = np.random.default_rng(0).normal(size=(200, 24)).astype(np.float32)
    kept = project(rows, kind="pca")
    assert kept.kept == pytest.approx(1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    near = np.linalg.norm(unit - unit[0], axis=1)
    found = np.linalg.norm(kept.components.astype(float) - kept.components[0], axis=1)
    assert np.corrcoef(near, found)[0, 1] > 0.999
    again = project(rows, kind="pca")
    np.testing.assert_array_equal(kept.components, again.components)
    assert project(rows, kind="tsne").kind == "tsne"
    with pytest.raises(ValueError, match="NaN"):
        project(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="one of auto"):
        project(rows, kind="globe")


def test_history():
    today = np.array([0, 0, 1, 1])
    past = [np.array([0, 1, 1, 2]), today]
    history = history_of([1, 2], past, today)
    assert history.size.tolist() == [[1, 2, 1], [2, 2, 0]]
    assert history.kept[0, :2].tolist() == [0.5, 0.5]
    assert history.kept[1, :2].tolist() == [1, 1]


def test_features_by_path_however_they_lie(tmp_path):
    features = np.arange(12, dtype=np.float16).reshape(4, 3)
    np.savez(tmp_path / "f.npz", features=features, paths=np.array(list("abcd")))
    np.testing.assert_array_equal(read_features(tmp_path / "f.npz", ["c", "a"]), features[[2, 0]])
    store = tmp_path / "store"
    store.mkdir()
    np.save(store / "features.npy", features)
    lines = [{"path": "a"}, {"path": "bad", "reason": "torn"}, {"path": "b"}, {"path": "a"}]
    (store / "images.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.testing.assert_array_equal(read_features(store, ["b", "a"]), features[[1, 2]])
    for paths, said in ((["a", "x"], "no features of 1 of the 2 images, as 'x'"),):
        with pytest.raises(ValueError, match=said):
            read_features(store, paths)
    np.save(tmp_path / "f.npy", features)
    with pytest.raises(ValueError, match="of 4 images, there are 2"):
        read_features(tmp_path / "f.npy", ["a", "b"])
    (tmp_path / "torn.npy").write_bytes(b"no")
    with pytest.raises(ValueError, match="no features"):
        read_features(tmp_path / "torn.npy", ["a"])


def test_the_command_ends_with_the_page(images, tmp_path, uic):
    done = uic("classes", "labels.csv", "images", "--out", "classes")
    assert done.returncode == 0
    assert str((tmp_path / "classes" / "index.html").resolve()) in done.stdout
    assert sorted(os.listdir(tmp_path / "classes")) == [
        "class_sizes.png",
        "classes.csv",
        "classes.png",
        "files",
        "index.html",
    ]


@pytest.mark.parametrize("kind", ["packed", "split"])
def test_the_folder_that_the_labels_were_made_of_may_be_packed_or_a_split(
    images, tmp_path, uic, kind
):
    folder, table = images
    data = tmp_path / ("packed" if kind == "packed" else "split.csv")
    if kind == "packed":
        pack_images(folder, data, PackSettings(0, workers=0))
    else:
        rows = [f"{path},{k % 2}" for k, path in enumerate(table.paths)]
        data.write_text("\n".join(["filename,label", *rows]) + "\n")
    given = ("classes", "labels.csv", data, "--out")
    done = uic(*given, "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "classes.png").stat().st_size > 100
    assert '"folder":"../images"' in (tmp_path / "out" / "files" / "core.js").read_text()
    done = uic(*given, folder / "out")
    assert done.returncode == 1
    assert "would be among the images" in done.stderr
    report_classes(tmp_path / "labels.csv", data, tmp_path / "report")
    assert (tmp_path / "report" / "classes.png").is_file()
    if kind == "packed":
        folder.rename(tmp_path / "moved")
        said = "packed is a packed folder, and .*images, which it was made of, is gone: give the"
        with pytest.raises(FileNotFoundError, match=said):
            report_classes(tmp_path / "labels.csv", data, tmp_path / "report")


def test_marks_of_another_program_are_on_the_page(images, tmp_path, uic):
    """pandas writes True, and 1.0 beside a missing value."""
    _, table = images
    rows = [
        f"{path},{k % 3},{k == 0},{'1.0' if k % 3 == 2 else ''}"
        for k, path in enumerate(table.paths)
    ]
    text = "\n".join(["path,label,wrong,hidden", *rows]) + "\n"
    (tmp_path / "labels.csv").write_text(text)
    done = uic("classes", "labels.csv", "images")
    assert done.returncode == 0, done.stderr
    core = (tmp_path / "classes" / "files" / "core.js").read_text()
    core = json.loads(core[core.index("{") : core.rindex(")")])
    assert core["hidden"] == [2]
    assert sum(base64.b64decode(core["wrong"])) == 1
    (tmp_path / "labels.csv").write_text(text.replace("True", "yes"))
    done = uic("classes", "labels.csv", "images")
    assert done.returncode == 1
    assert "labels.csv: column wrong holds 'yes'" in done.stderr


def test_an_image_gone_a_foreign_label_file_a_foreign_folder(images, tmp_path, uic):
    folder, table = images
    assert uic("classes", "labels.csv", "images").returncode == 0
    before = (tmp_path / "classes" / "index.html").read_bytes()
    table_before = (tmp_path / "classes" / "classes.csv").read_bytes()
    done = uic("classes", "classes/classes.csv", "images")  # would be replaced by the table
    assert done.returncode == 1
    assert "is no label file" in done.stderr
    (tmp_path / "own").mkdir()
    shutil.copy(tmp_path / "labels.csv", tmp_path / "own" / "classes.csv")
    done = uic("classes", "own/classes.csv", "images", "--out", "own")
    assert "own/classes.csv would be replaced" in done.stderr
    assert (tmp_path / "own" / "classes.csv").read_bytes() == (tmp_path / "labels.csv").read_bytes()
    done = uic("classes", "labels.csv", "images", "--map", "pca")
    assert "--map pca needs --features" in done.stderr
    done = uic("classes", "labels.csv", "images", "--run", "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert (tmp_path / "classes" / "classes.csv").read_bytes() == table_before
    (folder / "05.png").unlink()
    done = uic("classes", "labels.csv", "images")
    assert "1 of the 12 images of labels.csv are not in images, as '05.png'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "classes" / "index.html").read_bytes() == before
    (tmp_path / "site" / "files").mkdir(parents=True)
    (tmp_path / "site" / "files" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="of something else"):
        write_class_page(table, tmp_path / "labels.csv", folder, tmp_path / "site")
    assert (tmp_path / "site" / "files" / "mine.txt").read_text() == "mine"


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))  # as a disk that is full: EFBIG, an OSError
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from uic_plugin.cli import main
sys.argv = ["uic", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_a_full_disk_and_a_read_only_folder_lose_nothing(images, tmp_path, uic):
    assert uic("classes", "labels.csv", "images").returncode == 0
    page = tmp_path / "classes"
    before = {p: p.read_bytes() for p in page.rglob("*") if p.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, "classes", "labels.csv", "images"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: classes/")
    assert "File too large; make room" in last
    assert "Traceback" not in done.stderr
    now = {p: p.read_bytes() for p in page.rglob("*") if p.is_file()}
    assert {p: now.get(p) for p in before if p.name in ("index.html", "core.js")} == {
        p: text for p, text in before.items() if p.name in ("index.html", "core.js")
    }
    (tmp_path / "file").write_text("a file is no folder")
    done = uic("classes", "labels.csv", "images", "--out", "file/classes")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
