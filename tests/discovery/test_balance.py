"""Whether classes are of equal size, where nobody says so."""

import dataclasses

import numpy as np
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from planted_features import planted
from typer.testing import CliRunner

from uic_plugin.cli.discover import discover as command
from uic_plugin.discovery import candidates
from uic_plugin.discovery.balance import EQUAL, OWN, Balance, class_shares, decide_balance
from uic_plugin.discovery.correction import Corrected
from uic_plugin.discovery.heads import HeadBank
from uic_plugin.discovery.search import discover
from uic_plugin.discovery.settings import AUTO, DiscoverySettings
from uic_plugin.discovery.training import first_state
from uic_plugin.discovery.work import WorkFolder
from uic_plugin.evaluation.clustering import hungarian_accuracy

QUICK = DiscoverySettings(
    heads=8, dims=16, neighbours=10, epochs=5, min_steps=400, max_steps=400, batch_size=64
)


def test_the_images_decide_by_default():
    assert DiscoverySettings().balance == AUTO
    with pytest.raises(ValueError, match="--balance auto is not decided yet"):
        DiscoverySettings().exponent()


@pytest.mark.parametrize(
    ("shares", "chosen", "smallest"),
    [
        ([[0.2] * 5], EQUAL, 1.0),
        ([[0.26, 0.2, 0.2, 0.2, 0.14]], EQUAL, 0.7),
        ([[0.05, 0.4, 0.25, 0.1, 0.2]], OWN, 0.25),
        ([[0.2] * 5, [0.05, 0.4, 0.25, 0.1, 0.2]], EQUAL, 0.625),  # the mean of the heads decides
        ([[0.5, 0.5]], EQUAL, 1.0),
        ([[0.9, 0.1]], OWN, 0.2),  # of fewer than five classes the smallest one
        ([[0.02, 0.03, *[0.95 / 8] * 8]], OWN, 0.25),  # of ten the two smallest
    ],
)
def test_decision_by_hand(shares, chosen, smallest):
    balance = decide_balance(torch.tensor(shares))
    assert balance.exponent == chosen
    assert balance.smallest == pytest.approx(smallest, abs=1e-6)
    assert f"(--balance {chosen:g})" in balance.explanation()
    assert f"has {smallest:.2f} of an equal share" in balance.explanation()


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=30), st.integers(0, 1000))
def test_a_decision_depends_on_sizes_alone(sizes, seed):
    shares = torch.tensor([sizes]) / sum(sizes)
    order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(seed))
    balance = decide_balance(shares)
    assert 0 <= balance.smallest <= 1 + 1e-5
    assert decide_balance(shares[:, order]) == balance


def test_shares_by_hand():
    """Three of four images lie on the first axis; the other head has a single class."""
    reduced = torch.tensor([[1, 0], [1, 0], [0, 1], [1, 0]]).half()
    axes, one = torch.eye(2), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    heads = HeadBank.from_centroids([axes, one], temperature=0.1)
    for chunk in (1, 3, 100):
        shares = class_shares(heads, reduced, chunk=chunk)
        assert shares.tolist() == [[0.75, 0.25], [1.0, 0.0]]


def test_equal_classes_are_seen():
    features, truth = planted([80] * 5, spread=0.25)
    found = discover(features, 5, QUICK)
    assert found.balance is not None
    assert found.balance.exponent == EQUAL
    assert hungarian_accuracy(truth, found.answers.labels) > 0.97


def test_a_large_class_is_not_split():
    features, truth = planted([300, 150, 75, 38, 19], spread=0.2)
    found = discover(features, 5, QUICK)
    assert found.balance is not None
    assert found.balance.exponent == OWN
    equal = discover(features, 5, dataclasses.replace(QUICK, balance=EQUAL))
    assert equal.balance is None  # it was given
    right, wrong = (hungarian_accuracy(truth, f.answers.labels) for f in (found, equal))
    assert right > wrong + 0.1


@pytest.mark.parametrize("sizes", [[80] * 3, [200, 60, 20]])
def test_the_decision_gives_what_its_number_gives(sizes):
    features, _ = planted(sizes, spread=0.25)
    auto = discover(features, 3, QUICK)
    assert auto.balance is not None
    given_number = discover(features, 3, dataclasses.replace(QUICK, balance=auto.balance.exponent))
    np.testing.assert_array_equal(auto.answers.confidence, given_number.answers.confidence)
    assert auto.losses == given_number.losses


@pytest.mark.parametrize("sizes", [[80] * 3, [200, 60, 20]])
def test_hard_labels_do_not_decide(sizes, tmp_path, monkeypatch):
    """They even out the sizes that the decision looks at; after a stop no soft head is taken."""
    features, _ = planted(sizes, spread=0.25)
    hard = dataclasses.replace(QUICK, labels="hard")
    found = discover(features, 3, hard)
    assert found.balance == discover(features, 3, QUICK).balance
    number = dataclasses.replace(hard, balance=found.balance.exponent)
    given_number = discover(features, 3, number)
    np.testing.assert_array_equal(found.answers.confidence, given_number.answers.confidence)
    _stopped_behind_the_decision(monkeypatch, features, 3, hard, tmp_path / "work")
    again = discover(features, 3, hard, work=tmp_path / "work")
    np.testing.assert_array_equal(again.answers.confidence, found.answers.confidence)


