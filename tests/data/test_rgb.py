"""Images of any kind as RGB."""

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data.folders import images_below
from uic_plugin.data.listed import decode
from uic_plugin.data.rgb import as_rgb

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
