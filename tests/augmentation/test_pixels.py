"""Each operation with fixed parameters, against Pillow and torchvision's PIL functions.

Within 2 of 255 steps. Resampling is bicubic and bilinear, antialiased, as Pillow's `resize`.
"""

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from uic_plugin.augmentation import CenterViews, Pixels, colour, resample
from uic_plugin.augmentation.blur import box_weights, gaussian_blur
from uic_plugin.augmentation.pipeline import Boxes
from uic_plugin.data.center import center_crop, resized_side

STEPS = 2  # of 255
PILLOW = int(PIL.__version__.split(".")[0])


def picture(height, width, seed, kind="smooth"):
    """Noise, black and white noise, or something with edges and areas, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    if kind == "smooth":
        small = rng.integers(0, 256, (max(2, height // 5), max(2, width // 5), 3), dtype=np.uint8)
        return np.array(Image.fromarray(small).resize((width, height)))
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return noise if kind == "noise" else np.where(noise > 127, 255, 0).astype(np.uint8)


KINDS = ("smooth", "noise", "binary")


def tensor(*images):
    """PIL images as float32 planes (B, 3, H, W)."""
    return torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1).float() for i in images])


def assert_close(ours, theirs, steps=STEPS):
    assert ours.shape == theirs.shape
    assert torch.equal(ours, ours.round())
    assert (ours - theirs).abs().max() <= steps


def boxes(*rows, size, flip=False):
    """Boxes (top, left, height, width) resized to (size, size)."""
    top, left, height, width = np.array(rows, np.int64).T
    sizes, none = np.full(len(rows), size), np.zeros(len(rows), np.int64)
    flips = np.full(len(rows), flip)
    return Boxes(top, left, height, width, sizes, sizes, none, none, flips)


def pil_crop(image, box, size, mode):
    """Pillow's crop and resize, in the order of passes that version 13 and later have."""
    top, left, height, width = box
    crop = Image.fromarray(image).crop((left, top, left + width, top + height))
    shrinks = height - size
    if PILLOW < 13 and shrinks > 0 and shrinks > 2 * (width - size):
        crop = TF.resize(crop, [size, width], mode)
    return TF.resize(crop, [size, size], mode)


@st.composite
def crops(draw):
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    box = (top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))
    return (height, width), box, draw(st.integers(1, 70))


@settings(deadline=None, max_examples=60)
@given(
    case=crops(),
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(["bicubic", "bilinear"]),
    flip=st.booleans(),
)
def test_crop_and_resize(case, kind, name, flip):
    """By matrices up to 64 pixels, above by torch's resampling of bytes."""
    (height, width), box, size = case
    image = picture(height, width, 0, kind)
    view = pil_crop(image, box, size, InterpolationMode(name))
    view = TF.hflip(view) if flip else view
    ours = resample.resample(Pixels.of([image]), boxes(box, size=size, flip=flip), size, name)
    assert_close(ours, tensor(view))


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
@pytest.mark.parametrize("dense", [0, 10_000])
def test_both_ways_to_resample_photographs(name, dense, monkeypatch):
    monkeypatch.setattr(resample, "_DENSE_SIDE", dense)
    images = [picture(240, 180, 1), picture(240, 180, 2, "noise"), picture(240, 180, 3, "binary")]
    given_boxes = [(3, 5, 211, 140), (60, 0, 90, 170), (0, 0, 240, 180)]
    for pixels in (Pixels.of(images), Pixels.of([*images, picture(50, 60, 4)])):
        rows = given_boxes + [(0, 0, 50, 60)] * (len(pixels) - 3)
        ours = resample.resample(pixels, boxes(*rows, size=96), 96, name)
        mode = InterpolationMode(name)
        theirs = [pil_crop(i, b, 96, mode) for i, b in zip(images, given_boxes, strict=True)]
        assert_close(ours[:3], tensor(*theirs))


