"""Where pictures may be written: not among the images of a folder or a split."""

import pytest
from PIL import Image

from uic_plugin.data.folders import check_outside, list_images


@pytest.mark.parametrize("place", [".", "images"])
def test_pictures_do_not_go_among_the_images_of_a_split(tmp_path, place):
    root, split = tmp_path / "set" / place, tmp_path / "set" / "train.csv"
    (root / "a").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(root / "a" / "0.png")
    split.write_text("filename,label\na/0.png,n1\n")
    assert list_images(split).root == root
    for out in (root, root / "train-classes", root / "a" / ".." / "page"):
        with pytest.raises(ValueError, match=f"lies in {root}, and its pictures .* --out"):
            check_outside(out, split)
    check_outside(tmp_path / "train-classes", split)
    if place == "images":
        check_outside(tmp_path / "set" / "train-classes", split)


def test_files_that_are_no_split_are_told_as_such(tmp_path):
    check_outside(tmp_path / "out", tmp_path / "none.csv")  # which `list_images` refuses
    (tmp_path / "labels.csv").write_text("path,label\n0.png,1\n")
    with pytest.raises(ValueError, match="needs the columns filename and label"):
        check_outside(tmp_path / "out", tmp_path / "labels.csv")
