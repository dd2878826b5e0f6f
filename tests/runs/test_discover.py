"""`uic embed`, `uic discover` and `uic label` from the command line, with the default network."""

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from uic_plugin import cli
from uic_plugin.data.edits import Edits, Merge, Move, Name, apply_edits
from uic_plugin.data.labels import LabelTable, read_labels, write_labels
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.packing import pack_images
from uic_plugin.networks.registry import find_backbone
from uic_plugin.networks.weights import save_weights
from uic_plugin.runs.frozen import open_backbone

SMALL = ("--size", 32, "--workers", 0)
FAST = (*SMALL, "--heads", 4, "--epochs", 3, "--min-steps", 60)


@pytest.fixture(scope="module")
def images(digits, tmp_path_factory):
    """Twelve images of each of ten digits, in class folders."""
    root = tmp_path_factory.mktemp("discover") / "images"
    for folder in sorted((digits / "train").iterdir()):
        target = root / folder.name
        target.mkdir(parents=True)
        for image in sorted(folder.iterdir())[:12]:
            shutil.copy(image, target / image.name)
    return root


@pytest.fixture(scope="module")
def features(images, tmp_path_factory):
    """Their features, computed once; copied where a test changes them."""
    out = tmp_path_factory.mktemp("features") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uic", "embed", *map(str, (images, "--out", out, *SMALL))])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code in (None, 0)
    return out


def one_line(done, *words):
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_pictures_do_not_go_among_the_images(uic, images, tmp_path):
    for command in (
        ("discover", images, "--out", images / "classes"),
        ("classes", tmp_path / "labels.csv", images, "--out", images),
        ("export", tmp_path / "labels.csv", images, "--to", "folders", "--out", images / "new"),
    ):
        write_labels(
            tmp_path / "labels.csv",
            LabelTable(["0/0.png"], np.zeros(1, np.int64), np.ones(1), np.zeros(1)),
        )
        one_line(uic(*command), f"lies in {images}", "--out")


