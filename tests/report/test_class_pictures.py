"""Which classes and images a picture shows, and that it shows them as they are."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import transforms
from torchvision.datasets import ImageFolder

from uic_plugin.data.center import center_view
from uic_plugin.report.class_pictures import ClassPictures, some_classes, some_members


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 99))
def test_classes_that_have_images(sizes, count, seed):
    sizes = np.array(sizes)
    chosen = some_classes(sizes, count, seed)
    assert len(chosen) == min(count, (sizes > 0).sum())
    assert (sizes[chosen] > 0).all()
    assert (np.diff(chosen) > 0).all()


def test_a_class_stays_in_the_picture_while_it_has_images():
    sizes = np.full(1000, 3)
    before = some_classes(sizes, 12, 0)
    sizes[before[4]] = 0
    after = some_classes(sizes, 12, 0)
    assert set(before) - set(after) == {before[4]}
    assert set(before) != set(some_classes(sizes, 12, 1))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(1, 5), st.integers(0, 99))
def test_members_of_the_chosen_classes(labels, count, seed):
    labels = np.array(labels)
    chosen = np.array([1, 4, 6])
    members = some_members(labels, chosen, count, seed)
    assert len(set(members)) == len(members)
    assert labels[members].tolist() == [
        c for c in chosen for _ in range(min(count, int((labels == c).sum())))
    ]


def test_every_member_is_drawn_equally_often():
    labels = np.array([0, 1] * 10)
    drawn = [some_members(labels, np.array([1]), 3, seed) for seed in range(400)]
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    assert (counts[0::2] == 0).all()
    assert counts[1::2].sum() == 1200
    assert counts[1::2].min() > 80  # 120 expected, 9 the standard deviation
    assert counts[1::2].max() < 160


class Numbered(ImageFolder):
    """As the host's: the number of the image first."""

    def __getitem__(self, index):
        return index, *super().__getitem__(index)


def test_tiles_are_the_images_and_unreadable_ones_are_left_out(digits, tmp_path):
    root = tmp_path / "images"
    for folder in ("0", "1"):
        (root / folder).mkdir(parents=True)
        for path in sorted((digits / "train" / folder).iterdir())[:5]:
            (root / folder / path.name).write_bytes(path.read_bytes())
    broken = sorted((root / "1").iterdir())[2]
    broken.write_bytes(b"no image")
    size = 48  # of a tile: no pixel is made up
    augmentation = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)),
        ]
    )
    dataset = Numbered(root, center_view(augmentation))
    pictures = ClassPictures(dataset, tmp_path / "out", seed=0)
    readable, tiles = pictures._tiles(np.arange(10))
    assert readable.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    plain = ImageFolder(root, transforms.Compose([transforms.Resize(size), transforms.ToTensor()]))
    for number, tile in zip(readable, tiles, strict=True):
        expected = (plain[number][0] * 255).round().byte().permute(1, 2, 0)
        assert (torch.from_numpy(tile).int() - expected.int()).abs().max() <= 1
    labels = np.array([0] * 7 + [1] + [2] * 2)
    assert pictures.draw(labels, np.array([7, 1, 2]), 3) == tmp_path / "out" / "epoch0003.png"
    assert pictures.draw(np.full(10, 1), np.array([0, 10]), 4) is not None
    only_broken = np.where(np.arange(10) == 7, 1, -1)
    assert pictures.draw(only_broken, np.array([0, 1]), 5) is None