class _Killed(Exception):
    pass


def _stopped_behind_the_decision(monkeypatch, features, classes, settings, work):
    """Search until the balance is decided."""
    original = WorkFolder.write_balance

    def killing(self, *given):
        original(self, *given)
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "write_balance", killing)
        with pytest.raises(_Killed):
            discover(features, classes, settings, work=work)


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_stop_anywhere_changes_nothing(stop, tmp_path, monkeypatch):
    """States are written within and behind both trials and the training."""
    features, _ = planted([60, 60, 60], spread=0.5)
    settings = dataclasses.replace(QUICK, min_steps=160, max_steps=160)
    monkeypatch.setattr(candidates, "_SAVE_EVERY", 15)  # 20 steps of a trial
    whole = discover(features, 3, settings)
    original, calls = WorkFolder.write_state, []

    def killing(self, stage, state):
        original(self, stage, state)
        calls.append(stage)
        if len(calls) == stop:
            raise _Killed

    monkeypatch.setattr(WorkFolder, "write_state", killing)
    with pytest.raises(_Killed):
        discover(features, 3, settings, work=tmp_path / "work")
    again = discover(features, 3, settings, work=tmp_path / "work")
    np.testing.assert_array_equal(again.answers.confidence, whole.answers.confidence)
    assert again.balance == whole.balance
    assert sum("heads, balance" in stage for stage in calls) == 4


def test_a_decision_is_made_once(tmp_path, monkeypatch):
    """A resumed search keeps it, whatever this machine would decide."""
    features, _ = planted([60, 60, 60])
    whole = discover(features, 3, QUICK)
    _stopped_behind_the_decision(monkeypatch, features, 3, QUICK, tmp_path / "work")
    monkeypatch.setattr(candidates, "decide_balance", lambda shares: pytest.fail("decided again"))
    again = discover(features, 3, QUICK, work=tmp_path / "work")
    assert again.balance == whole.balance
    np.testing.assert_array_equal(again.answers.confidence, whole.answers.confidence)


def test_a_stopped_search_of_another_number_of_classes_decides_nothing(tmp_path, monkeypatch):
    features, _ = planted([60, 60, 60])
    whole = discover(features, 3, QUICK)
    unlike = Balance(OWN if whole.balance.exponent == EQUAL else EQUAL, smallest=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(candidates, "decide_balance", lambda shares: unlike)
        _stopped_behind_the_decision(monkeypatch, features, 12, QUICK, tmp_path / "work")
    again = discover(features, 3, QUICK, work=tmp_path / "work")
    assert again.balance == whole.balance
    np.testing.assert_array_equal(again.answers.confidence, whole.answers.confidence)


def test_heads_that_were_left_by_a_divergence_are_kept(tmp_path):
    axes = torch.eye(3)
    state = first_state([axes, axes], QUICK, seed=0)  # two of eight
    folder = WorkFolder(tmp_path / "work", "identity")
    folder.write_state("heads", state)
    again = folder.read_state("heads", 3, QUICK)
    assert again is not None
    assert again.student.classes == [3, 3]
    assert folder.read_state("heads", 4, QUICK) is None


def test_a_stop_at_the_very_first_file_is_no_foreign_folder(tmp_path):
    (tmp_path / "identity.part").write_text("abc")
    WorkFolder(tmp_path, "identity")
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity"]
    (tmp_path / "identity").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files of something else"):
        WorkFolder(tmp_path, "identity")


def test_corrected_classes_keep_their_sizes():
    features, truth = planted([60, 60, 60])
    corrected = Corrected(truth, np.zeros(len(truth), bool))
    found = discover(features, None, QUICK, corrected=corrected)
    assert found.balance == Balance(OWN, smallest=None)
    assert found.balance.explanation() == "classes of the sizes that they have (--balance 0.1)"


def test_the_option_takes_a_word_or_a_number(monkeypatch):
    taken = []
    monkeypatch.setattr(
        "uic_plugin.experiments.discovery.run_discovery",
        lambda request, settings, _: taken.append(settings),
    )

    app = typer.Typer()
    app.command()(command)
    for words, balance in (([], AUTO), (["--balance", "auto"], AUTO), (["--balance", "0.5"], 0.5)):
        assert CliRunner().invoke(app, ["images", *words]).exit_code == 0
        assert taken[-1].balance == balance
    for wrong in ("equal", "nan", "1.5"):
        done = CliRunner().invoke(app, ["images", "--balance", wrong])
        assert "--balance must be auto, or a number from 0 to 1" in str(done.exception)
