"""Classes from features: planted clusters, hand-placed cases, resuming, what cannot be divided."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from planted_features import planted

from uic_plugin.cli.discover import _name_of, _place_for
from uic_plugin.discovery import candidates, choice, search
from uic_plugin.discovery import neighbours as knn
from uic_plugin.discovery.baselines import BASELINES
from uic_plugin.discovery.heads import HeadBank
from uic_plugin.discovery.model import ClassModel, aligned_heads, head_labels
from uic_plugin.discovery.reduction import fit_reduction, reduce_features
from uic_plugin.discovery.results import describe_classes, write_results
from uic_plugin.discovery.search import discover
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.discovery.training import _gradient, balanced_labels, pair_loss
from uic_plugin.evaluation.clustering import hungarian_accuracy
from uic_plugin.report.tables import read_csv

QUICK = DiscoverySettings(
    balance=1.0, heads=4, dims=16, neighbours=5, epochs=5, min_steps=60, batch_size=64
)


@pytest.mark.parametrize("kind", [{}, {"head": "mlp"}, {"labels": "hard"}, {"balance": 0.0}])
def test_planted_classes_are_found(kind):
    features, truth = planted([80, 80, 80, 80])
    found = discover(features, 4, dataclasses.replace(QUICK, **kind))
    assert hungarian_accuracy(truth, found.answers.labels) > 0.97
    assert found.agreement > 0.9


@pytest.mark.slow
def test_number_of_planted_classes_is_found():
    features, _ = planted([70, 60, 80, 70, 60, 70], spread=0.12)
    found = discover(features, None, QUICK)
    assert found.model.num_classes == 6
    assert found.count is not None
    assert "6 classes" in found.count.explanation()
    best = min(point.loss for point in found.count.curve)
    enough = [p.classes for p in found.count.curve if p.loss <= 0.98 * best]
    assert found.count.chosen == min(enough)


def test_classes_of_very_different_size():
    features, truth = planted([120, 80, 60, 40], spread=0.1)
    found = discover(features, 4, dataclasses.replace(QUICK, balance=0.0))
    assert hungarian_accuracy(truth, found.answers.labels) > 0.97
    assert np.bincount(found.answers.labels).tolist() == [120, 80, 60, 40]  # largest first


def test_heads_begin_as_k_means():
    features, _ = planted([50, 50, 50])
    reduced = reduce_features(features, fit_reduction(features, 8))
    centroids = knn.spherical_kmeans(reduced, 3, seed=0)
    for hidden in (0, 16):
        bank = HeadBank.from_centroids([centroids], temperature=0.1, hidden=hidden)
        nearest = (reduced.float() @ centroids.T).argmax(1)
        assert torch.equal(head_labels(bank, reduced)[:, 0].long(), nearest)


def test_heads_of_different_numbers_of_classes():
    bank = HeadBank(4, [2, 5], temperature=1.0)
    torch.nn.init.normal_(bank.weight)
    p = bank(torch.randn(7, 4)).softmax(2)
    assert p[:, 0, 2:].max() == 0
    torch.testing.assert_close(p.sum(2), torch.ones(7, 2))
    assert bank.some([0]).weight.shape == (4, 1, 2)


@given(
    labels=st.sampled_from(["soft", "hard"]),
    balance=st.floats(0, 1),
    beta=st.floats(0.5, 1),
    seed=st.integers(0, 99),
)
@examples(deadline=None, max_examples=25)
def test_gradient_is_that_of_the_loss(labels, balance, beta, seed):
    settings = dataclasses.replace(QUICK, labels=labels, balance=balance, beta=beta)
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    logits = random(8, 3, 5).requires_grad_()
    answers, prior = random(8, 3, 5).log_softmax(2), random(3, 5).softmax(1)
    pair_loss(logits.log_softmax(2), answers, prior, settings).mean(0).sum().backward()
    written = _gradient(logits.detach().log_softmax(2), answers, prior, settings)
    torch.testing.assert_close(written, logits.grad)


def test_balance_divides_by_the_share():
    """Of two classes that are equally likely, the rarer one gets the label."""
    even = torch.full((1, 1, 2), 0.5).log()
    prior = torch.tensor([[0.9, 0.1]])
    hard = dataclasses.replace(QUICK, labels="hard")
    assert balanced_labels(even, even, prior, hard).tolist() == [[[0, 1]]]
    soft = balanced_labels(even, even, prior, QUICK)
    torch.testing.assert_close(soft, torch.tensor([[[0.1, 0.9]]]))
    free = balanced_labels(even, even, prior, dataclasses.replace(QUICK, balance=0.0))
    torch.testing.assert_close(free, torch.tensor([[[0.5, 0.5]]]))


def test_neighbours_by_hand():
    angles = torch.tensor([0.0, 0.1, 0.3, 3.0, 3.1])
    reduced = torch.stack([angles.cos(), angles.sin()], 1).half()
    table = knn.nearest_neighbours(reduced, 2)
    assert table.tolist() == [[1, 2], [0, 2], [1, 0], [4, 2], [3, 2]]


def test_an_image_is_not_its_own_neighbour():
    reduced = torch.zeros(40, 4, dtype=torch.float16)
    reduced[:, 0] = 1  # all are equal
    table = knn.nearest_neighbours(reduced, 5)
    assert (table != torch.arange(40)[:, None]).all()


def test_index_finds_most_neighbours(monkeypatch):
    features, _ = planted([400, 400, 400], spread=0.4)
    reduced = reduce_features(features, fit_reduction(features, 16))
    exact = knn.nearest_neighbours(reduced, 10)
    monkeypatch.setattr(knn, "EXACT_UP_TO", 100)
    near = knn.nearest_neighbours(reduced, 10)
    assert (near != torch.arange(len(near))[:, None]).all()
    shared = (exact[:, :, None] == near[:, None, :]).any(2).float().mean()
    assert shared > 0.8


def test_aligned_heads_use_the_same_numbers():
    bank = HeadBank(3, [3, 3], temperature=1.0)
    with torch.no_grad():
        bank.weight[:, 0] = torch.eye(3)
        bank.weight[:, 1] = torch.eye(3)[:, [2, 0, 1]]  # the same classes, other numbers
    points = torch.eye(3)[[0, 1, 1, 2, 2, 2]]
    labels = head_labels(bank, points)
    aligned = aligned_heads(bank, labels, [1, 0])
    expected = torch.tensor([2, 1, 1, 0, 0, 0])  # the largest class is number 0
    for head in range(2):
        assert torch.equal(head_labels(aligned, points)[:, head].long(), expected)


def test_model_survives_its_file(tmp_path):
    features, _ = planted([60, 60, 60])
    found = discover(features, 3, dataclasses.replace(QUICK, head="mlp"))
    found.model.save(tmp_path / "model.pt")
    again = ClassModel.load(tmp_path / "model.pt")(features)
    for field in dataclasses.fields(again):
        np.testing.assert_array_equal(
            getattr(again, field.name), getattr(found.answers, field.name)
        )


def test_answers_are_in_range():
    features, _ = planted([60, 60, 60], spread=0.5)
    answers = discover(features, 3, QUICK).answers
    assert (answers.labels != answers.second).all()
    for values, highest in (
        (answers.confidence, 1),
        (answers.agreement, 1),
        (answers.entropy, np.log(3) + 1e-5),
        (answers.distance, 2),
    ):
        assert values.min() >= -1e-5
        assert values.max() <= highest + 1e-5
    rows = describe_classes([str(i) for i in range(180)], answers, 3)
    assert sum(row["size"] for row in rows) == 180
    first = [int(name) for name in rows[0]["typical"]]
    assert (np.diff(answers.distance[first]) >= 0).all()


def test_names_with_spaces_are_taken_apart_from_the_table_of_classes(tmp_path):
    features, _ = planted([20, 20])
    names = [f'my images/{i} "a", b.png' for i in range(39)] + ["na\udce9.png"]
    found = discover(features, 2, QUICK)
    write_results(tmp_path, names, found, QUICK, csv=True)
    listed = json.loads((tmp_path / "classes.json").read_text())
    rows = read_csv(tmp_path / "classes.csv")
    for kind in ("typical", "borderline"):
        assert [json.loads(row[kind]) for row in rows] == [row[kind] for row in listed]
        assert {name for row in listed for name in row[kind]} <= set(names)
    assert [int(row["size"]) for row in rows] == [20, 20]


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    "where", ["prepared", "heads", pytest.param("curve", marks=pytest.mark.slow)]
)
def test_stopped_search_resumes_bit_for_bit(where, tmp_path, monkeypatch):
    features, _ = planted([60, 60, 60], spread=0.5)
    classes = None if where == "curve" else 3
    monkeypatch.setattr(candidates, "_SAVE_EVERY", 25)  # in the middle of the 60 steps
    whole = discover(features, classes, QUICK)
    folder = search.WorkFolder
    original = getattr(folder, {"heads": "write_state"}.get(where, f"write_{where}"))

    def killing(self, *given):
        original(self, *given)
        raise _Killed

    name = original.__name__
    monkeypatch.setattr(folder, name, killing)
    with pytest.raises(_Killed):
        discover(features, classes, QUICK, work=tmp_path / "work")
    monkeypatch.setattr(folder, name, original)
    again = discover(features, classes, QUICK, work=tmp_path / "work")
    np.testing.assert_array_equal(again.answers.labels, whole.answers.labels)
    np.testing.assert_array_equal(again.answers.confidence, whole.answers.confidence)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("seed", [12, 14, 16])  # where noise makes a stop within a round matter
def test_a_choice_of_k_that_was_stopped_anywhere_is_the_same(seed, monkeypatch):
    """The gaps beside the best K are halved in rounds; a stop may fall within one."""
    noise = np.random.default_rng(seed).normal(0, 0.05, 2000)
    monkeypatch.setattr(
        choice,
        "_try",
        lambda reduced, neighbours, settings, k: choice.CurvePoint(
            k, abs(np.log(k / 40)) + noise[k], 0.5
        ),
    )
    reduced = torch.zeros(4000, 2)

    def chosen(known=(), stop=None):
        saved = []

        def save(curve):
            saved[:] = curve
            if stop is not None and len(curve) == stop:
                raise _Killed

        try:
            return choice.choose_count(reduced, reduced, QUICK, known=known, save=save), saved
        except _Killed:
            return None, saved

    whole, points = chosen()
    for stop in range(1, len(points)):
        none, known = chosen(stop=stop)
        assert none is None
        assert chosen(known)[0] == whole


@pytest.mark.parametrize(
    ("information", "chosen"),
    [
        (lambda k: np.log(k) if k <= 12 else np.log(12) - 0.01 * (k - 12), 12),  # a clear peak
        (lambda k: min(np.log(k), 2.0 + 0.0001 * k), 8),  # flat: the fewest, not the most
        (lambda k: -0.1 * k, 2),  # nothing to tell at all
    ],
)
def test_the_fewest_classes_that_tell_nearly_most(information, chosen, monkeypatch):
    def point(reduced, neighbours, settings, k):
        return choice.CurvePoint(k, -information(k), 0.5)

    monkeypatch.setattr(choice, "_try", point)
    reduced = torch.zeros(400, 2)
    count = choice.choose_count(reduced, reduced, QUICK)
    assert count.chosen == chosen
    assert f"{chosen} classes: " in count.explanation()


def test_work_of_other_features_is_not_used(tmp_path, monkeypatch):
    features, _ = planted([60, 60, 60])
    other, _ = planted([60, 60, 60], seed=1)
    whole = discover(other, 3, QUICK)

    def killing(self, *given):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(search.WorkFolder, "write_state", killing)
        with pytest.raises(_Killed):
            discover(features, 3, QUICK, work=tmp_path / "work")
    again = discover(other, 3, QUICK, work=tmp_path / "work")
    np.testing.assert_array_equal(again.answers.labels, whole.answers.labels)


def test_work_does_not_replace_files_of_something_else(tmp_path):
    features, _ = planted([20, 20])
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files of something else"):
        discover(features, 2, QUICK, work=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my/images", "my-images"),
        ("data/v1.0", "data-v1.0"),  # no suffix, a part of the name
        ("data/v1.1/", "data-v1.1"),
        ("splits/train.csv", "splits-train"),
        ("../other", "other"),
        (".", "photos"),
        ("..", "above"),
    ],
)
def test_classes_are_called_after_their_folder(folder, name, tmp_path, monkeypatch):
    (tmp_path / "above" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "photos")
    assert _name_of(Path(folder)) == name


def test_classes_lie_beside_images_among_which_one_stands(tmp_path, monkeypatch):
    within = tmp_path / "photos" / "cats"
    within.mkdir(parents=True)
    monkeypatch.chdir(within)
    for typed in ("..", "../../photos"):
        assert _place_for(Path(typed), "classes") == tmp_path / "photos-classes"
    assert _place_for(Path(), "features") == tmp_path / "photos" / "cats-features"
    monkeypatch.chdir(tmp_path)
    assert _place_for(Path("photos"), "classes") == Path("photos-classes")


def test_spectral_clustering_of_a_few_images():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 6)
    features = np.eye(8)[4 * groups] + 0.01 * rng.standard_normal((12, 8))
    assert hungarian_accuracy(groups, BASELINES["spectral"](features, 2, 0)) == 1


@pytest.mark.parametrize(
    ("rows", "classes", "words"),
    [
        (1, 2, "1 image cannot be divided"),
        (3, 4, "3 images cannot be divided into 4"),
        (9, 1, "--classes must be at least 2"),
        (9, 0, "--classes must be at least 2"),
        (1, None, "1 image cannot be divided"),
    ],
)
def test_what_cannot_be_divided(rows, classes, words):
    features, _ = planted([9])
    with pytest.raises(ValueError, match=words):
        discover(features[:rows], classes, QUICK)


def test_equal_images_are_told():
    with pytest.raises(ValueError, match="all 20 images have the same features"):
        discover(np.ones((20, 8), np.float16), 2, QUICK)


def test_features_that_are_not_finite_are_told():
    features, _ = planted([20, 20])
    features[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        discover(features, 2, QUICK)


@pytest.mark.parametrize("classes", [2, None])
def test_a_training_that_diverges_is_told(classes, tmp_path):
    features, _ = planted([40, 40])
    settings = dataclasses.replace(QUICK, lr=10.0, weight_decay=10.0)
    with pytest.raises(ValueError, match="all heads diverged: choose a lower --lr"):
        discover(features, classes, settings, work=tmp_path / "work")
    # also where an older program has kept the loss of one
    (tmp_path / "work" / "curve.json").write_text('[{"classes": 2, "loss": NaN, "agreement": 1.0}]')
    with pytest.raises(ValueError, match="all heads diverged: choose a lower --lr"):
        discover(features, classes, settings, work=tmp_path / "work")


def test_a_head_that_diverges_says_nothing_about_a_number_of_classes(monkeypatch):
    features, _ = planted([20, 20])
    reduced = reduce_features(features, fit_reduction(features, 8))
    neighbours = knn.nearest_neighbours(reduced, 5)
    losses = torch.tensor([0.25, *[float("nan")] * 5])
    monkeypatch.setattr(choice, "judge_heads", lambda *given: losses)
    point = choice._try(reduced, neighbours, QUICK, 2)
    assert (point.loss, point.agreement) == (0.25, 0)  # no two heads are left to agree


@pytest.mark.parametrize("classes", [2, 5])
def test_as_few_images_as_classes(classes):
    features, _ = planted([1] * 5)
    found = discover(features, classes, dataclasses.replace(QUICK, min_steps=3))
    assert len(found.answers.labels) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("heads", 0), ("head", "conv"), ("balance", 1.5), ("lr", -1.0), ("epochs", 0), ("seed", -1)],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"--{name} must be"):
        dataclasses.replace(QUICK, **{name: value})


def test_more_steps_at_least_than_at_most_are_refused():
    with pytest.raises(ValueError, match="--min-steps 60 is above --max-steps 30"):
        dataclasses.replace(QUICK, max_steps=30)
