"""Two views that label each other: the arithmetic of a step, without a host."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from uic_plugin.hosts.foreign import set_views
from uic_plugin.methods import UICOptions, VariedUIC
from uic_plugin.pseudo_labels.balanced_labels import sinkhorn_shares
from uic_plugin.pseudo_labels.image_classes import image_class_loss

INDEX, ANNOTATIONS = torch.arange(6), torch.full((6,), -1)


def made(network=None, **given):
    """A method of 20 images with heads of 4 and 3 classes on 5 features."""
    options = UICOptions.from_mapping(
        {"num_pseudo_classes": 4, "more_heads": [3], "label_source": "swap", **given}
    )
    method = VariedUIC()
    method._network, method.num_classes = network or nn.Identity(), 2
    method.build_head(5, options, seed=0)
    method.attach(20, "images", None)
    method.trainer = SimpleNamespace(accumulate_grad_batches=1)
    return method


def views(count=2, rows=6):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 5, generator=generator) for _ in range(count)]


def step(method, given):
    """The logits of the large views, and the loss of a step."""
    label_view, train_view = method.choose_views(given)
    answers = method.label_logits(label_view)
    embeddings, logits = method.head(train_view)
    if answers is None:
        answers = logits.detach()
    targets = method.targets(INDEX, answers, ANNOTATIONS)
    return logits, targets, method.step_loss(logits, targets, embeddings, given)


def test_each_view_learns_the_balanced_answer_to_the_other():
    method, (first, second) = made(temperature=0.5), views()
    logits, targets, loss = step(method, [first, second])
    wanted = []
    for part, own in zip(method.head.per_head(logits), targets, strict=True):
        (shares,) = sinkhorn_shares([part.detach()])
        assert torch.equal(own[:6], shares[6:])
        assert torch.equal(own[6:], shares[:6])
        log_p = (part / 0.5).log_softmax(1)
        wanted.append(-(own * log_p).sum(1).mean())
    torch.testing.assert_close(loss, torch.stack(wanted).mean())


def test_both_views_have_a_gradient_and_labels_none():
    method, given = made(), views()
    for view in given:
        view.requires_grad_()
    _, targets, loss = step(method, given)
    assert not any(own.requires_grad for own in targets)
    loss.backward()
    assert all(bool((view.grad.abs().sum(1) > 0).all()) for view in given)


COPIES = {}


class _Cached(nn.Linear):
    """Keeps its weight's copy of low precision as autocast does, whoever makes it (#112583)."""

    def forward(self, given):
        copy = COPIES.setdefault(id(self.weight), self.weight.bfloat16())
        return F.linear(given.bfloat16(), copy).float()


@pytest.mark.parametrize("given", [{"label_source": "bank", "views": 2}, {"label_source": "step"}])
@pytest.mark.parametrize("layer", [nn.Linear, _Cached])
def test_weights_learn_in_mixed_precision_behind_a_pass_that_labels(monkeypatch, given, layer):
    """With the cache of the installed torch, and with one that keeps copies without a graph."""
    whole = torch.clear_autocast_cache

    def clear():
        whole()
        COPIES.clear()

    clear()
    monkeypatch.setattr(torch, "clear_autocast_cache", clear)
    method = made(nn.Sequential(layer(5, 5, bias=False), nn.ReLU()), **given)
    label_view, train_view = method.choose_views(views())
    with torch.autocast("cpu", torch.bfloat16):
        answers = method.label_logits(label_view)
        logits = method.head(method._network(train_view))[1]
        method._loss(logits, method.targets(INDEX, answers, ANNOTATIONS)).backward()
    assert not answers.requires_grad
    for name, weight in method.named_parameters():
        assert weight.grad is not None, name
    clear()


def test_without_balance_labels_are_the_sharpened_answers():
    method, given = made(swap_balance="none", label_epsilon=0.25), views()
    logits, targets, _ = step(method, given)
    part = method.head.per_head(logits)[0].detach()
    torch.testing.assert_close(targets[0].roll(6, 0), (part / 0.25).softmax(1))


def test_the_bank_keeps_the_answer_to_both_views():
    method, given = made(), views()
    logits, _, _ = step(method, given)
    method.label_images(INDEX, logits.detach())
    method.commit()
    for bank, part in zip(method.banks, method.head.per_head(logits), strict=True):
        assert len(bank) == 20
        assert bank.labels[:6].tolist() == (part[:6] + part[6:]).argmax(1).tolist()


