"""Parameters: a function of (seed, epoch, position, view), distributed as the host's."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional as TF

from uic_plugin.augmentation import Pipeline, Pixels, RandomViews
from uic_plugin.augmentation.draws import uniforms
from uic_plugin.augmentation.pipeline import NUM_UNIFORMS, draw_parameters

COUNT = 1500
SEEDS = (0, 1, 2)
LEAST = 1e-4  # p-value below which two samples are of different distributions


def rows_of(seed, count=COUNT, view=0, epoch=0):
    none = np.full(count, epoch)
    return uniforms(seed, none, np.arange(count), view, NUM_UNIFORMS)


def test_a_row_depends_on_its_own_numbers_alone():
    epochs, positions = np.array([3, 3, 4]), np.array([10, 11, 10])
    rows = uniforms(5, epochs, positions, 1, 40)
    for number in range(3):
        alone = uniforms(5, epochs[number:][:1], positions[number:][:1], 1, 40)
        assert np.array_equal(alone[0], rows[number])
    assert np.array_equal(uniforms(5, epochs, positions, 1, 10), rows[:, :10])
    for other in (
        uniforms(6, epochs, positions, 1, 40),
        uniforms(5, epochs + 1, positions, 1, 40),
        uniforms(5, epochs, positions + 1, 1, 40),
        uniforms(5, epochs, positions, 2, 40),
    ):
        assert not (other == rows).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_uniform_and_independent(seed):
    rows = rows_of(seed, 20_000)
    assert rows.min() >= 0
    assert rows.max() < 1
    for column in rows.T:
        assert stats.kstest(column, "uniform").pvalue > LEAST
    # between columns, between neighbours in the order, between views and between epochs
    correlations = np.corrcoef(rows.T) - np.eye(NUM_UNIFORMS)
    others = [
        np.r_[rows[1:], rows[:1]],
        rows_of(seed, 20_000, view=1),
        rows_of(seed, 20_000, epoch=1),
    ]
    worst = max(
        [abs(correlations).max()]
        + [abs(np.corrcoef(rows[:, c], o[:, c])[0, 1]) for o in others for c in range(NUM_UNIFORMS)]
    )
    assert worst < 5.5 / math.sqrt(20_000)


@pytest.mark.parametrize("shape", [(32, 32), (60, 40), (20, 200), (200, 30)])
@pytest.mark.parametrize("seed", SEEDS)
def test_crops_are_distributed_as_the_hosts(shape, seed):
    torch.manual_seed(seed)
    scale = (0.7, 1.0) if seed == 1 else (0.08, 1.0)
    image, ratio = Image.new("RGB", shape[::-1]), (3 / 4, 4 / 3)
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(COUNT)]
    )
    pipeline = Pipeline(32, (0.0,) * 3, (1.0,) * 3, scale=scale)
    boxes = draw_parameters(pipeline, np.array([shape] * COUNT), rows_of(seed)).boxes
    ours = np.stack([boxes.top, boxes.left, boxes.height, boxes.width], 1)
    assert (ours >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= shape).all()
    for one, two in zip(ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(one, two).pvalue > LEAST
    areas = [rows[:, 2] * rows[:, 3] for rows in (ours, theirs)]
    shapes = [rows[:, 3] / rows[:, 2] for rows in (ours, theirs)]
    for one, two in (areas, shapes):
        assert stats.ks_2samp(one, two).pvalue > LEAST


PIPELINE = Pipeline(
    8,
    (0.0,) * 3,
    (1.0,) * 3,
    jitter_prob=0.8,
    factors=((0.6, 1.4), (0.2, 1.8), (0.6, 1.4), (-0.1, 0.1)),
    gray_prob=0.2,
    blur_prob=0.5,
    solarize_prob=0.1,
    equalize_prob=0.3,
    flip_prob=0.5,
)


@pytest.mark.parametrize("seed", SEEDS)
def test_colours_are_distributed_as_the_hosts(seed):
    """Against torchvision's own draws, and the uniform standard deviations of the host's blur."""
    torch.manual_seed(seed)
    theirs = [transforms.ColorJitter.get_params(*map(list, PIPELINE.factors)) for _ in range(COUNT)]
    ours = draw_parameters(PIPELINE, np.full((COUNT, 2), 32), rows_of(seed))
    for kind in range(4):
        values = [float(params[1 + kind]) for params in theirs]
        assert stats.ks_2samp(ours.factors[:, kind], values).pvalue > LEAST
    jittered = ours.order[:, 0] >= 0
    names, counts = np.unique(ours.order[jittered] @ [64, 16, 4, 1], return_counts=True)
    known = {int(torch.tensor([64, 16, 4, 1]) @ params[0]) for params in theirs}
    assert set(names.tolist()) == known
    assert len(names) == 24
    assert stats.chisquare(counts).pvalue > LEAST
    blurred = ours.sigma > 0
    assert stats.kstest((ours.sigma[blurred] - 0.1) / 1.9, "uniform").pvalue > LEAST
    for happened, probability in (
        (jittered, 0.8),
        (ours.gray, 0.2),
        (blurred, 0.5),
        (ours.solarize, 0.1),
        (ours.equalize, 0.3),
        (ours.boxes.flip, 0.5),
    ):
        assert stats.binomtest(int(happened.sum()), COUNT, probability).pvalue > LEAST


def test_a_range_of_nothing_changes_nothing():
    pipeline = Pipeline(8, (0.0,) * 3, (1.0,) * 3, jitter_prob=1.0, factors=(None,) * 4)
    assert (draw_parameters(pipeline, np.full((9, 2), 32), rows_of(0, 9)).order == -1).all()


def test_the_whole_pipeline_with_fixed_parameters():
    """In Pillow, with the parameters that the batch has drawn: rounding is at most amplified."""
    rng = np.random.default_rng(0)
    images = [
        np.array(Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((40, 40)))
        for _ in range(64)
    ]
    none, places = np.zeros(64, np.int64), np.arange(64)
    (ours,) = RandomViews((PIPELINE,), seed=3)(Pixels.of(images), none, places)
    drawn = draw_parameters(
        PIPELINE, np.full((64, 2), 40), uniforms(3, none, places, 0, NUM_UNIFORMS)
    )
    theirs = [in_pillow(image, drawn, number) for number, image in enumerate(images)]
    difference = (ours * 255 - torch.stack(theirs)).abs()
    settled = torch.from_numpy(~(drawn.equalize | drawn.solarize))  # which turn one step into many
    assert difference[settled].max() <= 6
    assert difference.mean() < 0.5


def in_pillow(image, drawn, number):
    """One view with the parameters of one image, (3, S, S) in [0, 255]."""
    b = drawn.boxes
    box = (b.top[number], b.left[number], b.height[number], b.width[number])
    view = TF.resized_crop(
        Image.fromarray(image), *map(int, box), [8, 8], transforms.InterpolationMode.BICUBIC
    )
    names = ("brightness", "contrast", "saturation", "hue")
    for kind in drawn.order[number]:
        if kind >= 0:
            factor = float(drawn.factors[number, kind])
            view = getattr(TF, f"adjust_{names[kind]}")(view, factor)
    view = TF.to_grayscale(view, 3) if drawn.gray[number] else view
    if drawn.sigma[number]:
        view = view.filter(ImageFilter.GaussianBlur(float(drawn.sigma[number])))
    view = TF.solarize(view, 128) if drawn.solarize[number] else view
    view = TF.equalize(view) if drawn.equalize[number] else view
    view = TF.hflip(view) if b.flip[number] else view
    return torch.from_numpy(np.array(view)).permute(2, 0, 1).float()
