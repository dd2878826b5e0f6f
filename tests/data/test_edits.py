"""Edits of the page, applied to label files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uic_plugin.data.edits import Edits, Hide, Merge, apply_edits
from uic_plugin.data.edits_file import read_edits
from uic_plugin.data.labels import (
    LabelTable,
    match_labels,
    read_labels,
    relabel_like,
    write_labels,
)

PATHS = [f"{k}.png" for k in range(10)]
SCORES = np.linspace(0.5, 1, 10).astype(np.float32)
TABLE = LabelTable(
    PATHS,
    np.array([0, 0, 0, 1, 1, 2, 2, 4, 4, 4]),
    SCORES,
    1 - SCORES,
    {"second": np.array([1, 1, 2, 0, 0, 1, 4, 2, 2, 0])},
)


def write(path, edits, table=TABLE, **changes):
    labels = {"file": "l.csv", "images": len(table), "fingerprint": table.fingerprint}
    path.write_text(
        json.dumps(
            {"format": "uic-edits", "version": 1, "labels": labels, "edits": edits, **changes}
        )
    )
    return path


def test_every_kind_of_edit(tmp_path):
    edits = [
        {"do": "name", "class": 4, "name": "four"},
        {"do": "name", "class": 1, "name": "one"},
        {"do": "merge", "classes": [1, 0], "into": 0},
        {"do": "move", "images": ["2.png"], "to": 9},
        {"do": "split", "class": 4, "parts": [{"class": 10, "images": ["9.png"]}]},
        {"do": "wrong", "images": ["5.png", "7.png"], "wrong": True},
        {"do": "wrong", "images": ["7.png"], "wrong": False},
        {"do": "hide", "class": 2, "hidden": True},
    ]
    done = apply_edits(TABLE, read_edits(write(tmp_path / "e.json", edits)), renumber=False)
    table = done.table
    assert table.labels.tolist() == [0, 0, 9, 0, 0, 2, 2, 4, 4, 10]
    assert table.names == {0: "one", 4: "four"}
    assert table.extra["source_label"].tolist() == TABLE.labels.tolist()
    assert table.extra["wrong"].tolist() == [0] * 5 + [1] + [0] * 4
    assert table.extra["hidden"].tolist() == [0] * 5 + [1, 1, 0, 0, 0]
    # 1 is 0 now; an image's second-best class may not be its own
    assert table.extra["second"].tolist() == [-1, -1, 2, -1, -1, 0, 4, 2, 2, 0]
    assert (done.classes, done.moved, done.wrong, done.dropped) == (5, 4, 1, 0)


def test_numbers_without_gaps_and_marked_images():
    edits = Edits("l", 10, TABLE.fingerprint, read_wrong())
    dense = apply_edits(TABLE, edits)
    assert dense.table.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert dense.table.extra["second"].tolist() == [1, 1, 2, 0, 0, 1, 3, 2, 2, 0]
    dropped = apply_edits(TABLE, edits, wrong="drop")
    assert dropped.table.paths == [p for p in PATHS if p != "5.png"]
    assert dropped.dropped == 1
    second = apply_edits(TABLE, edits, wrong="second")
    assert second.table.labels[5] == 1
    assert second.wrong == 0
    with pytest.raises(ValueError, match="one of keep, second, drop"):
        apply_edits(TABLE, edits, wrong="maybe")


def test_marks_of_another_program_stay_marks(tmp_path, uic):
    """pandas writes True, and 1.0 beside a missing value."""
    (tmp_path / "l.csv").write_text(
        "path,label,wrong,hidden,patient\na,0,True,0.0,0012\nb,0,False,,7\nc,1,False,1.0,8\n"
    )
    write(tmp_path / "e.json", [], read_labels(tmp_path / "l.csv"))
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "new.csv")
    assert "1 images marked as wrong" in done.stdout
    table = read_labels(tmp_path / "new.csv")
    assert table.extra["wrong"].tolist() == [1, 0, 0]
    assert table.extra["hidden"].tolist() == [0, 0, 1]
    assert table.extra["patient"].tolist() == ["0012", "7", "8"]
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "less.csv", "--wrong", "drop")
    assert done.returncode == 0, done.stderr
    assert read_labels(tmp_path / "less.csv").paths == ["b", "c"]


def test_marks_of_a_table_made_in_python():
    extra = {"wrong": TABLE.labels == 2, "hidden": (TABLE.labels == 4).astype(float)}
    table = LabelTable(PATHS, TABLE.labels, SCORES, SCORES, extra)
    done = apply_edits(table, Edits("l", 10, table.fingerprint, []), renumber=False)
    assert done.table.extra["wrong"].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert done.table.extra["hidden"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]


def read_wrong():
    from uic_plugin.data.edits import Wrong

    return [Wrong(["5.png"], True)]


def test_names_survive_a_file_and_can_be_fixed_labels(tmp_path):
    edits = [
        {"do": "merge", "classes": [0, 1], "into": 0},
        {"do": "name", "class": 0, "name": 'a, "quoted" <name>'},
    ]
    done = apply_edits(TABLE, read_edits(write(tmp_path / "e.json", edits)))
    for name in ("new.csv", "new.parquet"):
        write_labels(tmp_path / name, done.table)
        table = read_labels(tmp_path / name)
        assert table.names == {0: 'a, "quoted" <name>'}
        assert table.fingerprint == done.table.fingerprint
        for column in ("second", "source_label", "wrong", "hidden"):
            np.testing.assert_array_equal(table.extra[column], done.table.extra[column])
        labels = match_labels(table, PATHS[::-1], 3, name)
        np.testing.assert_array_equal(labels, done.table.labels[::-1])


def test_new_images_get_the_names_and_numbers(tmp_path):
    edits = [
        {"do": "merge", "classes": [2, 4], "into": 2},
        {"do": "name", "class": 2, "name": "two and four"},
        {"do": "move", "images": ["0.png"], "to": 1},
    ]
    done = apply_edits(TABLE, read_edits(write(tmp_path / "e.json", edits)))
    fresh = LabelTable(["x", "y", "z"], np.array([4, 0, 7]), SCORES[:3], SCORES[:3])
    named = relabel_like(fresh, done.table)
    assert named.labels.tolist() == [2, 0, 7]  # 7 is a class of which the edits know nothing
    assert list(named.extra["name"]) == ["two and four", "", ""]


def test_classes_that_were_hidden_stay_hidden_for_new_images():
    done = apply_edits(TABLE, Edits("l", 10, TABLE.fingerprint, [Hide(2, True)]))
    fresh = LabelTable(["x", "y", "z"], np.array([4, 2, 0]), SCORES[:3], SCORES[:3])
    like = relabel_like(fresh, done.table)
    assert like.extra["hidden"].tolist() == [0, 1, 0]
    assert like.hidden == done.table.hidden == {2}
    shown = apply_edits(TABLE, Edits("l", 10, TABLE.fingerprint, [])).table
    for reference in (TABLE, shown):
        assert "hidden" not in relabel_like(fresh, reference).extra
    assert relabel_like(like, shown).hidden == set()
    assert TABLE.hidden == set()


def test_a_class_without_images_takes_no_other_classes_number():
    """Classes 0, 1 and 3 have images, 2 has none; 3 is "church" and becomes 2."""
    reference = LabelTable(
        ["a", "b", "c"],
        np.array([0, 1, 2]),
        SCORES[:3],
        SCORES[:3],
        {"source_label": np.array([0, 1, 3]), "name": np.array(["", "", "church"], object)},
    )
    seconds = {"second": np.array([3, 2, 4])}
    fresh = LabelTable(["x", "y", "z"], np.array([2, 3, 0]), SCORES[:3], SCORES[:3], seconds)
    named = relabel_like(fresh, reference)
    assert named.labels.tolist() == [4, 2, 0]
    assert list(named.extra["name"]) == ["", "church", ""]
    assert named.extra["second"].tolist() == [2, 4, -1]
    del reference.extra["source_label"]  # nothing was renumbered
    assert relabel_like(fresh, reference).labels.tolist() == [2, 3, 0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON file"),
        ("[1]", "is no file of edits"),
        ('{"format": "uic-edits", "version": 2}', "of version 2, known is 1"),
        ('{"format": "uic-edits"}', "of version none, known is 1"),
        ('{"format": "uic-edits", "version": 1}', "needs labels"),
        ('{"format": "uic-edits", "version": 1, "labels": {}, "edits": []}', "which label file"),
    ],
)
def test_broken_files_are_one_line(tmp_path, uic, content, said):
    write_labels(tmp_path / "l.csv", TABLE)
    (tmp_path / "e.json").write_text(content)
    (tmp_path / "new.csv").write_text("mine")
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "new.csv")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "new.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "edit",
    [
        {"do": "name", "class": -1, "name": "x"},
        {"do": "name", "class": True, "name": "x"},
        {"do": "merge", "classes": "01", "into": 0},
        {"do": "move", "images": [3], "to": 0},
        {"do": "move", "images": ["0.png"], "to": 1 << 40},
        {"do": "wrong", "images": ["0.png"], "wrong": 1},
        {"do": "split", "class": 1, "parts": [{"class": 3}]},
        {"do": "explode"},
        "name",
        None,
    ],
)
def test_a_broken_edit_is_named(tmp_path, edit):
    with pytest.raises(ValueError, match="edit 2 is broken"):
        read_edits(write(tmp_path / "e.json", [{"do": "name", "class": 0, "name": ""}, edit]))


def test_edits_of_another_label_file_or_image(tmp_path, uic):
    other = LabelTable(PATHS, TABLE.labels[::-1].copy(), SCORES, SCORES)
    write_labels(tmp_path / "l.csv", other)
    write(tmp_path / "e.json", [])
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "new.csv")
    assert "of another label file ('l.csv', 10 images; this one has 10)" in done.stderr
    assert not (tmp_path / "new.csv").exists()
    write_labels(tmp_path / "l.csv", TABLE)
    write(tmp_path / "e.json", [{"do": "move", "images": ["gone.png"], "to": 1}])
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "new.csv")
    assert "'gone.png', which the label file does not have" in done.stderr
    write(tmp_path / "e.json", [])
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "l.csv")
    assert "is the label file itself" in done.stderr


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), max_size=6))
def test_merges_never_tear_a_class_apart(merges):
    edits = [Merge(classes, classes[0]) for classes in merges]
    done = apply_edits(TABLE, Edits("l", 10, TABLE.fingerprint, edits))
    for label in np.unique(TABLE.labels):
        assert len(set(done.table.labels[TABLE.labels == label])) == 1
    assert sorted(set(done.table.labels)) == list(range(done.classes))


def test_columns_of_classes_follow_merges_and_new_numbers(tmp_path):
    """Classes 0 to 4 of two images each; 1 and 2 become one, so that numbers above move down."""
    labels = np.repeat(np.arange(5), 2)
    second = np.where(labels == 1, 2, 4)
    heads = {"head_0": labels, "head_1": np.where(labels == 1, 2, labels)}
    agreement = np.mean([head == labels for head in heads.values()], axis=0).astype(np.float32)
    extra = {**heads, "agreement": agreement, "second": second}
    table = LabelTable(PATHS, labels, SCORES, SCORES, extra)
    edits = Edits("l", 10, table.fingerprint, [Merge([1, 2], 1)])
    done = apply_edits(table, edits).table
    wanted = np.array([0, 1, 1, 2, 3])[labels]
    assert done.labels.tolist() == wanted.tolist()
    assert done.extra["head_0"].tolist() == wanted.tolist()
    assert done.extra["head_1"].tolist() == wanted.tolist()  # the twins are one class now
    assert done.extra["agreement"].tolist() == [1.0] * 10
    other = np.where((labels == 1) | (labels == 4), -1, 3)  # its twin, itself
    assert done.extra["second"].tolist() == other.tolist()
    kept = apply_edits(table, edits, renumber=False).table
    assert kept.extra["head_0"].tolist() == np.where(labels == 2, 1, labels).tolist()


@pytest.mark.parametrize("values", [["3.0"] * 10, [""] + ["3"] * 9])
def test_a_column_of_classes_that_holds_none_is_one_line(tmp_path, uic, values):
    write_labels(tmp_path / "l.csv", TABLE, {"second": np.asarray(values, object)})
    table = read_labels(tmp_path / "l.csv")
    record = {"file": "l.csv", "images": 10, "fingerprint": table.fingerprint}
    content = {"format": "uic-edits", "version": 1, "labels": record, "edits": []}
    (tmp_path / "e.json").write_text(json.dumps(content))
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "new.csv")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "column second must hold whole numbers" in done.stderr


def test_a_file_without_images_is_not_written(tmp_path, uic):
    write_labels(tmp_path / "l.csv", TABLE)
    write(tmp_path / "e.json", [{"do": "wrong", "images": PATHS, "wrong": True}])
    (tmp_path / "new.csv").write_text("mine")
    done = uic("labels", "apply", "e.json", "l.csv", "--out", "new.csv", "--wrong", "drop")
    assert done.returncode == 1
    assert "no image would be left" in done.stderr
    assert (tmp_path / "new.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("labels", "out", "said"),
    [
        ("none.csv", "new.csv", "none.csv: there is no such label file"),
        ("l.csv", "folder.csv", "folder.csv is a folder: name a file"),
        ("l.csv", "l.csv/new.csv", "l.csv is a file: l.csv/new.csv cannot lie in it"),
    ],
)
def test_wrong_paths_are_one_clear_line(tmp_path, uic, labels, out, said):
    write_labels(tmp_path / "l.csv", TABLE)
    write(tmp_path / "e.json", [])
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "new.csv").write_text("mine")
    done = uic("labels", "apply", "e.json", labels, "--out", out)
    assert done.returncode == 1
    assert done.stderr.strip() == f"error: {said}"
    assert (tmp_path / "new.csv").read_text() == "mine"


def test_a_name_that_no_file_can_hold_is_a_broken_edit(tmp_path):
    edit = {"do": "name", "class": 1, "name": "a\udc80b"}
    with pytest.raises(ValueError, match="edit 1 is broken"):
        read_edits(write(tmp_path / "e.json", [edit]))
