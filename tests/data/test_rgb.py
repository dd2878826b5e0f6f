"""Images of any kind as upright RGB."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from uic_plugin.data.folders import images_below
from uic_plugin.data.listed import decode
from uic_plugin.data.pack_pixels import _pixels
from uic_plugin.data.rgb import as_rgb, upright
from uic_plugin.runs.datasets import pretrain_dataset
from uic_plugin.runs.settings import prepare_config

RAMP = np.array([[0, 255, 256, 32768, 65535]], np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_upper_8(tmp_path, suffix):
    Image.fromarray(RAMP).save(tmp_path / f"ramp.{suffix}")
    pixels = np.asarray(decode(tmp_path / f"ramp.{suffix}"))
    assert pixels.shape == (1, 5, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    np.testing.assert_array_equal(pixels, pixels[..., :1].repeat(3, axis=2))


def test_whole_numbers_of_32_bits():
    assert np.asarray(as_rgb(Image.fromarray(RAMP.astype(np.int32))))[0, :, 0].tolist() == [
        *(0, 0, 1, 128, 255)
    ]
    small = Image.fromarray(np.array([[0, 7, 255]], np.int32))  # of 8 bits already
    assert np.asarray(as_rgb(small))[0, :, 0].tolist() == [0, 7, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA"])
def test_other_kinds_are_pillows(mode):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).convert(mode)
    np.testing.assert_array_equal(np.asarray(as_rgb(image)), np.asarray(image.convert("RGB")))


def test_photographs_of_kinds_that_are_not_read_are_counted(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.jpg", "B.JPEG", "c.heic", "more/d.HEIC", "more/e.dng", "notes.txt", ".png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"kinds that are not read: 3 \(.dng .heic\); convert"):
        assert images_below(tmp_path) == ["B.JPEG", "a.jpg"]


# what a viewer does with a photograph of each orientation, as numpy does it
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def stored(pixels, orientation, kind="PNG"):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, exif=exif)
    return content.getvalue()


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_photographs_stand_upright(orientation, kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    content = stored(pixels, orientation, kind)
    image = decode(content)
    np.testing.assert_array_equal(np.asarray(image), TURNS[orientation](pixels))
    np.testing.assert_array_equal(np.asarray(as_rgb(image)), np.asarray(image))  # turned once
    (tmp_path / "photo").write_bytes(content)
    (width, height), packed = _pixels(str(tmp_path / "photo"), 0, False)
    assert (width, height) == image.size
    assert packed == image.tobytes()


def test_a_grey_photograph_of_16_bits_stands_upright_too():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = io.BytesIO()
    Image.fromarray(RAMP).save(content, "PNG", exif=exif)
    assert np.asarray(decode(content.getvalue()))[:, 0, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_jpeg_that_is_decoded_smaller_stands_upright():
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :64, 0] = 255  # red is on the left of what the sensor saw, and up for a viewer
    with Image.open(io.BytesIO(stored(pixels, 6, "JPEG"))) as image:
        image.draft("RGB", (16, 16))
        small = np.asarray(as_rgb(image)).astype(int)
    assert small.shape == (32, 16, 3)
    assert (small[:12, :, 0] > 200).all()
    assert (small[20:, :, 0] < 50).all()


@pytest.mark.parametrize("exif", [b"no tags at all", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_damaged_metadata_turns_nothing(exif):
    pixels = np.full((4, 6, 3), 128, np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", exif=exif)
    assert decode(content.getvalue()).size == (6, 4)


def test_an_image_without_orientation_is_not_copied():
    image = Image.new("RGB", (3, 2))
    assert upright(image) is image


@pytest.mark.parametrize(
    ("values", "bytes_"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),  # fractions
        (np.array([[0, 7.4, 255]], np.float32), [0, 7, 255]),  # of 8 bits
        (np.array([[100, 1100, 4100]], np.float32), [0, 64, 255]),  # stretched
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.5, np.inf]], np.float32), [0, 128, 0]),
        (np.array([[0, 1 << 20, 1 << 21]], np.int32), [0, 128, 255]),
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),
        (np.array([[1 << 20, 1 << 20]], np.int32), [0, 0]),  # all the same
        (np.array([[0, 16, 4095]], np.uint16), [0, 1, 255]),  # of 12 bits
        (np.array([[0, 16, 255]], np.uint16), [0, 16, 255]),  # of 8
    ],
)
def test_grey_of_any_range(tmp_path, values, bytes_):
    Image.fromarray(values).save(tmp_path / "grey.tif")
    assert np.asarray(decode(tmp_path / "grey.tif"))[0, :, 0].tolist() == bytes_


@pytest.mark.parametrize("folder", ["photos", "photos/train"])  # without and with class folders
def test_training_sees_photographs_upright(recipe, tmp_path, folder):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    places = ["."] if folder == "photos" else ["train/cat", "train/dog"]
    for place in places:
        (tmp_path / "photos" / place).mkdir(parents=True, exist_ok=True)
        for number in range(40):
            path = tmp_path / "photos" / place / f"{number}.jpg"
            path.write_bytes(stored(pixels, 6, "JPEG"))
    given = [f"data.train_path={tmp_path / folder}", f"run_dir={tmp_path / 'run'}"]
    cfg = recipe("data.dataset=custom", "data.val_path=null", *given)
    dataset = pretrain_dataset(*prepare_config(cfg))
    dataset.transform = lambda image: image
    number, image, _ = dataset[3]
    assert (number, image.size) == (3, (32, 64))
    assert (np.asarray(image)[:24, :, 0] > 200).all()
