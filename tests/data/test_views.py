"""Seeded views and unreadable images, on real image folders."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import transforms
from torchvision.datasets import ImageFolder

from uic_plugin import ClassBalancedSampler, PseudoLabelBank
from uic_plugin.data.draws import EvenBatches
from uic_plugin.data.images import (
    BadImageError,
    annotations_of,
    fingerprint_of,
    path_of,
    sort_files,
)
from uic_plugin.data.views import SeededViews, SharedCount
from uic_plugin.pseudo_labels import Draw


@pytest.fixture
def folder(digits, tmp_path):
    """Six digits, two classes; the fourth image is damaged on request."""
    for digit in (0, 1):
        (tmp_path / "six" / str(digit)).mkdir(parents=True)
        for path in sorted((digits / "train" / str(digit)).iterdir())[:3]:
            (tmp_path / "six" / str(digit) / path.name).write_bytes(path.read_bytes())
    return tmp_path / "six"


AUGMENT = transforms.Compose([transforms.RandomResizedCrop(8, (0.3, 1)), transforms.ToTensor()])


def test_a_view_depends_on_seed_epoch_and_place_alone(folder):
    views = SeededViews(ImageFolder(folder, AUGMENT), seed=1)
    first = views[Draw.at(2, 0, 7)][0]
    torch.rand(5)
    assert torch.equal(first, views[Draw.at(2, 0, 7)][0])
    for other in (Draw.at(2, 1, 7), Draw.at(2, 0, 8)):
        assert not torch.equal(first, views[other][0])
    assert not torch.equal(first, SeededViews(views.dataset, seed=2)[Draw.at(2, 0, 7)][0])


def test_the_training_process_draws_as_if_nothing_were(folder):
    views = SeededViews(ImageFolder(folder, AUGMENT), seed=1)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    views[Draw.at(2, 0, 7)]
    assert torch.equal(expected, torch.rand(3))


def test_draws_survive_the_way_to_a_worker():
    draw = pickle.loads(pickle.dumps(Draw.at(5, 2, 9)))
    assert (draw, draw.epoch, draw.position) == (5, 2, 9)


def test_a_sampler_tells_the_position_in_the_common_order():
    bank = PseudoLabelBank(10, 2, init="balanced")
    common = ClassBalancedSampler(bank, seed=0).order().tolist()
    for rank in (0, 1):
        sampler = ClassBalancedSampler(bank, seed=0, rank=rank, world_size=2)
        draws = list(sampler)
        assert [common[draw.position] for draw in draws] == draws
        assert {draw.epoch for draw in draws} == {0}
        assert len(sampler) == 5
    share = list(ClassBalancedSampler(bank, seed=0))
    skips = iter([4, 0])
    resumed = ClassBalancedSampler(bank, seed=0, take_skip=lambda: next(skips))
    assert [(d, d.position) for d in resumed] == [(d, d.position) for d in share[4:]]
    assert list(resumed) == share  # the next epoch is whole


# a header that is cut off, an error of Pillow's that transforms raise, too
CUT_HEADER = b"P6\n8 "


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header"])
def test_a_bad_image_stops_by_name(folder, damage):
    victim = sorted(folder.glob("1/*.png"))[0]
    whole = victim.read_bytes()
    victim.write_bytes(
        {"cut": whole[:60], "empty": b"", "text": b"no image", "header": CUT_HEADER}[damage]
    )
    with pytest.raises(BadImageError, match=str(victim)) as error:
        SeededViews(ImageFolder(folder, AUGMENT), seed=0)[Draw.at(3, 0, 0)]
    assert "on_bad_image=skip" in str(error.value)


def test_an_error_of_a_transform_is_none_of_the_image(folder):
    def refuse(image):
        raise ValueError("not today")

    views = SeededViews(ImageFolder(folder, refuse), seed=0, on_bad_image="skip")
    with pytest.raises(ValueError, match="not today"):
        views[0]


@pytest.mark.parametrize("content", [b"", CUT_HEADER])
def test_a_bad_image_can_be_skipped(folder, content):
    victim = sorted(folder.glob("1/*.png"))[0]
    victim.write_bytes(content)
    views = SeededViews(ImageFolder(folder, AUGMENT), seed=0, on_bad_image="skip")
    with pytest.warns(UserWarning, match=str(victim)):
        _, annotation = views[3]
    assert annotation == 1


def test_a_module_that_has_the_count_can_be_copied():
    count = SharedCount()
    assert (count.add(), count.add()) == (1, 2)
    copied = copy.deepcopy(count)
    count.add()
    assert (count.value, copied.value) == (3, 2)


def test_nothing_but_bad_images(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    views = SeededViews(ImageFolder(folder, AUGMENT), seed=0, on_bad_image="skip")
    with pytest.raises(BadImageError, match="none of the 6"):
        views[0]


def test_a_workers_traceback_is_cut_to_its_last_line():
    wrapped = "Caught it in worker 0.\nTraceback\n  x\nuic.BadImageError: cannot read a.png"
    assert str(BadImageError(wrapped)) == "cannot read a.png"


def test_fingerprint_follows_the_list_of_files(folder):
    dataset = ImageFolder(folder)
    first = fingerprint_of(dataset)
    moved = folder.rename(folder.with_name("moved"))
    assert fingerprint_of(ImageFolder(moved)) == first
    victim = sorted(moved.glob("1/*.png"))[0]
    victim.rename(victim.with_name("renamed.png"))
    assert fingerprint_of(ImageFolder(moved)) != first


def test_annotations_follow_a_fraction(folder):
    dataset = ImageFolder(folder)
    dataset.samples = dataset.samples[2:5]  # as the host's data.fraction does
    assert annotations_of(dataset).tolist() == [0, 1, 1]
    assert path_of(dataset, 0).endswith(dataset.samples[0][0])


class Flat:
    def __init__(self, names):
        self.root, self.images = "/somewhere", names

    def __len__(self):
        return len(self.images)


def test_flat_folders_are_sorted_and_freed_of_other_files():
    one, two = Flat(["b.png", "notes.txt", "a.JPG"]), Flat(["a.JPG", "b.png"])
    sort_files(one)
    assert one.images == ["a.JPG", "b.png"]
    assert fingerprint_of(one) == fingerprint_of(two)
    assert annotations_of(one) is None
    assert path_of(one, 1) == "/somewhere/b.png"


@given(images=st.integers(1, 300), largest=st.integers(1, 40))
def test_even_batches(images, largest):
    batches = EvenBatches(range(images), largest)
    sizes = [len(batch) for batch in batches]
    assert [place for batch in batches for place in batch] == list(range(images))
    assert len(sizes) == len(batches) == -(-images // largest)
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1
