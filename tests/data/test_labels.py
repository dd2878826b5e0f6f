"""Label files: both formats, and everything that can be wrong with one."""

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
    """With a byte order mark, and a column of numbers that are longer than any integer."""
    text = "path,label,id\nx.png,4,12345678901234567890123\n"
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig")
    table = read_labels(tmp_path / "labels.csv")
    assert (table.paths, table.labels.tolist()) == (["x.png"], [4])
    assert table.extra["id"][0] == pytest.approx(1.2345678901234567e22)


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
    with pytest.raises(ValueError, match="0 of the 2 images have no label, 1 of the 3 labels"):
        match_labels(TABLE, paths[1:], 3, "file")
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
