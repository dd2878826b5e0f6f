"""Label files: both formats, and everything that can be wrong with one."""

import datetime

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from uic_plugin.data.labels import (
    LabelTable,
    check_label_file,
    match_labels,
    read_labels,
    write_labels,
)
from uic_plugin.report.tables import read_csv, write_csv

TABLE = LabelTable(
    ["a/1.png", "b/ü,2.png", 'b/"3".png'],
    np.array([2, 0, 1]),
    np.array([0.5, 1 / 3, 1.0], dtype=np.float32),
    np.array([0.1, 2.5, 0.0], dtype=np.float32),
)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_round_trip(tmp_path, ending):
    path = tmp_path / "new" / f"labels.{ending}"
    write_labels(path, TABLE)
    read = read_labels(path)
    assert read.paths == TABLE.paths
    for name in ("labels", "confidence", "entropy"):
        np.testing.assert_array_equal(getattr(read, name), getattr(TABLE, name))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_path_and_label_are_enough(tmp_path):
    (tmp_path / "labels.csv").write_text("label,path\n4,x.png\n")
    table = read_labels(tmp_path / "labels.csv")
    assert (table.paths, table.labels.tolist()) == (["x.png"], [4])
    assert np.isnan(table.entropy).all()


def test_a_file_of_a_spreadsheet(tmp_path):
    """With a byte order mark, and a column of numbers that are longer than any float."""
    text = "path,label,id\nx.png,4,12345678901234567890123\n"
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig")
    table = read_labels(tmp_path / "labels.csv")
    assert (table.paths, table.labels.tolist()) == (["x.png"], [4])
    assert table.extra["id"].tolist() == ["12345678901234567890123"]


def test_columns_of_others_in_csv_stay_as_they_are(tmp_path):
    """Ids with zeros in front, times, double precision, an empty cell, what looks like a mark."""
    text = (
        "path,label,confidence,entropy,patient,time,weight,is_new,second,head_0,agreement\n"
        "a.png,1,0.5,0.25,0012,1700000123.5,0.12345678901234567,True,0,1,0.75\n"
        "b.png,0,0.5,0.25,7,1700000124,,False,1,0,1.0\n"
    )
    (tmp_path / "labels.csv").write_text(text)
    table = read_labels(tmp_path / "labels.csv")
    assert table.extra["patient"].tolist() == ["0012", "7"]
    kinds = [table.extra[name].dtype.kind for name in ("second", "head_0", "agreement")]
    assert kinds == ["i", "i", "f"]
    write_labels(tmp_path / "again.csv", table)
    assert (tmp_path / "again.csv").read_text() == text
    write_labels(tmp_path / "again.parquet", table)  # where text stays text
    write_labels(tmp_path / "back.csv", read_labels(tmp_path / "again.parquet"))
    assert (tmp_path / "back.csv").read_text() == text


def test_columns_of_others_in_parquet_keep_their_types(tmp_path):
    utc, kinds = datetime.timezone.utc, pyarrow
    when = datetime.datetime(2026, 11, 28, 12, 30, 0, 5)
    columns = {
        "double": pyarrow.array([0.1, 1 / 3, float("nan")]),
        "missing": pyarrow.array([0.1, None, float("nan")]),
        "small": pyarrow.array([1, 2, 3], kinds.int8()),
        "long": pyarrow.array([2**60 + 1, None, 3]),
        "huge": pyarrow.array([2**64 - 1, 0, 1], kinds.uint64()),
        "yes": pyarrow.array([True, None, False]),
        "time": pyarrow.array([when] * 3),
        "nanoseconds": pyarrow.array([1, None, 3], kinds.timestamp("ns")),
        "zone": pyarrow.array([when.replace(tzinfo=utc), None, None]),
        "far": pyarrow.array([-(10**17), None, 3], kinds.timestamp("us", "UTC")),
        "day": pyarrow.array([when.date()] * 3),
        "clock": pyarrow.array([1, 2, 3], kinds.time64("ns")),
        "text": pyarrow.array(["0012", None, ""]),
        "list": pyarrow.array([[1, 2], [3, 4], [5, 6]]),
        "bytes": pyarrow.array([b"a", b"\xff", None]),
    }
    own = {"path": ["a", "b", "c"], "label": [0, 1, 2], "confidence": [0.5] * 3}
    whole = pyarrow.table({**own, **columns})
    pyarrow.parquet.write_table(whole, str(tmp_path / "l.parquet"))
    write_labels(tmp_path / "again.parquet", read_labels(tmp_path / "l.parquet"))
    again = pyarrow.parquet.read_table(tmp_path / "again.parquet")
    for name, column in columns.items():
        assert again[name].type == column.type, name
        assert str(again[name].combine_chunks()) == str(column), name  # where NaN equals NaN


@pytest.mark.parametrize(
    "values",
    [
        ["True", "False", "False"],
        ["1.0", "0.0", ""],  # as pandas writes marks beside a missing one
        ["TRUE", "0", " "],
    ],
)
def test_marks_of_other_programs_in_csv(tmp_path, values):
    rows = "".join(f"{k}.png,{k},{value}\n" for k, value in enumerate(values))
    (tmp_path / "labels.csv").write_text("path,label,wrong\n" + rows)
    table = read_labels(tmp_path / "labels.csv")
    assert table.extra["wrong"].dtype == np.int64
    assert table.extra["wrong"].tolist() == [1, 0, 0]
    assert table.marked("wrong").tolist() == [True, False, False]
    assert not table.marked("hidden").any()


