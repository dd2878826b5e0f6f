"""Every image of a step as a class of its own."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from uic_plugin.pseudo_labels.image_classes import image_class_loss
from uic_plugin.ranks import run_processes


def embeddings(images, width=5, seed=0):
    return torch.randn(2 * images, width, generator=torch.Generator().manual_seed(seed))


def test_known_answers():
    apart = torch.eye(3).repeat(2, 1) * torch.tensor([[1.0], [2], [3], [4], [5], [6]])
    found = image_class_loss(apart, temperature=0.5)
    assert float(found) == pytest.approx(math.log(math.e**2 + 4) - 2)  # cosines 1 and four 0
    same = torch.ones(8, 3)
    assert float(image_class_loss(same, temperature=0.1)) == pytest.approx(math.log(7))
    assert float(image_class_loss(torch.ones(2, 3), temperature=0.1)) == 0  # no other image


def test_it_is_the_cross_entropy_of_finding_the_other_view():
    rows = embeddings(4).double()
    unit = [row / row.norm() for row in rows]
    losses = []
    for row in range(8):
        others = [unit[row] @ unit[k] / 0.2 for k in range(8) if k != row]
        positive = unit[row] @ unit[(row + 4) % 8] / 0.2
        losses.append(torch.stack(others).logsumexp(0) - positive)
    found = image_class_loss(rows, temperature=0.2)
    assert float(found) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@settings(deadline=None)
@given(images=st.integers(1, 9), seed=st.integers(0, 99), temperature=st.floats(0.05, 2))
def test_order_length_and_side_do_not_matter(images, seed, temperature):
    rows = embeddings(images, seed=seed)
    loss = image_class_loss(rows, temperature=temperature)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    first, second = rows.chunk(2)
    for changed in (
        torch.cat([first[order], second[order]]),
        torch.cat([second, first]),
        rows * torch.linspace(0.5, 2, 2 * images)[:, None],
    ):
        found = image_class_loss(changed, temperature=temperature)
        torch.testing.assert_close(found, loss, rtol=1e-4, atol=1e-4)
    assert 0 <= float(loss) <= 2 / temperature + math.log(2 * images)


def test_all_rows_have_a_gradient_and_none_is_nan():
    rows = embeddings(3).requires_grad_()
    image_class_loss(rows, temperature=0.2).backward()
    assert bool((rows.grad.abs().sum(1) > 0).all())


RANK = """
import json, sys, torch
import torch.nn.functional as F
from uic_plugin.pseudo_labels.image_classes import image_class_loss
from uic_plugin.ranks import process_group, rank_and_world
with process_group(use_gpu=False):
    rank, world = rank_and_world()
    rows = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    own = rows[rank * 6 : rank * 6 + 6].requires_grad_()  # of 3 images
    loss = image_class_loss(own, temperature=0.2)
    loss.backward()
    with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
        json.dump([float(loss), (own.grad / world).tolist()], file)
"""


@pytest.mark.slow
def test_ranks_together_learn_what_one_process_would(tmp_path):
    """The mean over ranks of losses and gradients, as DDP takes it, is that of all images."""
    assert run_processes(["-c", RANK, str(tmp_path)], 2) == 0
    parts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    rows = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    unit = F.normalize(rows, dim=1)
    cosines = unit @ unit.T
    others = cosines.masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    partner = torch.tensor([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])
    loss = F.cross_entropy(others / 0.2, partner)
    loss.backward()
    assert sum(part[0] for part in parts) / 2 == pytest.approx(float(loss))
    gradient = torch.tensor(parts[0][1] + parts[1][1])
    torch.testing.assert_close(gradient, rows.grad)
