"""Classes that people have corrected: `uic discover --from` and `uic label --like`."""

import shutil
import sys

import numpy as np
import pytest
from runs.test_discover import one_line

from uic_plugin import cli
from uic_plugin.data.edits import Edits, Hide, Merge, Move, Name, Split, apply_edits
from uic_plugin.data.labels import read_labels, write_labels

FAST = ("--size", 32, "--workers", 0, "--heads", 4, "--epochs", 3, "--min-steps", 60)


@pytest.fixture(scope="module")
def images(digits, tmp_path_factory):
    """Ten images of each of five digits, in class folders."""
    root = tmp_path_factory.mktemp("again") / "images"
    for folder in sorted((digits / "train").iterdir())[:5]:
        (root / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:10]:
            shutil.copy(image, root / folder.name / image.name)
    return root


@pytest.fixture(scope="module")
def made(images, tmp_path_factory):
    """A folder with their features and four classes of them, not to be changed."""
    root = tmp_path_factory.mktemp("made")
    given = ["--classes", 4, "--features", root / "features", "--out", root / "first", "--no-page"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uic", "discover", *map(str, (images, *given, *FAST))])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code in (None, 0)
    return root


@pytest.fixture
def first(made, tmp_path):
    """A copy of its classes."""
    return shutil.copytree(made / "first", tmp_path / "first")


def moved(found, row):
    """Return a label file as a person corrects it: one image is in another class."""
    labels = found.labels.copy()
    labels[row] = (labels[row] + 1) % 4
    extra = {"source_label": found.labels}
    return type(found)(found.paths, labels, found.confidence, found.entropy, extra)


def edited(found, *edits):
    """Return a label file as `uic labels apply` writes it."""
    return apply_edits(found, Edits("l", len(found), found.fingerprint, list(edits))).table


def test_a_splits_pictures_do_not_go_among_its_images(uic, images, tmp_path):
    shutil.copytree(images, tmp_path / "dataset")
    rows = [f"{path.relative_to(images)},{path.parent.name}" for path in images.glob("*/*.png")]
    (tmp_path / "dataset" / "train.csv").write_text("\n".join(["filename,label", *rows]))
    done = uic("discover", "dataset/train.csv", "--out", "dataset/train-classes", *FAST)
    one_line(
        done, "dataset/train-classes lies in dataset, and its pictures would be among", "--out"
    )
    assert not (tmp_path / "dataset" / "train-classes").exists()


def test_classes_of_a_call_that_was_stopped_behind_them_are_kept(
    uic, images, made, first, tmp_path, monkeypatch
):
    def stop(*given):
        raise KeyboardInterrupt

    found = read_labels(first / "labels.parquet")
    for name, row in (("new.csv", 0), ("new3.csv", 1)):
        write_labels(tmp_path / name, moved(found, row))
    again = ("discover", images, "--features", made / "features", *FAST, "--from")
    with monkeypatch.context() as patch:
        patch.setattr("uic_plugin.experiments.discovery._write_page", stop)
        assert uic(*again, "new.csv").returncode == 130
    out = tmp_path / f"{images.parent.name}-images-classes-2"
    kept = {name: (out / name).read_bytes() for name in ("labels.parquet", "model.pt")}
    one_line(uic(*again, "new3.csv"), f"{out.name} holds classes: give another --out, or --over")
    assert all((out / name).read_bytes() == content for name, content in kept.items())
    # which the same call takes further
    done = uic(*again, "new.csv")
    assert done.returncode == 0, done.stderr
    assert (out / "labels.parquet").read_bytes() == kept["labels.parquet"]
    assert (out / "page" / "index.html").is_file()
    assert not (out / "unfinished").exists()


@pytest.mark.parametrize("more", [(), ("--csv",)])  # it was removed, or replaced
def test_the_file_that_a_search_starts_from_is_not_lost(uic, images, made, first, more):
    write_labels(first / "labels.csv", moved(read_labels(first / "labels.parquet"), 0))
    kept = (first / "labels.csv").read_bytes()
    given = ("--features", made / "features", "--out", "first", "--overwrite", "--no-page", *FAST)
    done = uic("discover", images, "--from", "first/labels.csv", *given, *more)
    assert (first / "labels.csv").read_bytes() == kept
    one_line(done, "--from first/labels.csv is among what goes to first", "copy it elsewhere")


@pytest.fixture(scope="module")
def second(images, made):
    """Classes that began with a correction: two were merged, and one was taken apart."""
    found = read_labels(made / "first" / "labels.parquet")
    members = [path for path, label in zip(found.paths, found.labels, strict=True) if label == 3]
    edits = [Merge([0, 1], 0), Split([Move(members[::2], 9)])]
    write_labels(made / "new.parquet", edited(found, *edits))
    given = ["--from", made / "new.parquet", "--features", made / "features", "--no-page"]
    command = ["uic", "discover", *map(str, (images, *given, "--out", made / "second", *FAST))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code in (None, 0)
    return made / "second"


def test_new_images_get_the_numbers_of_edits_of_these_very_classes(
    uic, images, made, second, tmp_path
):
    # the first classes had other numbers, which are those before the edits in this file
    new = read_labels(made / "new.parquet")
    write_labels(tmp_path / "new2.parquet", edited(new, Name(0, "round"), Move(new.paths[:1], 2)))
    given = ("label", second, images, "--out", "like.csv", "--like")
    done = uic(*given, "new2.parquet")
    one_line(done, "--like new2.parquet was edited from other classes", "uic discover --from new2")
    assert f"edit {second / 'labels.parquet'}" in done.stderr
    # those of its own label file, and of other images that it labelled
    assert uic("label", second, images, "--out", "more.csv").returncode == 0
    plain = read_labels(tmp_path / "more.csv")
    became = np.array([0, 1, 1, 2])
    for own in (read_labels(second / "labels.parquet"), plain):
        write_labels(tmp_path / "own.csv", edited(own, Merge([1, 2], 1)))
        done = uic(*given, "own.csv")
        assert done.returncode == 0, done.stderr
        like = read_labels(tmp_path / "like.csv")
        np.testing.assert_array_equal(like.labels, became[plain.labels])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(second / "model.pt", elsewhere)
    one_line(uic("label", "elsewhere", *given[2:], "own.csv"), "put their labels.parquet beside it")


def test_names_that_were_given_later_are_taken(uic, images, made, second, tmp_path):
    table = read_labels(made / "new.parquet")
    names = {0: "round", 3: "other"}
    table.extra["name"] = np.asarray([names.get(int(c), "") for c in table.labels], object)
    write_labels(tmp_path / "named.parquet", table)
    for name, more in (("plain.csv", ()), ("like.csv", ("--like", "named.parquet"))):
        done = uic("label", second, images, "--out", name, *more)
        assert done.returncode == 0, done.stderr
    plain, like = (read_labels(tmp_path / name) for name in ("plain.csv", "like.csv"))
    np.testing.assert_array_equal(like.labels, plain.labels)
    assert not plain.names
    assert like.names == {c: name for c, name in names.items() if c in like.labels}
    assert like.names


def test_hidden_classes_stay_hidden_and_are_not_exported(uic, images, made, first, tmp_path):
    write_labels(tmp_path / "new.csv", edited(read_labels(first / "labels.parquet"), Hide(1, True)))
    given = ("--features", made / "features", "--out", "again", "--no-page", *FAST)
    assert uic("discover", images, "--from", "new.csv", *given).returncode == 0
    more = ("--like", "new.csv")
    assert uic("label", "again", images, "--out", "more.csv").returncode == 0
    assert uic("label", "first", images, "--out", "like.csv", *more).returncode == 0
    for name in ("again/labels.parquet", "more.csv", "like.csv"):
        table = read_labels(tmp_path / name)
        assert table.hidden == {1}, name
        np.testing.assert_array_equal(table.marked("hidden"), table.labels == 1)
    done = uic("export", "again/labels.parquet", images, "--to", "csv", "--out", "out")
    assert "images in 3 classes" in done.stdout
    # shown again later: the file's marks are of the labels that the classes began with
    write_labels(tmp_path / "shown.csv", edited(read_labels(tmp_path / "new.csv"), Hide(1, False)))
    more = ("--like", "shown.csv")
    assert uic("label", "again", images, "--out", "s.csv", *more).returncode == 0
    assert read_labels(tmp_path / "s.csv").hidden == set()