def test_ctrl_c_is_said(uic, images, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("uic_plugin.experiments.discovery.run_discovery", interrupt)
    done = uic("discover", images)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_from_a_folder_to_classes_and_new_images(uic, images, features, tmp_path):
    done = uic("discover", images, "--classes", 10, "--features", features, "--annotations", *FAST)
    assert done.returncode == 0, done.stderr
    assert "120 images" in done.stdout
    assert "10 classes, agreement of heads" in done.stdout
    assert f"--from NEW --features {features}" in done.stdout
    out = tmp_path / f"{images.parent.name}-images-classes"
    table = read_labels(out / "labels.parquet")
    assert len(table) == 120
    assert set(table.labels) <= set(range(10))
    import pyarrow.parquet

    columns = pyarrow.parquet.read_table(out / "labels.parquet").column_names
    assert columns == [
        *("path", "label", "confidence", "entropy"),
        *("agreement", "distance", "second"),
        "head_0",  # of four heads one votes
    ]
    classes = json.loads((out / "classes.json").read_text())
    assert sum(row["size"] for row in classes) == 120
    assert (images / classes[0]["typical"][0]).is_file()
    with open(out / "scores.csv") as file:
        row = next(csv.DictReader(file))
    assert 0.2 < float(row["hungarian_accuracy"]) <= 1  # ten digits; a tenth is chance
    # the same network labels the same images alike; what a stopped call for others left is removed
    left = ("embed", next(images.iterdir()), "--out", tmp_path / "again.csv.features", *SMALL)
    assert uic(*left).returncode == 0
    again = uic("label", out, images, "--out", tmp_path / "again.csv")
    assert again.returncode == 0, again.stderr
    relabelled = read_labels(tmp_path / "again.csv")
    assert relabelled.paths == table.paths
    assert np.mean(relabelled.labels == table.labels) > 0.98
    # and other programs take the labels
    page = uic("classes", out / "labels.parquet", images, "--out", tmp_path / "page")
    assert page.returncode == 0, page.stderr
    # a second call does not replace them by accident
    one_line(uic("discover", images, "--classes", 9, "--features", features, *FAST), "--overwrite")
    assert len(read_labels(out / "labels.parquet")) == 120
    # but where that is wanted, and then nothing of the old ones stays beside the new
    given = ("--classes", 3, "--features", features, "--csv", "--no-page", "--overwrite", *FAST)
    done = uic("discover", images, *given)
    assert done.returncode == 0, done.stderr
    assert set(read_labels(out / "labels.csv").labels) <= {0, 1, 2}
    assert not {"labels.parquet", "scores.csv", "page"} & {path.name for path in out.iterdir()}
    # which then is not spoken of, and whose command is named
    assert "correct them on the page" not in done.stdout
    made = next(line for line in done.stdout.splitlines() if "(--no-page)" in line)
    page = uic(*shlex.split(made.partition("makes it: ")[2])[1:])
    assert page.returncode == 0, page.stderr
    assert (out / "page" / "index.html").is_file()


def test_printed_commands_of_packed_images_with_spaces_in_their_names(uic, images, tmp_path):
    folder, packed = tmp_path / "my images", tmp_path / "my packed"
    for number in range(3):
        shutil.copytree(images / str(number), folder / str(number))
    pack_images(folder, packed, PackSettings(0, workers=0))
    given = ("discover", packed, "--classes", 3, "--out", "my classes", "--features", "my features")
    done = uic(*given, *FAST)
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stdout.splitlines() if line.startswith("Next: "))
    assert "uic labels apply edits.json 'my classes/labels.parquet' --out NEW and" in said
    assert f"uic discover '{packed}' --from NEW --features 'my features' --size 32" in said
    assert said.endswith("uic label 'my classes' MORE_IMAGES --out labels.parquet")
    # the page of a packed folder shows the files that it was made of
    done = uic("classes", "my classes/labels.parquet", packed, "--features", "my features")
    assert done.returncode == 0, done.stderr
    core = (tmp_path / "classes" / "files" / "core.js").read_text()
    assert '"folder":"../my images"' in core
    # and there is none where they are gone
    folder.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "my classes")
    done = uic(*given, *FAST)
    assert done.returncode == 0, done.stderr
    assert "correct them on the page" not in done.stdout
    made = next(line for line in done.stdout.splitlines() if "There is no page" in line)
    assert f"{folder}, which {packed} was packed from, is gone" in made
    command = shlex.split(made.partition("makes it: ")[2])[1:]
    page = uic(*(word.replace("IMAGES", "moved") for word in command))
    assert page.returncode == 0, page.stderr
    assert (tmp_path / "my classes" / "page" / "index.html").is_file()
    given = ("classes", "my classes/labels.parquet", packed, "--out", "other")
    one_line(uic(*given), "is a packed folder, and", "is gone: give the folder that these images")


@pytest.mark.slow
def test_number_of_classes_by_itself(uic, images, features, tmp_path):
    done = uic("discover", images, "--features", features, "--out", "auto", "--csv", *FAST)
    assert done.returncode == 0, done.stderr
    assert "neighbours tell " in done.stdout
    about = json.loads((tmp_path / "auto" / "discovery.json").read_text())
    assert about["classes"] in {point["classes"] for point in about["curve"]}
    assert len(read_labels(tmp_path / "auto" / "labels.csv")) == 120


def test_annotations_decide_about_nothing(uic, images, features, tmp_path):
    for name, more in (("a", []), ("b", ["--annotations"])):
        given = ("discover", images, "--classes", 4, "--features", features, "--out", name, *FAST)
        assert uic(*given, *more).returncode == 0
    a, b = (read_labels(tmp_path / name / "labels.parquet") for name in "ab")
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.confidence, b.confidence)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes", 1], ["--classes must be at least 2"]),
        (["--classes", 500], ["120 images cannot be divided into 500"]),
        (["--classes", "many"], ["--classes must be a whole number or auto"]),
        (["--classes", 5, "--balance", 2], ["--balance must be"]),
        (["--classes", 5, "--backbone", "resnet1x"], ["did you mean"]),
        (["--classes", 5, "--baselines", "magic"], ["--baselines must be of"]),
    ],
)
def test_what_a_user_may_get_wrong(uic, images, features, options, words):
    one_line(uic("discover", images, "--features", features, *SMALL, *options), *words)


