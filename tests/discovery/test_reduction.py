"""Reduced features: equal spread, constant features, models of before."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from planted_features import planted

from uic_plugin.discovery import preparation
from uic_plugin.discovery.model import ClassModel
from uic_plugin.discovery.reduction import fit_reduction, reduce_features
from uic_plugin.discovery.search import discover
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.discovery.work import WorkFolder
from uic_plugin.files import save_tensors

QUICK = DiscoverySettings(
    balance=1.0, heads=2, dims=8, neighbours=5, epochs=1, min_steps=20, batch_size=64
)


def test_scales_by_hand():
    """Standard deviations 1, 3 and 0, of which the mean is 4 / 3: the third tells nothing."""
    rows = np.array([[1, 3, 5], [-1, -3, 5], [1, -3, 5], [-1, 3, 5]], np.float32)
    spread = (4 / 3) ** 0.5  # with N - 1
    rows[:, :2] /= spread
    reduction = fit_reduction(rows, 3)
    torch.testing.assert_close(reduction.scale, torch.tensor([4 / 3, 4 / 9, 0]))
    assert reduction.axes.shape == (3, 2)
    plain = fit_reduction(rows, 3, equal_spread=False)
    assert plain.scale.tolist() == [1, 1, 1]


def test_one_feature_that_varies_beside_a_constant_one():
    rows = np.array([[1, 2], [2, 2], [9, 2], [8, 2]], np.float32)
    reduction = fit_reduction(rows, 2)
    assert reduction.scale.tolist() == [1, 1]  # scaled rows of unit length would all be equal
    reduced = reduce_features(rows, reduction)
    assert torch.isfinite(reduced).all()
    side = reduced[:, 0].sign()
    assert side[0] == side[1] == -side[2] == -side[3]


@given(exponents=st.lists(st.integers(-2, 2), min_size=24, max_size=24))
@examples(deadline=None, max_examples=20)
def test_the_unit_of_a_feature_does_not_matter(exponents):
    features = planted([40, 40, 40])[0].astype(np.float32)
    units = 2.0 ** np.array(exponents, np.float32)
    cosines = []
    for rows in (features, features * units):
        reduced = reduce_features(rows, fit_reduction(rows, 24)).float()
        cosines.append(reduced @ reduced.T)
    torch.testing.assert_close(cosines[0], cosines[1], atol=2e-3, rtol=0)


def test_features_of_another_size_do_not_decide():
    """Noise in four of 24 features that is a hundred times the others would hide the classes."""
    features, truth = planted([60, 60, 60], spread=0.1)
    features = features.astype(np.float32)
    features[:, :4] = 100 * np.random.default_rng(0).normal(size=(len(features), 4))

    def same_class(*, equal_spread):
        reduction = fit_reduction(features, 24, equal_spread=equal_spread)
        reduced = reduce_features(features, reduction).float()
        nearest = (reduced @ reduced.T - 2 * torch.eye(len(reduced))).argmax(1).numpy()
        return (truth[nearest] == truth).mean()

    assert same_class(equal_spread=True) > 0.95
    assert same_class(equal_spread=False) < 0.6


def test_a_model_of_before_scales_nothing(tmp_path):
    features, _ = planted([40, 40, 40])
    model = discover(features, 3, QUICK).model
    model.save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    content["version"] = 1
    del content["reduction"]["scale"], content["reduction"]["spread"]
    save_tensors(content, tmp_path / "before.pt")
    before = ClassModel.load(tmp_path / "before.pt")
    assert before.reduction.scale.tolist() == [1.0] * 24
    before(features)
    content["version"] = 3
    save_tensors(content, tmp_path / "later.pt")
    with pytest.raises(ValueError, match="is of version 3, this program reads 1 and 2"):
        ClassModel.load(tmp_path / "later.pt")


def test_evened_components_by_hand():
    """Spreads 1 and 1 / 4; the second is brought nearer, to (1 / 4) ** 0.7."""
    rows = np.random.default_rng(0).normal(size=(4000, 6)).astype(np.float32)
    reduction = fit_reduction(rows, 6)
    reduction = dataclasses.replace(reduction, spread=torch.tensor([1, 0.25, 1, 1, 1, 1]))
    even = reduction.evened()
    expected = torch.tensor([1, 4**0.3, 1, 1, 1, 1])
    torch.testing.assert_close(even.axes, reduction.axes * expected)
    assert float(even.spread[1]) == pytest.approx(0.25**0.7)
    plain = reduction(torch.from_numpy(rows))
    again = torch.nn.functional.normalize(plain * reduction.evening(), dim=1)
    torch.testing.assert_close(even(torch.from_numpy(rows)), again)


def test_spread_is_that_of_the_components():
    features, _ = planted([60, 60, 60])
    reduction = fit_reduction(features, 24)
    unit = torch.nn.functional.normalize(torch.from_numpy(features).float() * reduction.scale)
    measured = ((unit - reduction.mean) @ reduction.axes).std(0)
    torch.testing.assert_close(reduction.spread, measured / measured[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("balance", "is_evened"), [(1.0, True), (0.5, False), (0.0, False)])
def test_only_equal_classes_see_evened_components(balance, is_evened):
    features, _ = planted([60, 60, 60])
    found = discover(features, 3, dataclasses.replace(QUICK, balance=balance))
    plain = fit_reduction(features, QUICK.dims)
    wanted = plain.evened() if is_evened else plain
    torch.testing.assert_close(found.model.reduction.axes, wanted.axes)


def test_evened_components_are_kept_by_a_stopped_search(tmp_path, monkeypatch):
    features, _ = planted([60, 60, 60], spread=0.5)
    whole = discover(features, 3, QUICK)
    original = WorkFolder.write_state

    def killing(self, stage, state):
        original(self, stage, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkFolder, "write_state", killing)
    with pytest.raises(KeyboardInterrupt):
        discover(features, 3, QUICK, work=tmp_path / "work")
    monkeypatch.setattr(WorkFolder, "write_state", original)
    monkeypatch.setattr(preparation, "nearest_neighbours", lambda *_, **__: pytest.fail("again"))
    again = discover(features, 3, QUICK, work=tmp_path / "work")
    np.testing.assert_array_equal(again.answers.confidence, whole.answers.confidence)
