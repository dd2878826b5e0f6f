"""`label_view=center` with `label_momentum`: averaged weights label centered views."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from uic_plugin.methods import UICOptions, VariedUIC


def made(**given):
    """A method of 12 images, which are their own features, and a pass over them in order."""
    options = UICOptions.from_mapping(
        {"num_pseudo_classes": 3, "label_view": "center", "fix_empty_classes": False}
        | {"balanced_sampling": False, **given}
    )
    method = VariedUIC()
    method._network = nn.BatchNorm1d(4)
    method.build_head(4, options, seed=0)
    method.attach(12, "images", None)
    method.images = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    method.label_loader = [(torch.arange(12), method.images)]
    method.trainer = SimpleNamespace(max_epochs=10, accumulate_grad_batches=1)
    method.global_rank = 0
    return method


def disturb(method):
    """Change weights and statistics as steps would."""
    with torch.no_grad():
        for value in [*method._network.parameters(), *method.head.parameters()]:
            value.add_(
                torch.randn(value.shape, generator=torch.Generator().manual_seed(value.ndim))
            )
        method._network.running_mean.add_(2.0)


def test_weights_and_statistics_are_averaged_and_label_nothing_in_a_step():
    method = made(label_momentum=0.75)
    disturb(method)
    before = {name: value.clone() for name, value in method.label_network.state_dict().items()}
    assert method.label_logits(method.images) is None
    network, head = method.labeller
    torch.testing.assert_close(
        head.classifier.weight,
        0.75 * before["head.classifier.weight"] + 0.25 * method.head.classifier.weight,
    )
    torch.testing.assert_close(network.running_mean, torch.full((4,), 0.5))


@pytest.mark.parametrize("label_view", ["center", "train"])
@pytest.mark.parametrize(("accumulate", "moves"), [(1, range(9)), (4, [0, 4, 8]), (3, [0, 3, 6])])
def test_an_average_moves_once_for_each_step_of_the_optimizer(label_view, accumulate, moves):
    """Not with each of the batches whose gradients it adds up; a run may resume at any of them."""
    method = made(label_momentum=0.5, label_view=label_view)
    method.trainer.accumulate_grad_batches = accumulate
    average = method.label_network["head"].classifier.weight
    found = []
    for method.steps_done in range(9):
        with torch.no_grad():
            method.head.classifier.weight.add_(1)
        before = average.clone()
        method.label_logits(method.images)
        if not torch.equal(average, before):
            found.append(method.steps_done)
            own = method.head.classifier.weight
            torch.testing.assert_close(average, 0.5 * before + 0.5 * own)
    assert found == list(moves)


def test_the_pass_asks_the_average():
    method = made(label_momentum=0.5)
    disturb(method)
    method.label_logits(method.images)
    with torch.no_grad():
        method.head.classifier.weight.neg_()
    network, head = method.labeller
    method.label_epoch = 1
    method.relabel()
    method.commit()
    answers = head(network.eval()(method.images))[1].argmax(1)
    assert method.bank.labels.tolist() == answers.tolist()
    assert network.training is False
    own = method.head(method._network.eval()(method.images))[1].argmax(1)
    assert answers.tolist() != own.tolist()


@pytest.mark.parametrize(("every", "passes"), [(1, 10), (3, 4), (4, 3), (20, 1)])
def test_every_so_many_epochs_and_after_the_last(every, passes):
    method = made(label_every=every)
    staged = []
    for epoch in range(1, 11):
        method.label_epoch = epoch
        method.relabel()
        staged.append(method.bank.num_staged)
        method.commit()
    assert staged.count(12) == passes
    assert staged.count(0) == 10 - passes
    assert staged[-1] == 12