def test_heads_of_different_sizes_have_banks_and_fixers_of_their_own():
    method = made()
    assert [bank.num_classes for bank in method.banks] == [4, 3]
    assert [int(bank.class_sizes().min()) > 0 for bank in method.banks] == [True, True]
    assert method.head(torch.zeros(2, 5))[1].shape == (2, 7)


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        ({"more_heads": [3, 30, 9]}, "set method_kwargs.more_heads=[3,9]"),
        (
            {"num_pseudo_classes": 21, "more_heads": [30]},
            "set method_kwargs.num_pseudo_classes to at most 20 and method_kwargs.more_heads=[]",
        ),
        ({"num_pseudo_classes": 30}, "set method_kwargs.num_pseudo_classes to at most 20"),
    ],
)
def test_fewer_images_than_classes_name_every_option_to_change(given, way_out):
    with pytest.raises(ValueError, match="20 images are fewer than 30 pseudo classes: ") as error:
        made(**given)
    assert str(error.value).endswith(way_out)


def test_small_crops_learn_the_labels_of_the_large_ones():
    method, given = made(small_crops=2), views(4)
    logits, targets, loss = step(method, given)
    large = method._loss(logits, targets)
    wanted = [large]
    for crop in given[2:]:
        parts = method.head.per_head(method.head(crop)[1])
        halves = [(own[:6] + own[6:]) / 2 for own in targets]
        losses = [F.cross_entropy(p, own) for p, own in zip(parts, halves, strict=True)]
        wanted.append(torch.stack(losses).mean())
    torch.testing.assert_close(loss, torch.stack(wanted).mean())


def test_every_image_as_a_class_has_its_share_of_the_loss():
    off = {"balanced_sampling": False}
    mixed = made(instance_share=0.25, instance_temperature=0.5, small_crops=2, **off)
    plain = made(small_crops=2, **off)
    assert set(mixed.state_dict()) == set(plain.state_dict())  # it has no weights
    given = views(4)
    embeddings = mixed.head(torch.cat(given[:2]))[0]
    finest = image_class_loss(embeddings, temperature=0.5)
    wanted = 0.75 * step(plain, given)[2] + 0.25 * finest
    torch.testing.assert_close(step(mixed, given)[2], wanted)


def test_prices_move_with_the_steps_and_are_saved():
    method = made(swap_balance="prices", price_rate=0.5)
    assert method.state_dict()["prices"].tolist() == [0.0] * 7
    _, targets, _ = step(method, views())
    moved = method.prices.clone()
    sums = torch.cat([own.mean(0) * own.shape[1] for own in targets])
    torch.testing.assert_close(moved, 0.5 * (sums - 1))
    again = made(swap_balance="prices")
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.prices, moved)
    assert "prices" not in made().state_dict()


def test_a_moving_average_may_label_both_views():
    method, given = made(label_momentum=0.5), views()
    with torch.no_grad():
        for weight in method.head.parameters():
            weight.add_(1)
    logits, targets, _ = step(method, given)
    average = method.label_network["head"]
    kept = average(torch.cat(given))[1]
    assert not torch.equal(kept, logits)
    torch.testing.assert_close(targets[0][:6], sinkhorn_shares(average.per_head(kept))[0][6:])


def test_pipelines_of_small_crops():
    from omegaconf import OmegaConf

    pipelines = OmegaConf.create(
        [{"crop_size": 64, "num_crops": 2}, {"crop_size": 32, "num_crops": 1}]
    )
    set_views(pipelines, 2, 4)
    assert [pipeline.num_crops for pipeline in pipelines] == [2, 4]
    set_views(pipelines, 2)
    assert [pipeline.num_crops for pipeline in pipelines] == [2, 0]
    with pytest.raises(ValueError, match=r"small_crops=4.*crop_size below 64"):
        set_views(pipelines[:1], 2, 4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_cosine_classifier_begins_with_the_clusters(momentum):
    """Three groups of images far apart: the classifier gives each its own class at once."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(30) % 3
    images = 10 * torch.eye(5)[groups] + 5 + torch.randn(30, 5, generator=generator)
    options = UICOptions(
        num_pseudo_classes=3,
        more_heads=[4],
        label_source="swap",
        label_init="clusters",
        classifier="cosine",
        label_momentum=momentum,
    )
    method = VariedUIC()
    method._network = nn.BatchNorm1d(5)
    method.build_head(5, options, seed=0)
    method.attach(30, "images", None)
    method.label_loader, method.global_rank = [(torch.arange(30), images)], 0
    length = method.head.classifier.weight.norm(dim=1)
    method.start_labels()
    assert torch.equal(method._network.running_mean, torch.zeros(5))
    torch.testing.assert_close(method.head.classifier.weight.norm(dim=1), length)
    logits = method.labeller[1](method._network(images))[1]
    for bank, part in zip(method.banks, method.head.per_head(logits), strict=True):
        assert len(bank.labels.unique()) == bank.num_classes
        of_group = [set(bank.labels[groups == group].tolist()) for group in range(3)]
        assert not set.intersection(*of_group)
        # the fourth class of the second head halves a group at random
        assert (part.argmax(1) == bank.labels).float().mean() > 0.6
    assert (method.head.per_head(logits)[0].argmax(1) == method.bank.labels).all()