@pytest.mark.parametrize(
    "values",
    [[True, False, False], [True, False, None], [1.0, 0.0, float("nan")], [1.0, 0.0, None]],
)
def test_marks_of_other_programs_in_parquet(tmp_path, values):
    table = pyarrow.table({"path": list("abc"), "label": [0, 1, 2], "hidden": values})
    pyarrow.parquet.write_table(table, str(tmp_path / "labels.parquet"))
    assert read_labels(tmp_path / "labels.parquet").extra["hidden"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("value", ["yes", "2", "0.5", "-1"])
def test_a_mark_that_is_none_is_refused(tmp_path, value):
    (tmp_path / "labels.csv").write_text(f"path,label,wrong\na.png,0,1\nb.png,0,{value}\n")
    said = rf"labels\.csv: column wrong holds '{value}': write 1 for marked images and 0 for"
    with pytest.raises(ValueError, match=said):
        read_labels(tmp_path / "labels.csv")
    table = pyarrow.table({"path": ["a"], "label": [0], "hidden": [3]})
    pyarrow.parquet.write_table(table, str(tmp_path / "labels.parquet"))
    with pytest.raises(ValueError, match=r"labels\.parquet: column hidden holds 3: write 1"):
        read_labels(tmp_path / "labels.parquet")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column 'path'"),
        ("path,class\na.png,1\n", "no column 'label' .columns: path, class"),
        ("path,label\na.png,1\na.png,2\n", "'a.png' stands in it twice"),
        ("path,label\na.png,1.5\n", "no whole number"),
        ("path,label\na.png,-1\n", "found -1"),
        ("path,label\na.png,12345678901234567890123\n", "no whole number"),
        ("path,label,entropy\na.png,1,high\n", "a confidence or entropy is no number"),
        ("path,label\na.png\n", "not every row has the 2 columns"),
        ("path,label\n\0,1\n\0", "not every row|no CSV"),
    ],
)
def test_broken_csv(tmp_path, text, reason):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_labels(tmp_path / "labels.csv")


def test_broken_parquet(tmp_path):
    (tmp_path / "labels.parquet").write_text("path,label\n")
    with pytest.raises(ValueError, match="no Parquet file"):
        read_labels(tmp_path / "labels.parquet")


def test_labels_that_are_no_whole_numbers_in_parquet(tmp_path):
    table = pyarrow.table({"path": ["a.png"], "label": [2.7]})
    pyarrow.parquet.write_table(table, str(tmp_path / "labels.parquet"))
    with pytest.raises(ValueError, match=r"a label is no whole number \(they are float64"):
        read_labels(tmp_path / "labels.parquet")


def test_no_file_and_no_such_format(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such label file"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(ValueError, match=r"ends in \.parquet or \.csv"):
        write_labels(tmp_path / "labels.txt", TABLE)


def test_without_pyarrow(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install pyarrow, or write a \.csv"):
        write_labels(tmp_path / "labels.parquet", TABLE)


def test_match_by_path():
    paths = ['b/"3".png', "a/1.png", "b/ü,2.png"]
    assert match_labels(TABLE, paths, 3, "file").tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match=r"1 of the 3 images have no label, as 'new\.png', 1 of"):
        match_labels(TABLE, ["new.png", *paths[1:]], 3, "file")
    other = "0 of the 2 images have no label, 1 of the 3 labels have no image: train on all images"
    with pytest.raises(ValueError, match=other):
        match_labels(TABLE, paths[1:], 3, "file")
    part = r"1 of the 4 images have no label, as 'new\.png', 0 of the 3 labels have no image: move"
    with pytest.raises(ValueError, match=f"{part} .*uic export 'a file' FOLDER --to imagefolder"):
        match_labels(TABLE, ["new.png", *paths], 3, "a file")
    with pytest.raises(ValueError, match="label 2, this run has 2 pseudo classes"):
        match_labels(TABLE, paths, 2, "file")


def test_a_name_that_is_not_utf8_is_for_csv(tmp_path):
    half = np.full(1, 0.5, np.float32)
    table = LabelTable(["a\udce9.png"], np.zeros(1, np.int64), half, half)  # as os.listdir has it
    with pytest.raises(ValueError, match=r"Parquet takes names in UTF-8 alone.*write a \.csv file"):
        check_label_file(tmp_path / "l.parquet", table.paths)
    with pytest.raises(ValueError, match="Parquet takes names in UTF-8 alone"):
        write_labels(tmp_path / "l.parquet", table)
    write_labels(tmp_path / "l.csv", table)
    assert read_labels(tmp_path / "l.csv").paths == table.paths
    write_csv(tmp_path / "t.csv", [{"path": table.paths[0]}])
    assert read_csv(tmp_path / "t.csv") == [{"path": table.paths[0]}]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_names_that_look_like_numbers_stay_as_they_are(tmp_path, ending):
    half, names = np.full(2, 0.5, np.float32), np.asarray(["007", "1.10"], object)
    table = LabelTable(["a", "b"], np.asarray([0, 1]), half, half, {"name": names})
    write_labels(tmp_path / f"l.{ending}", table)
    assert read_labels(tmp_path / f"l.{ending}").names == {0: "007", 1: "1.10"}
