"""A training that ends with its seconds, whatever the method and the speed of the machine."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs.test_schedules import Rates

from uic_plugin.hosts.lightning import pl
from uic_plugin.methods import DeepCluster, PseudoLabelMethod
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.settings import uses_processor_clock
from uic_plugin.runs.time_budget import TimeBudget
from uic_plugin.runs.training import pretrain

GIVEN = ("max_epochs=3", "data.num_workers=0", "accelerator=cpu", "backbone.kwargs.width=4")


class Machine(pl.Callback):
    """A processor on which a step takes as long as the test says, whatever this one does."""

    def __init__(self, monkeypatch, step, labels=0.0):
        self.now, self.step = 0.0, step
        monkeypatch.setattr(time, "process_time", lambda: self.now)
        whole = PseudoLabelMethod.commit

        def commit(method):
            self.now += labels
            return whole(method)

        monkeypatch.setattr(PseudoLabelMethod, "commit", commit)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.now += self.step


def trained(cfg, *callbacks):
    pretrain(cfg, reporter=EpochReporter("test"), callbacks=callbacks)
    return read_csv(f"{cfg.run_dir}/epochs.csv")


@pytest.mark.parametrize(
    ("name", "step", "labels"),
    [
        ("digits/uic", 1.0, 4.0),
        pytest.param("digits/uic", 3.0, 0.0, marks=pytest.mark.slow),
        pytest.param("digits/deepcluster", 1.5, 6.0, marks=pytest.mark.slow),
        pytest.param("digits/mocov2plus", 2.0, 0.0, marks=pytest.mark.slow),
        pytest.param("digits/byol", 1.0, 0.0, marks=pytest.mark.slow),
    ],
)
@pytest.mark.all_digits
def test_the_rate_is_at_zero_when_the_seconds_are_over(recipe, monkeypatch, name, step, labels):
    machine, watch = Machine(monkeypatch, step, labels), Rates()
    chosen = ("digits/any", ["methods=byol"]) if name == "digits/byol" else (name, [])
    rows = trained(recipe(*GIVEN, "max_seconds=60", *chosen[1], name=chosen[0]), machine, watch)
    assert machine.now == pytest.approx(60, rel=0.05)
    assert sum(float(row["cpu_seconds"]) for row in rows) == pytest.approx(60, rel=0.05)
    assert len(rows) == 3
    assert sum(int(row["steps"]) for row in rows) == len(watch.rates)
    assert watch.rates == sorted(watch.rates, reverse=True)
    assert watch.rates[-1] < 0.05 * watch.rates[0]


def test_a_training_that_stops_early_keeps_its_last_weights(recipe, monkeypatch):
    """There is time for two of ten epochs, whose fifth is the first that is due."""
    cfg = recipe(*GIVEN[1:], "max_epochs=10", "max_seconds=60", "snapshots=2")
    rows = trained(cfg, Machine(monkeypatch, 25.0))
    assert len(rows) == 2
    (path,) = (Path(cfg.run_dir) / "snapshots").iterdir()
    assert path.name == "epoch0002.ckpt"
    last = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")
    assert torch.equal(read_checkpoint(path)["labels"], last["uic"]["bank"]["targets"].int())
    again = Machine(monkeypatch, 25.0)
    assert trained(cfg, again) == rows
    assert again.now == 0  # nothing is left to train


@pytest.mark.slow
@pytest.mark.all_digits
def test_a_resumed_training_takes_the_rest_of_its_seconds(recipe, monkeypatch, tmp_path):
    from runs.test_training import StopAfter

    cfg = recipe(*GIVEN, "max_seconds=60", f"run_dir={tmp_path / 'run'}")
    trained(cfg, Machine(monkeypatch, 1.0, 2.0), StopAfter(1))
    again = Machine(monkeypatch, 1.0, 2.0)
    rows = trained(cfg, again)
    assert len(rows) == 3
    assert again.now == pytest.approx(40, rel=0.1)
    assert sum(float(row["cpu_seconds"]) for row in rows) == pytest.approx(60, rel=0.05)


class BreakAt(pl.Callback):
    """Fails before a step of the second epoch."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 9:
            raise RuntimeError("broken")


