"""Files that are written whole or not at all."""

import errno

import pytest

from uic_plugin.files import replacing, replacing_folder, save_tensors


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_the_file_and_leaves_it_as_it_was(tmp_path, number):
    path = tmp_path / "labels.csv"
    path.write_text("old")

    def write_half():
        with replacing(path) as part:
            part.write_text("half")
            raise OSError(number, "no file's name, as from `write`")

    with pytest.raises(OSError, match=r"labels\.csv: .*; make room, then give"):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["labels.csv"]
    assert path.read_text() == "old"


def test_another_error_passes_as_it_is(tmp_path):
    error = PermissionError(errno.EACCES, "denied", "x")
    with pytest.raises(PermissionError) as caught, replacing(tmp_path / "labels.csv"):
        raise error
    assert caught.value is error


def test_a_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").mkdir()
    worked = []
    with (
        pytest.raises(IsADirectoryError, match=r"out is a folder: name a file$"),
        replacing(tmp_path / "out"),
    ):
        worked.append(1)
    with pytest.raises(IsADirectoryError, match="out is a folder: name a file"):
        save_tensors({}, tmp_path / "out")
    assert not worked
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_on_a_full_disk_is_removed(tmp_path):
    part = tmp_path / ".page.part"
    part.mkdir()
    (part / "sprite").write_text("half")
    full = OSError(errno.ENOSPC, "full")
    with (
        pytest.raises(OSError, match=r"page: .*; make room"),
        replacing_folder(part, tmp_path / "page"),
    ):
        raise full
    assert not any(tmp_path.iterdir())