def test_what_a_user_may_get_wrong_with_features(uic, images, features, tmp_path):
    given = ("embed", images, "--out", "store", *SMALL)
    one_line(uic(*given, "--precision", "8"), "--precision must be one of")
    one_line(uic(*given, "--batch-size", 0), "--batch-size must be at least 1")
    one_line(uic(*given, "--layer", "conv9"), "unknown layer 'conv9'")
    one_line(uic(*given, "--size", 0), "--size must be at least 1")
    one_line(uic("embed", tmp_path / "none", "--out", "store"), "no such folder")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("text")
    one_line(uic("embed", tmp_path / "text", "--out", "store"), "no images there")
    (tmp_path / "text" / "a.jpg").write_text("text")
    one_line(uic("embed", tmp_path / "text", "--out", "text-store", *SMALL), "none of the 1 images")
    assert not (tmp_path / "store").exists()
    shutil.copy(next(images.glob("*/*.png")), tmp_path / "text" / "one.png")
    done = uic("embed", tmp_path / "text", "--out", "text-store", *SMALL)
    assert "text-store: 1 images of 1280 dimensions, 1 new" in done.stdout
    assert "left out: " in done.stdout
    assert "a.jpg (not an image)" in done.stdout
    copy = shutil.copytree(features, tmp_path / "copy")
    (copy / "store.json").write_text("{")
    one_line(uic("embed", images, "--out", copy, *SMALL), "damaged", "compute it anew")


def test_folders_that_cannot_be_divided(uic, images, tmp_path):
    one_line(uic("discover", tmp_path / "none", "--classes", 2), "no such folder")
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("text")
    one_line(uic("discover", text, "--classes", 2), "no images there")
    shutil.copy(next(images.glob("*/*.png")), text / "one.png")
    one_line(uic("discover", text, "--classes", 2), "1 image cannot be divided")
    for number in range(5):
        shutil.copy(text / "one.png", text / f"{number}.png")
    one_line(uic("discover", text, "--classes", 2, *SMALL), "all 6 images have the same features")
    assert not (tmp_path / "text-classes" / "labels.parquet").exists()


def test_corrupted_image_is_left_out_and_named(uic, images, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for number, image in enumerate(sorted(images.glob("*/*.png"))[::5]):
        shutil.copy(image, folder / f"{number}.png")
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:70])
    done = uic("discover", folder, "--classes", 3, "--out", "out", *FAST)
    assert done.returncode == 0, done.stderr
    assert "left out: " in done.stdout
    assert "0.png" in done.stdout
    assert "0.png" not in read_labels(tmp_path / "out" / "labels.parquet").paths


def test_a_mistyped_folder_behind_a_layer_is_no_layer(uic):
    given = ("--out", "x", *SMALL)
    one_line(uic("embed", "-l", "features", "nosuch", *given), "nosuch: there is no such folder")
    one_line(uic("discover", "-l", "features", "nosuch", *given), "nosuch: there is no such folder")