def test_a_view_is_that_of_its_image_alone():
    """Whatever batch it is in, of one size or of several, padded or not: bit for bit."""
    images = [picture(32, 32, n, KINDS[n % 3]) for n in range(12)]
    rows = [(n % 5, n % 3, 20 + n % 7, 9 + 2 * n % 20) for n in range(12)]
    together = resample.resample(Pixels.of(images), boxes(*rows, size=24), 24, "bicubic")
    mixed = Pixels.of([*images, picture(90, 70, 5)])
    with_others = resample.resample(mixed, boxes(*rows, (0, 0, 90, 70), size=24), 24, "bicubic")
    padded = torch.empty(13, 3, 24, 24)
    for numbers, part in mixed.groups(10**5):
        chosen = boxes(*rows, (0, 0, 90, 70), size=24)[numbers]
        padded[numbers] = resample._by_matrices(part, chosen, 24, "bicubic")
    for number, (image, row) in enumerate(zip(images, rows, strict=True)):
        alone = resample.resample(Pixels.of([image]), boxes(row, size=24), 24, "bicubic")[0]
        for others in (together, with_others, padded):
            assert torch.equal(alone, others[number])


@pytest.mark.parametrize("size", [(5, 7), (32, 32), (40, 33)])
@pytest.mark.parametrize("kind", KINDS)
def test_colours(kind, size):
    rng = np.random.default_rng(7)
    images = [Image.fromarray(picture(*size, n, kind)) for n in range(8)]
    for name, shares in (("brightness", (0, 0)), ("contrast", (1, 0)), ("saturation", (0, 1))):
        factors = rng.uniform(0, 2.2, 8)
        column = torch.tensor(factors, dtype=torch.float32).view(-1, 1, 1, 1)
        theirs = [
            getattr(TF, f"adjust_{name}")(image, factor)
            for image, factor in zip(images, factors, strict=True)
        ]
        to_mean, to_gray = (torch.full_like(column, share) for share in shares)
        ours = colour.blend(tensor(*images), column, to_mean, to_gray)
        assert_close(ours, tensor(*theirs), steps=1)
        nothing = torch.zeros_like(column)
        kept = colour.blend(tensor(*images), nothing + 1, to_mean, to_gray)
        assert torch.equal(kept, tensor(*images))
    for operation, reference in (
        (colour.grayscale, lambda image: TF.to_grayscale(image, 3)),
        (colour.solarize, ImageOps.solarize),
        (colour.equalize, ImageOps.equalize),
    ):
        assert_close(operation(tensor(*images)), tensor(*map(reference, images)), steps=0)


def test_every_colour_can_be_turned():
    """A hue is a fraction that is cut to a byte: 65 ** 3 colours, the corners among them."""
    levels = np.r_[0:256:4, 255].astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    image = Image.fromarray(cube.reshape(len(levels), -1, 3))
    for hue in (-0.5, -0.1, 0.0, 0.03, 0.5):
        shift = torch.tensor(np.int64(np.trunc(hue * 255)).astype(np.uint8)).view(1, 1, 1, 1)
        assert_close(
            colour.turn_hue(tensor(image), shift), tensor(TF.adjust_hue(image, hue)), steps=1
        )


@pytest.mark.parametrize("kind", KINDS)
def test_blur(kind):
    sigmas = np.r_[0.1, 0.5, np.linspace(0.3, 2.0, 6), 4.0]
    images = [Image.fromarray(picture(33, 48, n, kind)) for n in range(len(sigmas))]
    theirs = [
        image.filter(ImageFilter.GaussianBlur(float(sigma)))
        for image, sigma in zip(images, sigmas, strict=True)
    ]
    weights = torch.from_numpy(box_weights(sigmas))
    assert_close(gaussian_blur(tensor(*images), weights), tensor(*theirs))


@pytest.mark.parametrize("shape", [(32, 32), (16, 40), (50, 33), (300, 210), (65, 120)])
@pytest.mark.parametrize("size", [16, 32, 64])
def test_centered_views(shape, size):
    from torchvision import transforms

    if min(shape) < 16:
        pytest.skip("smaller than the view")
    image = picture(*shape, 0)
    view = transforms.Compose([*center_crop(size), transforms.ToTensor()])(Image.fromarray(image))
    none = np.zeros(1, np.int64)
    views = CenterViews(size, resized_side(size), (0.0,) * 3, (1.0,) * 3)
    (ours,) = views(Pixels.of([image]), none, none)
    assert ours.shape == (1, 3, size, size)
    assert (ours[0] - view).abs().max() <= STEPS / 255 + 1e-6


def test_images_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8, got \(4, 4\)"):
        Pixels.of([np.zeros((4, 4), np.uint8)])
