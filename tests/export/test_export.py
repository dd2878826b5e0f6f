"""What is taken along is read by the programs that it is for."""

import csv
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data.labels import LabelTable, names_before, write_labels
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.packing import pack_images
from uic_plugin.export.atlas import nearest
from uic_plugin.export.classes import flat_names, unique_names
from uic_plugin.export.write import KINDS, export_classes
from uic_plugin.features.store import Entry, FileFacts, StoreIdentity, writing

ATLAS = os.environ.get("EMBEDDING_ATLAS") or shutil.which("embedding-atlas")


@pytest.fixture
def labelled(tmp_path):
    """Eight images in folders; awkward names of classes, one image wrong, one class hidden."""
    paths = [f"{folder}/{k}.png" for folder in ("a", "b c") for k in range(4)]
    for k, path in enumerate(paths):
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (30 * k, 0, 0)).save(tmp_path / "images" / path)
    labels = np.array([5, 5, 5, 0, 0, 2, 2, 9])
    names = np.array(["cat/dog"] * 3 + ["Car", "Car", "car", "car", ""], object)
    extra = {
        "name": names,
        "wrong": np.array([1, 0, 0, 0, 0, 0, 0, 0]),
        "hidden": np.array([0, 0, 0, 0, 0, 0, 0, 1]),
    }
    scores = np.linspace(0.5, 1, 8).astype(np.float32)
    write_labels(tmp_path / "labels.csv", LabelTable(paths, labels, scores, scores, extra))
    return tmp_path, paths


def test_folders_link_to_the_images_under_their_classes_names(labelled, uic):
    root, _ = labelled
    done = uic("export", "labels.csv", "images", "--to", "folders", "--out", "out")
    assert done.stdout.strip() == "out: 6 images in 3 classes, 2 left out (--all)"
    assert sorted(os.listdir(root / "out")) == ["Car", "car_2", "cat_dog"]
    assert sorted(os.listdir(root / "out" / "cat_dog")) == ["a__1.png", "a__2.png"]
    link = root / "out" / "cat_dog" / "a__1.png"
    assert link.is_symlink()
    assert link.read_bytes() == (root / "images" / "a" / "1.png").read_bytes()
    again = uic("export", "labels.csv", "images", "--to", "folders", "--out", "out")
    assert "exists and is not empty" in again.stderr
    everything = uic(
        "export", "labels.csv", "images", "--to", "folders", "--out", "all", "--all", "--copy"
    )
    assert everything.stdout.strip() == "all: 8 images in 4 classes"
    assert (root / "all" / "class_0009" / "b c__3.png").is_file()
    assert not (root / "all" / "class_0009" / "b c__3.png").is_symlink()