def test_features_of_another_folder_or_network(uic, images, features, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(images, other)
    given = ("--classes", 3, "--features", features, "--workers", 0)
    one_line(uic("discover", other, *given, "--size", 32), "another folder")
    one_line(uic("discover", images, *given, "--size", 64), "another preprocessing")
    one_line(uic("discover", images, *given, "--size", 32, "--layer", "layer2"), "another layer")


def test_features_of_a_network_without_a_head(tmp_path):
    save_weights(find_backbone("conv4")(), tmp_path / "conv4.pth")
    backbone = open_backbone("conv4", weights=tmp_path / "conv4.pth", layer="auto", size=32)
    assert backbone.layer == "features"


def test_weights_that_do_not_fit(uic, images, tmp_path):
    (tmp_path / "x.pth").write_text("text")
    given = ("discover", images, "--classes", 3)
    one_line(uic(*given, "--weights", tmp_path / "x.pth"), "holds no weights")
    one_line(uic(*given, "--backbone", tmp_path / "x.pth"), "--backbone NAME --weights")
    save_weights(find_backbone("conv4")(), tmp_path / "conv4.pth")
    one_line(uic(*given, "--weights", tmp_path / "conv4.pth"), "does not hold the weights of")
    assert not list(tmp_path.glob("*-features"))


@pytest.mark.slow
def test_new_images_get_the_names_and_numbers_of_an_edited_file(uic, images, features, tmp_path):
    given = ("--features", features, *FAST)
    done = uic("discover", images, "--classes", 4, "--out", "out", *given)
    assert done.returncode == 0, done.stderr
    found = read_labels(tmp_path / "out" / "labels.parquet")
    merge = [Merge([1, 3], 1), Name(1, "round"), Move([found.paths[0]], 9)]
    edited = apply_edits(found, Edits("l", len(found), found.fingerprint, merge)).table
    write_labels(tmp_path / "new.parquet", edited)
    for name, more in (("plain.csv", ()), ("like.csv", ("--like", "new.parquet"))):
        done = uic("label", "out", images, "--out", name, *more)
        assert done.returncode == 0, done.stderr
    plain, like = (read_labels(tmp_path / name) for name in ("plain.csv", "like.csv"))
    became = np.array([0, 1, 2, 1])
    np.testing.assert_array_equal(like.labels, became[plain.labels])
    np.testing.assert_array_equal(like.extra["source_label"], plain.labels)
    np.testing.assert_array_equal(like.extra["head_0"], became[plain.extra["head_0"]])
    assert like.names == {1: "round"}
    # classes that were found from the edits have their numbers and names already
    done = uic("discover", images, "--from", "new.parquet", "--out", "from", *given)
    assert done.returncode == 0, done.stderr
    for name, more in (("a.csv", ()), ("b.csv", ("--like", "new.parquet"))):
        done = uic("label", "from", images, "--out", name, *more)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    # and those of other classes are refused
    found.labels[0] = 11
    write_labels(tmp_path / "other.csv", found)
    given = ("label", "out", images, "--out", "x.csv")
    one_line(uic(*given, "--like", "other.csv"), "has class 11", "has 4 classes")
    one_line(uic(*given, "--like", "none.csv"), "no such label file")
    one_line(uic(*given, "--set", "a=b"), "no recipe for --set")
    assert not (tmp_path / "x.csv").exists()


def test_model_of_other_features(uic, images, features, tmp_path):
    assert (
        uic(
            "discover", images, "--classes", 3, "--features", features, "--out", "out", *FAST
        ).returncode
        == 0
    )
    one_line(uic("label", "out", "--out", "x.csv"), "give their folder")
    (tmp_path / "out" / "model.pt").write_text("text")
    one_line(uic("label", "out", images, "--out", "x.csv"), "no model of 'uic discover'")


@pytest.mark.slow
@pytest.mark.parametrize(("head", "layer"), [("linear", "features"), ("mlp", "mlp")])
def test_features_of_a_run(head, layer, uic, digits, recipe, images, tmp_path):
    """What the run's classifiers read; the same for later images."""
    from uic_plugin.runs.training import pretrain

    options = ["method_kwargs.head_width=48", "method_kwargs.head_layers=1"]
    more = [f"method_kwargs.head={head}", *(options if head == "mlp" else [])]
    run = pretrain(recipe("max_epochs=1", *more)).run_dir
    given = ("discover", digits / "val", "--classes", 10, "--backbone", run, "--out", "out")
    given += ("--features", "store")
    done = uic(*given, "--workers", 0, "--heads", 2, "--min-steps", 20, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    store = json.loads((tmp_path / "store" / "store.json").read_text())
    assert store["layer"] == layer
    assert (store["dim"] == 48) == (head == "mlp")
    again = uic("label", "out", digits / "val", "--out", "again.csv")
    assert again.returncode == 0, again.stderr
    # features that `uic embed` has made before are taken as they are
    store = ("embed", digits / "val", "--backbone", run, "--out", "store-2", "--workers", 0)
    assert uic(*store).returncode == 0
    more = ("--out", "out-2", "--features", "store-2", "--heads", 2, "--min-steps", 20)
    done = uic(*given[:6], *more, "--workers", 0, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    first = read_labels(tmp_path / "out" / "labels.parquet")
    assert np.mean(read_labels(tmp_path / "again.csv").labels == first.labels) > 0.98


@pytest.mark.slow
def test_killed_command_resumes(images, features, uic, tmp_path):
    given = ["discover", images, "--classes", "5", "--features", features, *SMALL]
    given += ["--heads", "4", "--min-steps", "2000", "--seed", "3"]
    whole = uic(*given, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "uic_plugin.cli", *map(str, given), "--out", tmp_path / "part"]
    process = subprocess.Popen(command)
    work = tmp_path / "part" / "unfinished" / "heads.pt"
    while not work.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "part" / "labels.parquet").exists()
    assert subprocess.run(command).returncode == 0
    a, b = (read_labels(tmp_path / name / "labels.parquet") for name in ("whole", "part"))
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.confidence, b.confidence)
    assert not (tmp_path / "part" / "unfinished").exists()
