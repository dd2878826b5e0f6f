"""PASCAL VOC's folders: what is read, and one line for what cannot be."""

import math

import pytest
import torch
from PIL import Image
from voc_tree import SIDE, SIZE, annotation

from uic_plugin.data.voc_folder import VOC_CLASSES, VocMasks, VocObjects, find_voc


def write(folder, objects, name="000000", size=SIZE):
    (folder / "Annotations" / f"{name}.xml").write_text(annotation(name, size, objects))


def test_boxes_are_lengths_from_the_corner(own_voc):
    write(own_voc, [("dog", (1, 1, 112, 80), False), ("cat", (5, 6, 5, 6), True)])
    images = VocObjects(own_voc, "trainval")
    first = images.objects[0]
    assert first.boxes.tolist() == [[0, 0, 112, 80], [4, 5, 5, 6]]
    assert [VOC_CLASSES[c] for c in first.labels] == ["dog", "cat"]
    assert first.difficult.tolist() == [False, True]
    presence = images.presence()[0]
    assert presence[VOC_CLASSES.index("dog")] == 1
    assert math.isnan(presence[VOC_CLASSES.index("cat")])
    assert presence.nansum() == 1
    assert images.image(0).size == SIZE


def test_the_boxes_are_where_the_digits_are(voc_digits):
    images = VocObjects(find_voc(voc_digits, "trainval"), "trainval")
    for number, objects in enumerate(images.objects):
        pixels = torch.tensor(list(images.image(number).convert("L").getdata())).view(80, 112)
        for x1, y1, x2, y2 in objects.boxes.int().tolist():
            assert (x2 - x1, y2 - y1) == (SIDE, SIDE)
            assert pixels[y1:y2, x1:x2].max() > 150
            pixels[y1:y2, x1:x2] = 0
        assert pixels.max() < 60  # nothing but what JPEG leaves


def test_a_class_that_is_there_and_difficult_counts_as_there(own_voc):
    write(own_voc, [("dog", (1, 1, 9, 9), True), ("dog", (5, 6, 15, 16), False)])
    presence = VocObjects(own_voc, "trainval").presence()[0]
    assert presence[VOC_CLASSES.index("dog")] == 1


@pytest.mark.parametrize("given", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_the_folder_is_found_from_above(voc_digits, given):
    found = find_voc(voc_digits / given, "trainval")
    assert found.name == "VOC2007"
    assert len(VocMasks(found, "trainval")) == 10


def test_a_folder_may_be_a_link(voc_digits, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "VOCdevkit").symlink_to(voc_digits / "VOCdevkit")
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2007").symlink_to(voc_digits / "VOCdevkit" / "VOC2007")
    for given in (tmp_path, tmp_path / "elsewhere", tmp_path / "VOCdevkit" / "VOC2007"):
        assert len(VocObjects(find_voc(given, "test"), "test")) == 6


def test_coordinates_with_fractions_are_taken_with_a_warning(own_voc):
    write(own_voc, [("dog", (1, 45.7, 9, 50), False)])
    with pytest.warns(UserWarning, match=r"1 coordinates .*no whole numbers, as 000000: 45\.7"):
        images = VocObjects(own_voc, "trainval")
    assert images.objects[0].boxes[0, 1] == pytest.approx(44.7)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 1, 113, 9), "leaves the image of 112 x 80 pixels"),
        ((-1, 1, 9, 9), "leaves the image"),
        ((9, 1, 5, 9), r"no box goes from \(9, 1\) to \(5, 9\)"),
        (("nan", 1, 5, 9), "no box goes"),
        (("left", 1, 5, 9), "a box needs numbers xmin, ymin, xmax, ymax"),
    ],
)
def test_a_box_that_cannot_be(own_voc, box, message):
    write(own_voc, [("dog", box, False)])
    with pytest.raises(ValueError, match=message) as caught:
        VocObjects(own_voc, "trainval")
    assert "000000.xml" in str(caught.value)


def test_an_unknown_class_lists_the_known(own_voc):
    write(own_voc, [("unicorn", (1, 1, 9, 9), False)])
    with pytest.raises(ValueError, match=r"unknown class 'unicorn'.*aeroplane, bicycle, .*tvmon"):
        VocObjects(own_voc, "trainval")


def test_files_that_are_missing_or_no_annotation(own_voc):
    path = own_voc / "Annotations" / "000001.xml"
    kept = path.read_text()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"000001.xml is missing; 3 of 4 annotations"):
        VocObjects(own_voc, "trainval")
    path.write_text(kept[:50])
    with pytest.raises(ValueError, match=r"000001\.xml is no annotation of PASCAL VOC"):
        VocObjects(own_voc, "trainval")
    path.write_text("<other/>")
    with pytest.raises(ValueError, match="it lists no object"):
        VocObjects(own_voc, "trainval")
    path.write_text(kept)
    (own_voc / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"000002.jpg is missing; 3 of 4 images"):
        VocObjects(own_voc, "trainval")


def test_an_image_without_objects_is_fine(own_voc):
    write(own_voc, [])
    assert VocObjects(own_voc, "trainval").objects[0].boxes.shape == (0, 4)


def test_an_image_of_another_size_than_its_annotation(own_voc):
    write(own_voc, [("dog", (1, 1, 9, 9), False)], size=(400, 300))
    images = VocObjects(own_voc, "trainval")
    with pytest.raises(ValueError, match="has 112 x 80 pixels, its annotation says 400 x 300"):
        images.image(0)


def test_splits(own_voc, tmp_path):
    (own_voc / "ImageSets" / "Main" / "trainval.txt").write_text("\n")
    with pytest.raises(ValueError, match="the split 'trainval' lists no image"):
        VocObjects(own_voc, "trainval")
    (own_voc / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n\n")
    assert VocObjects(own_voc, "trainval").names == ["000001"]
    with pytest.raises(FileNotFoundError, match="no split 'val' in ImageSets/Main: test, trainval"):
        find_voc(own_voc, "val")
    with pytest.raises(FileNotFoundError, match="expected VOCdevkit/VOC2007 there"):
        find_voc(tmp_path, "trainval")
    with pytest.raises(FileNotFoundError, match="expected VOCdevkit/VOC2012 there"):
        find_voc(own_voc, "trainval", year="2012")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_voc(tmp_path / "none", "trainval")
    with pytest.raises(ValueError, match="--year must be one of 2007"):
        find_voc(own_voc, "trainval", year="1999")


def test_masks(own_voc):
    path = own_voc / "SegmentationClass" / "000001.png"
    Image.new("L", (50, 80)).save(path)
    with pytest.raises(ValueError, match="has 50 x 80 pixels, its image has 112 x 80"):
        VocMasks(own_voc, "trainval")
    Image.new("L", SIZE, 77).save(path)
    with pytest.raises(ValueError, match="has value 77: a mask holds 0 for background, 1 to 20"):
        VocMasks(own_voc, "trainval").item(1)
    Image.new("RGB", SIZE).save(path)
    with pytest.raises(ValueError, match="has colours"):
        VocMasks(own_voc, "trainval").item(1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="3 of 4 masks are there"):
        VocMasks(own_voc, "trainval")