def test_unfinished_work_of_other_commands_stays(labelled, uic):
    root, _ = labelled
    (root / ".out.part").mkdir()
    (root / ".out.part" / "journal.jsonl").write_text("[0, 1]")
    (root / ".out.export" / "cat_dog").mkdir(parents=True)  # by an export that was killed
    done = uic("export", "labels.csv", "images", "--to", "folders", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert (root / ".out.part" / "journal.jsonl").read_text() == "[0, 1]"
    assert sorted(os.listdir(root)) == [".out.part", "images", "labels.csv", "out"]


def test_the_images_of_a_packed_folder_and_of_a_split(labelled, uic):
    root, paths = labelled
    pack_images(root / "images", root / "packed", PackSettings(0, workers=0))
    split = "\n".join(["filename,label", *(f"{path},{path[0]}" for path in paths)]) + "\n"
    (root / "split.csv").write_text(split)
    for data in ("packed", "split.csv"):
        done = uic("export", "labels.csv", data, "--to", "folders", "--out", f"of-{data}")
        assert done.stdout.strip() == f"of-{data}: 6 images in 3 classes, 2 left out (--all)"
        link = root / f"of-{data}" / "cat_dog" / "a__1.png"
        assert link.read_bytes() == (root / "images" / "a" / "1.png").read_bytes()
    (root / "images").rename(root / "moved")
    done = uic("export", "labels.csv", "packed", "--to", "folders", "--out", "o")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "packed is a packed folder, and" in done.stderr
    assert "is gone: give the folder that these images are in now" in done.stderr


@pytest.mark.parametrize(("mark", "none"), [("True", "False"), ("1.0", "")])
def test_marks_of_another_program_leave_images_out(labelled, uic, mark, none):
    root, paths = labelled
    rows = [f"{path},0,{mark if k == 3 else none},0" for k, path in enumerate(paths)]
    (root / "labels.csv").write_text("\n".join(["path,label,wrong,hidden", *rows]) + "\n")
    done = uic("export", "labels.csv", "images", "--to", "folders", "--out", "out")
    assert done.stdout.strip() == "out: 7 images in 1 classes, 1 left out (--all)"
    rows[0] = f"{paths[0]},0,maybe,0"
    (root / "labels.csv").write_text("\n".join(["path,label,wrong,hidden", *rows]) + "\n")
    done = uic("export", "labels.csv", "images", "--to", "folders", "--out", "o2")
    assert done.returncode == 1
    assert done.stderr.startswith("error: labels.csv: column wrong holds 'maybe'")


def test_torchvision_reads_imagefolder(labelled, uic):
    from torchvision.datasets import ImageFolder

    root, _ = labelled
    assert (
        uic("export", "labels.csv", "images", "--to", "imagefolder", "--out", "o").returncode == 0
    )
    data = ImageFolder(root / "o")
    assert data.classes == ["0_Car", "1_car_2", "2_cat_dog"]
    assert np.bincount(data.targets).tolist() == [2, 2, 2]
    assert data[0][0].size == (40, 30)


def test_csv(labelled, uic):
    root, paths = labelled
    uic("export", "labels.csv", "images", "--to", "csv", "--out", "o")
    with open(root / "o" / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == paths[1:7]
    assert rows[0]["name"] == "cat/dog"
    assert all(os.path.isfile(row["file"]) for row in rows)


def test_pycocotools_reads_coco(labelled, uic):
    coco = pytest.importorskip("pycocotools.coco")
    root, paths = labelled
    uic("export", "labels.csv", "images", "--to", "coco", "--out", "o")
    data = coco.COCO(str(root / "o" / "annotations.json"))
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == ["Car", "car", "cat/dog"]
    cats = data.getImgIds(catIds=data.getCatIds(catNms=["cat/dog"]))
    assert [data.loadImgs(i)[0]["file_name"] for i in cats] == paths[1:3]
    assert data.annToMask(
        data.loadAnns(1)[0] | {"segmentation": [[0, 0, 40, 0, 40, 30, 0, 30]]}
    ).all()


def test_lightly_studio_layout(labelled, uic):
    root, _ = labelled
    uic("export", "labels.csv", "images", "--to", "lightly-studio", "--out", "o")
    content = json.loads((root / "o" / "annotations.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    assert names[:3] == ["cat_dog/a__1.png", "cat_dog/a__2.png", "Car/3.png"]
    assert all((root / "o" / "images" / name).is_file() for name in names)
    assert [a["bbox"] for a in content["annotations"]] == [[0, 0, 40, 30]] * 6
    classes = {c["id"]: c["name"] for c in content["categories"]}
    folder = {"cat/dog": "cat_dog", "Car": "Car", "car": "car_2"}
    shown = [classes[a["category_id"]] for a in content["annotations"]]
    assert [folder[name] for name in shown] == [name.split("/")[0] for name in names]


def test_labelformat_reads_what_is_for_lightly_studio(labelled, uic):
    """LightlyStudio's importers read COCO's boxes with this package of the same authors."""
    formats = pytest.importorskip("labelformat.formats.coco", reason="pip install labelformat")
    root, _ = labelled
    uic("export", "labels.csv", "images", "--to", "lightly-studio", "--out", "o")
    reader = formats.COCOObjectDetectionInput(input_file=root / "o" / "annotations.json")
    found = [(label.image, label.objects) for label in reader.get_labels()]
    assert [image.filename for image, _ in found][:3] == [
        "cat_dog/a__1.png",
        "cat_dog/a__2.png",
        "Car/3.png",
    ]
    for image, objects in found:
        (box,) = objects
        assert (root / "o" / "images" / image.filename).is_file()
        assert box.category.name == image.filename.split("/")[0]
        assert (box.box.xmin, box.box.ymin, box.box.xmax, box.box.ymax) == (0, 0, 40, 30)
        assert 0.5 <= box.confidence <= 1


def test_lightly_studio_reads_it(labelled, uic):
    studio = pytest.importorskip("lightly_studio", reason="pip install lightly-studio")
    root, _ = labelled
    uic("export", "labels.csv", "images", "--to", "lightly-studio", "--out", "o")
    out = root / "o"
    studio.db_manager.connect(db_file=str(root / "studio.db"))
    boxes = studio.ImageDataset.create(name="boxes")
    boxes.add_samples_from_coco(
        out / "annotations.json", out / "images", embed=False, embed_annotations=False
    )
    folders = studio.ImageDataset.create(name="folders")
    folders.add_images_from_path(out / "images", embed=False, tag_depth=1)
    wanted = dict(zip(["a__1.png", "a__2.png"], ["cat/dog"] * 2, strict=True))
    wanted |= {"3.png": "Car", "0.png": "Car", "b c__1.png": "car", "b c__2.png": "car"}
    assert {s.file_name.rpartition("/")[2]: next(iter(s.tags)) for s in folders} == wanted
    found = {s.file_name.rpartition("/")[2]: s.annotations for s in boxes}
    assert {name: [a.class_name for a in each] for name, each in found.items()} == {
        name: [label] for name, label in wanted.items()
    }


def test_fiftyone_layout(labelled, uic):
    root, _ = labelled
    uic("export", "labels.csv", "images", "--to", "fiftyone", "--out", "o")
    content = json.loads((root / "o" / "labels.json").read_text())
    assert content["classes"] == ["Car", "car", "cat/dog"]
    assert content["labels"]["0000000"]["label"] == "cat/dog"
    assert sorted(os.listdir(root / "o" / "data")) == [f"{k:07}.png" for k in range(6)]


def test_fiftyone_reads_it(labelled, uic):
    importers = pytest.importorskip("fiftyone.utils.data.importers")
    root, paths = labelled
    uic("export", "labels.csv", "images", "--to", "fiftyone", "--out", "o")
    with importers.FiftyOneImageClassificationDatasetImporter(dataset_dir=root / "o") as reader:
        rows = [(os.path.realpath(path), label.label) for path, _, label in reader]
    names = ["cat/dog"] * 2 + ["Car"] * 2 + ["car"] * 2
    assert rows == [
        (str((root / "images" / path).resolve()), name)
        for path, name in zip(paths[1:7], names, strict=True)
    ]


def test_embedding_atlas_columns(labelled, uic):
    parquet = pytest.importorskip("pyarrow.parquet")
    root, paths = labelled
    np.savez(root / "f.npz", features=np.random.default_rng(0).normal(size=(8, 5)), paths=paths)
    done = uic("export", "labels.csv", "images", "--to", "embedding-atlas", "--out", "o")
    assert "needs --features" in done.stderr
    assert not (root / "o").exists()
    command = ["export", "labels.csv", "images", "--to", "embedding-atlas", "--out", "o"]
    assert uic(*command, "--features", "f.npz").returncode == 0
    rows = parquet.read_table(root / "o" / "classes.parquet").to_pylist()
    assert [row["path"] for row in rows] == paths[1:7]
    assert all(row["neighbors"]["ids"][0] == k for k, row in enumerate(rows))
    assert rows[0]["image"]["bytes"][:2] == b"\xff\xd8"


def test_features_are_copied_only_where_images_are_left_out(labelled, monkeypatch):
    root, _ = labelled
    given = []
    monkeypatch.setitem(KINDS, "embedding-atlas", lambda *what: given.append(what[3]))
    rows = np.arange(16.0).reshape(8, 2)
    for name, everything in (("all", True), ("some", False)):
        export_classes(
            root / "labels.csv",
            root / "images",
            "embedding-atlas",
            root / name,
            everything=everything,
            features=rows,
        )
    assert given[0] is rows
    np.testing.assert_array_equal(given[1], rows[1:7])


def test_embedding_atlas_with_features_of_the_folder_that_a_split_is_of(labelled, uic):
    parquet = pytest.importorskip("pyarrow.parquet")
    root, paths = labelled
    split = "\n".join(["filename,label", *(f"{path},{path[0]}" for path in paths)]) + "\n"
    (root / "split.csv").write_text(split)
    folder = str((root / "images").resolve())
    identity = StoreIdentity("net", None, None, "ab", "features", "crop", "32", folder, 5)
    rows = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    with writing(root / "store", identity) as writer:
        entries = [Entry(name, FileFacts.of(root / "images" / name), None) for name in paths]
        writer.append(entries, rows)
    command = ["export", "labels.csv", "split.csv", "--to", "embedding-atlas", "--out", "o"]
    assert uic(*command, "--features", "store").returncode == 0
    rows = parquet.read_table(root / "o" / "classes.parquet").to_pylist()
    assert [row["path"] for row in rows] == paths[1:7]


@pytest.mark.slow
@pytest.mark.skipif(not ATLAS, reason="there is no embedding-atlas (pip install embedding-atlas)")
def test_embedding_atlas_opens_it(digits, tmp_path, uic):
    folder = digits / "val"
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    draw = np.random.default_rng(0)
    scores = draw.random(len(paths), np.float32)
    labels = np.array([int(p.split("/")[0]) for p in paths])
    write_labels(tmp_path / "l.csv", LabelTable(paths, labels, scores, scores))
    np.savez(tmp_path / "f.npz", features=draw.normal(size=(len(paths), 8)), paths=paths)
    command = ["export", "l.csv", folder, "--to", "embedding-atlas", "--out", "o"]
    assert uic(*command, "--features", "f.npz").returncode == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    columns = "--image image --text name --x x --y y --neighbors neighbors".split()
    server = subprocess.Popen(
        [
            ATLAS,
            str(tmp_path / "o" / "classes.parquet"),
            *columns,
            "--duckdb",
            "server",
            "--port",
            str(port),
            "--no-auto-port",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            assert server.poll() is None, "embedding-atlas refused the file"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/metadata.json") as file:
                    assert json.load(file)
                    break
            except OSError:
                time.sleep(1)
        else:
            raise AssertionError("embedding-atlas did not answer")
    finally:
        server.terminate()
        server.wait(30)


def test_neighbours_are_the_nearest():
    rows = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    ids, distances = nearest(rows, 6)
    true = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.testing.assert_array_equal(ids, np.argsort(true, axis=1)[:, :6])
    np.testing.assert_allclose(distances, np.sort(true, axis=1)[:, :6], atol=2e-3)


def test_names_fit_every_file_system():
    names = unique_names({0: "CON?", 1: "a", 2: "A", 3: "..", 4: "", 5: "é" * 200, 6: "a"})
    assert len({name.lower() for name in names.values()}) == 7
    assert all(0 < len(name.encode()) < 200 and "/" not in name for name in names.values())
    flat = flat_names(["a/x.png", "b/x.png", "y.png", "c/" + "z" * 250 + ".png"])
    assert flat[:3] == ["a__x.png", "b__x.png", "y.png"]
    assert len(flat[3]) <= 244


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["images", "--to", "hdf5"], "--to must be one of folders"),
        (["--to", "folders"], "needs the folder of images"),
        (["elsewhere", "--to", "csv"], "6 of the 6 images are not in elsewhere"),
        (["--to", "onnx"], "needs the network"),
        (["images", "--to", "csv", "--copy"], "--to csv has no use for --copy"),
        (["images", "--to", "coco", "--run", "x"], "--to coco has no use for --run"),
        (["images", "--to", "onnx"], "has no use for the folder of images"),
    ],
)
def test_mistakes_are_one_line(labelled, uic, arguments, said):
    done = uic("export", "labels.csv", *arguments, "--out", "out")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (labelled[0] / "out").exists()


def test_outputs_have_the_names_of_the_classes_that_they_became():
    # 0 and 2 were merged into 1, "dog"; one image of 3 went there too, the others are "cat" now
    source, labels = [0, 2, 2, 3, 3, 3], [1, 1, 1, 1, 0, 0]
    names = np.asarray([{0: "cat", 1: "dog"}[label] for label in labels], object)
    half = np.full(6, 0.5, np.float32)
    edited = LabelTable(list("abcdef"), np.asarray(labels), half, half, {"name": names})
    assert names_before(edited) == {0: "cat", 1: "dog"}
    edited.extra["source_label"] = np.asarray(source)
    assert names_before(edited) == {0: "dog", 2: "dog", 3: "cat"}


@pytest.mark.slow
@pytest.mark.all_digits
def test_onnxruntime_runs_network_and_classifier(recipe, tmp_path, uic, digits):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    import torch

    from uic_plugin.runs.labelling import ImageFiles, label_images
    from uic_plugin.runs.run import Run
    from uic_plugin.runs.training import pretrain

    pretrain(recipe("max_epochs=1"))
    run = Run.open(tmp_path / "run", needs_images=True)
    table = label_images(run, tmp_path / "l.csv")
    done = uic("export", "l.csv", "--to", "onnx", "--run", "run", "--out", "uic.onnx")
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "uic.onnx")
    size = int(session.get_modelmeta().custom_metadata_map["size"])
    transform_to = ImageFiles(
        digits / "train", lambda image: torch.as_tensor(np.array(image.resize((size, size))))
    )
    images = torch.stack([transform_to[k][0] for k in range(32)]).permute(0, 3, 1, 2) / 255
    (got,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        want = run.classifier().eval()(images).softmax(1).numpy()
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert got.shape == (32, run.head.num_classes)
    assert len(table) == 1442