@pytest.mark.all_digits
def test_an_epoch_that_is_resumed_takes_the_rest_of_its_seconds(recipe, monkeypatch, tmp_path):
    cfg = recipe(*GIVEN, "max_seconds=60", "checkpoint_steps=8", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(RuntimeError, match="broken"):
        trained(cfg, Machine(monkeypatch, 1.0, 2.0), BreakAt())
    again = Machine(monkeypatch, 1.0, 2.0)
    rows = trained(cfg, again)
    assert len(rows) == 3
    # 22 seconds in the first epoch, 8 in the second one up to its checkpoint
    assert again.now == pytest.approx(60 - 22 - 8, abs=1.5)
    # not ended at once; with the 8 steps behind the checkpoint
    assert int(rows[1]["steps"]) == pytest.approx(8 + 13, abs=1)


def test_the_rate_of_a_resumed_epoch_is_that_of_the_uninterrupted_one(
    recipe, monkeypatch, tmp_path
):
    """The seconds are enough for all steps, so that steps decide the rate."""
    given = (*GIVEN, "max_seconds=500", "checkpoint_steps=8")
    whole, resumed = Rates(), Rates()
    trained(recipe(*given, f"run_dir={tmp_path / 'whole'}"), Machine(monkeypatch, 1.0), whole)
    cfg = recipe(*given, f"run_dir={tmp_path / 'parts'}")
    with pytest.raises(RuntimeError, match="broken"):
        trained(cfg, Machine(monkeypatch, 1.0), BreakAt())
    trained(cfg, Machine(monkeypatch, 1.0), resumed)
    left = len(resumed.rates)
    assert len(whole.rates) == 33
    assert left == 33 - 11 - 8
    assert resumed.rates == pytest.approx(whole.rates[-left:])


class BreakFirst(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 4:
            raise RuntimeError("broken")


def test_first_labels_count_in_an_epoch_that_is_resumed(recipe, monkeypatch, tmp_path):
    cfg = recipe(
        *GIVEN, "checkpoint_steps=3", f"run_dir={tmp_path / 'run'}", name="digits/deepcluster"
    )
    machine = Machine(monkeypatch, 1.0)

    def first_labels(method):
        machine.now += 100
        whole(method)

    whole = DeepCluster.start_labels
    monkeypatch.setattr(DeepCluster, "start_labels", first_labels)
    with pytest.raises(RuntimeError, match="broken"):
        trained(cfg, machine, BreakFirst())
    rows = trained(cfg, Machine(monkeypatch, 1.0))
    assert float(rows[0]["cpu_seconds"]) - float(rows[1]["cpu_seconds"]) == pytest.approx(100)


def test_seconds_of_several_threads_are_the_walls(recipe, monkeypatch):
    """The processor's, which are the sum over all threads, would end the training in its first."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    rows = trained(recipe(*GIVEN, "max_seconds=300"), Machine(monkeypatch, 100.0))
    assert [int(row["steps"]) for row in rows] == [11, 11, 11]
    assert sum(float(row["seconds"]) for row in rows) < 300


def test_whose_seconds_count(recipe, monkeypatch):
    cfg = recipe(*GIVEN)
    assert uses_processor_clock(cfg)
    assert not uses_processor_clock(cfg, threads=2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert not uses_processor_clock(cfg)
    assert uses_processor_clock(cfg, threads=1)
    assert not uses_processor_clock(recipe(*GIVEN, "data.num_workers=1"), threads=1)
    cfg.accelerator = "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not uses_processor_clock(cfg, threads=1)


@pytest.mark.parametrize(
    ("saved", "used"),
    [
        ({"used": 50.0, "clock": "cpu_seconds"}, 0.0),
        ({"used": 50.0, "clock": "seconds"}, 50.0),
        ({"used": 50.0}, 50.0),  # of an earlier release
    ],
)
def test_a_resumed_training_does_not_take_over_seconds_of_the_other_clock(tmp_path, saved, used):
    budget = TimeBudget(60, on_processor=False, history=tmp_path / "epochs.csv")
    assert set(budget.state_dict()) == {"used", "clock", "ended_epoch"}
    budget.load_state_dict(saved)
    trainer = SimpleNamespace(num_training_batches=10, max_epochs=3, current_epoch=0)
    budget.on_train_start(trainer, SimpleNamespace())
    assert budget.used == used


def test_a_training_of_several_processes_has_no_seconds(recipe):
    with pytest.raises(ValueError, match=r"max_seconds works in one process"):
        pretrain(recipe(*GIVEN, "max_seconds=60", "devices=2"))
    with pytest.raises(ValueError, match=r"max_seconds must be null or a number above 0, got -1"):
        pretrain(recipe(*GIVEN, "max_seconds=-1"))
