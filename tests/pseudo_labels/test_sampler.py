"""The order of an epoch: floor(N/K) + 1 of each class, one order for all ranks."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank
from uic_plugin.pseudo_labels import ShuffledSampler
from uic_plugin.pseudo_labels.grouping import group_randomly


def bank_of(labels, num_classes):
    bank = PseudoLabelBank(len(labels), num_classes)
    bank.update(torch.arange(len(labels)), torch.as_tensor(labels))
    bank.commit()
    return bank


def test_every_class_contributes_equally_up_to_the_cut():
    labels = [0] * 90 + [1] * 6 + [2] * 4
    order = ClassBalancedSampler(bank_of(labels, 3), seed=0).order()
    drawn = np.bincount(np.array(labels)[order.numpy()], minlength=3)
    assert len(order) == 100
    assert drawn.max() <= 34  # floor(100 / 3) + 1
    assert drawn.sum() == 100
    assert drawn.min() >= 32  # 102 entries, 2 of them cut


def test_no_image_twice_where_the_class_has_enough():
    labels = [0] * 90 + [1] * 6 + [2] * 4
    order = ClassBalancedSampler(bank_of(labels, 3), seed=0).order().numpy()
    of_class_0 = order[np.array(labels)[order] == 0]
    assert len(set(of_class_0.tolist())) == len(of_class_0)
    of_class_2 = order[np.array(labels)[order] == 2]
    assert len(of_class_2) > 4  # drawn again and again


def test_a_class_of_just_the_quota_is_drawn_with_replacement():
    # N = 20, K = 4: quota 6; class 0 has exactly 6
    labels = [0] * 6 + [1] * 4 + [2] * 5 + [3] * 5
    repeats = 0
    for seed in range(20):
        order = ClassBalancedSampler(bank_of(labels, 4), seed=seed).order().tolist()
        drawn = [i for i in order if i < 6]
        repeats += len(drawn) - len(set(drawn))
    assert repeats > 0


@pytest.mark.parametrize("max_shuffled", [0, 50])
def test_all_members_are_drawn_equally_often(max_shuffled):
    labels = [0] * 40 + [1] * 10
    counts, bank = np.zeros(50), bank_of(labels, 2)
    for seed in range(400):
        sampler = ClassBalancedSampler(bank, seed=seed, max_shuffled=max_shuffled)
        counts += np.bincount(sampler.order(), minlength=50)
    per_draw = counts / 400
    assert np.abs(per_draw[:40] - 25 / 40).max() < 0.13
    assert np.abs(per_draw[40:] - 25 / 10).max() < 0.45


@pytest.mark.parametrize("max_shuffled", [0, 100])
def test_repeatable_and_different_in_every_epoch(max_shuffled):
    bank = bank_of(list(range(5)) * 20, 5)
    kind = {"max_shuffled": max_shuffled}
    sampler = ClassBalancedSampler(bank, seed=3, **kind)
    first = list(sampler)
    assert first == list(sampler) == list(ClassBalancedSampler(bank, seed=3, **kind))
    assert first != list(ClassBalancedSampler(bank, seed=4, **kind))
    skipping = ClassBalancedSampler(bank, seed=3, **kind, take_skip=lambda: 37)
    rest = list(skipping)
    assert rest == first[37:]
    assert [draw.position for draw in rest] == list(range(37, 100))
    sampler.set_epoch(17)  # a host says so; the bank decides
    assert first == list(sampler)
    bank.commit()
    assert first != list(sampler)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_one_order(world_size):
    bank = bank_of(list(range(10)) * 10, 10)
    order = ClassBalancedSampler(bank, seed=0).order().tolist()
    samplers = [
        ClassBalancedSampler(bank, seed=0, rank=r, world_size=world_size) for r in range(world_size)
    ]
    shares = [list(s) for s in samplers]
    assert {len(share) for share in shares} == {100 // world_size} == {len(s) for s in samplers}
    together = [image for step in zip(*shares, strict=True) for image in step]
    assert together == order[: len(together)]


def test_lightning_leaves_it_alone():
    assert isinstance(ClassBalancedSampler(bank_of([0, 1], 2), seed=0), DistributedSampler)


def test_an_empty_class_is_refused_with_the_way_out():
    bank = bank_of([0, 0, 3, 3, 3], 5)
    with pytest.raises(ValueError, match=r"3 of 5 classes are empty.*EmptyClassFixer"):
        list(ClassBalancedSampler(bank, seed=0))
    bank.fix_empty_classes(EmptyClassFixer(5))
    assert len(list(ClassBalancedSampler(bank, seed=0))) == 5


def test_bad_ranks():
    bank = bank_of([0, 1, 1], 2)
    with pytest.raises(ValueError, match="got rank 2 of world size 2"):
        ClassBalancedSampler(bank, seed=0, rank=2, world_size=2)
    with pytest.raises(ValueError, match="3 images cannot be shared by 4 ranks"):
        ClassBalancedSampler(bank, seed=0, rank=0, world_size=4)


@pytest.mark.parametrize("max_shuffled", [0, 200])
def test_shuffled_sampler_draws_every_image_once(max_shuffled):
    kind = {"seed": 0, "max_shuffled": max_shuffled}
    bank = bank_of([0, 0, 0, 1], 2)
    assert sorted(ShuffledSampler(bank, **kind)) == [0, 1, 2, 3]
    bank = bank_of([0] * 200, 2)  # empty classes do not matter to it
    first = list(ShuffledSampler(bank, **kind))
    bank.commit()
    assert first != list(ShuffledSampler(bank, **kind))


def test_a_computed_order_does_not_depend_on_blocks_and_threads(monkeypatch):
    from uic_plugin.pseudo_labels import computed_order, sampler

    labels = np.random.default_rng(0).integers(0, 7, 1000)
    bank = bank_of(labels.tolist(), 7)
    whole = ClassBalancedSampler(bank, seed=0, max_shuffled=0).order()
    assert whole.unique().numel() > 750
    monkeypatch.setattr(computed_order, "_BLOCK", 33)
    monkeypatch.setattr(sampler, "_YIELDED", 17)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    again = ClassBalancedSampler(bank, seed=0, max_shuffled=0)
    assert torch.equal(again.order(), whole)
    assert list(again) == whole.tolist()


def test_a_small_order_is_what_it_was():
    # shuffled in memory: existing runs resume to the same order
    bank = bank_of([0] * 9 + [1] * 2 + [2], 3)
    order = ClassBalancedSampler(bank, seed=0).order().tolist()
    assert order == [11, 10, 10, 3, 11, 8, 11, 11, 10, 11, 9, 5]


def check_invariants(case, seed, world_size, max_shuffled=1 << 27):
    num_classes, labels = case
    bank = bank_of(labels, num_classes)
    bank.fix_empty_classes(EmptyClassFixer(num_classes))
    labels = bank.labels.numpy()
    quota = len(labels) // num_classes + 1
    kind = {"seed": seed, "max_shuffled": max_shuffled}
    order = ClassBalancedSampler(bank, **kind).order().numpy()
    assert order.shape == (len(labels),)
    drawn = np.bincount(labels[order], minlength=num_classes)
    assert drawn.max() <= quota
    assert (quota - drawn).sum() == quota * num_classes - len(labels)
    sizes = np.bincount(labels, minlength=num_classes)
    images, counts = np.unique(order, return_counts=True)
    assert (counts[sizes[labels[images]] > quota] == 1).all()
    if world_size <= len(labels):
        shares = [
            list(ClassBalancedSampler(bank, **kind, rank=r, world_size=world_size))
            for r in range(world_size)
        ]
        assert sum(map(len, shares)) == len(labels) // world_size * world_size
        together = [image for step in zip(*shares, strict=True) for image in step]
        assert together == order[: len(together)].tolist()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k - 1), min_size=k, max_size=100))
    ),
    st.integers(0, 1000),
    st.integers(1, 4),
)
def test_invariants(case, seed, world_size):
    check_invariants(case, seed, world_size)
    check_invariants(case, seed, world_size, max_shuffled=0)


@pytest.mark.slow
@settings(max_examples=4000, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k - 1), min_size=k, max_size=100))
    ),
    st.integers(0, 1000),
    st.integers(1, 4),
)
def test_invariants_often(case, seed, world_size):
    check_invariants(case, seed, world_size)
    check_invariants(case, seed, world_size, max_shuffled=0)


@pytest.mark.parametrize("num_classes", [40_000])
def test_more_classes_than_sixteen_bits(num_classes):
    bank = PseudoLabelBank(2 * num_classes, num_classes, init="balanced")
    order = ClassBalancedSampler(bank, seed=0).order()
    drawn = torch.bincount(bank.targets(order.long()), minlength=num_classes)
    assert drawn.max() <= 3
    assert (drawn > 0).float().mean() > 0.9


@pytest.mark.parametrize("block", [1, 10, 64])
def test_working_in_blocks_gives_the_same_order(monkeypatch, block):
    from uic_plugin.pseudo_labels import sampler

    bank = bank_of([0] * 90 + [1] * 6 + [2] * 4, 3)
    whole = ClassBalancedSampler(bank, seed=0).order()
    monkeypatch.setattr(sampler, "_BLOCK", block)
    drawn = torch.bincount(bank.targets(ClassBalancedSampler(bank, seed=0).order().long()))
    assert drawn.tolist() == torch.bincount(bank.targets(whole.long())).tolist()


def test_core_needs_torch_and_numpy_alone():
    """With everything else hidden, the core imports, and solo-learn stays unimported."""
    program = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'solo', 'sklearn', 'scipy', 'lightning', 'pytorch_lightning',
                                  'hydra', 'omegaconf', 'rich', 'typer', 'matplotlib', 'PIL',
                                  'torchvision', 'timm'}:
            raise ImportError(name + ' is hidden')
sys.meta_path.insert(0, Hide())
import torch
from uic_plugin import PseudoLabelBank, EmptyClassFixer, ClassBalancedSampler
bank = PseudoLabelBank(100, 10)
bank.fix_empty_classes(EmptyClassFixer(10))
assert len(list(ClassBalancedSampler(bank, seed=0))) == 100
assert 'solo' not in sys.modules
print('fine')
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=7, max_size=60), st.integers(0, 5))
def test_empty_classes_are_left_out_where_asked(labels, seed):
    bank = PseudoLabelBank(len(labels), 7, labels=torch.tensor(labels))
    order = ClassBalancedSampler(bank, seed=seed, skip_empty=True).order()
    used = len(set(labels))
    quota = len(labels) // used + 1
    drawn = np.bincount(np.array(labels)[order.numpy()], minlength=7)
    assert len(order) == len(labels)
    assert drawn.max() <= quota
    assert (used * quota - len(labels)) >= (quota - drawn[sorted(set(labels))]).max()  # the cut
    if used < 7:
        with pytest.raises(ValueError, match=f"{7 - used} of 7 classes are empty"):
            ClassBalancedSampler(bank, seed=seed).order()


def test_an_image_keeps_its_place_when_others_change_class():
    before = np.array([0, 1] * 20)
    after = before.copy()
    after[:6] = 1
    orders = []
    for labels in (before, after):
        grouped = group_randomly(labels, 2, np.random.default_rng(0))
        orders.append([image for image in grouped.tolist() if image >= 6])
    assert orders[0] == orders[1]
