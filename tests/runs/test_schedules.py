"""The linear decay of the paper, in every method of the host."""

import math
from pathlib import Path

import pytest
from host_lines import needs_solo

from uic_plugin.hosts.lightning import pl
from uic_plugin.hosts.schedules import cosine_factor, linear_factor
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.training import pretrain

FEW = "data.fraction=0.3"  # of the digits


def test_factors_by_hand():
    factor = linear_factor(0, 4, 0.0)
    assert [factor(i) for i in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    factor = linear_factor(2, 6, 0.1)
    assert [factor(i) for i in range(7)] == pytest.approx([0.1, 0.55, 1, 0.75, 0.5, 0.25, 0])
    with pytest.raises(ValueError, match="warmup_epochs must be at least 0 and less than"):
        linear_factor(4, 4, 0.0)


def test_cosine_factors_by_hand():
    factor = cosine_factor(0, 4, 0.0)
    assert [factor(i) for i in (0, 2, 4, 5)] == pytest.approx([1, 0.5, 0, 0])
    factor = cosine_factor(2, 6, 0.1, 0.2)
    assert [factor(i) for i in (0, 1, 2, 4, 6)] == pytest.approx([0.1, 0.55, 1, 0.6, 0.2])


class Rates(pl.Callback):
    """The learning rate of every step."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates(cfg):
    watch = Rates()
    pretrain(cfg, reporter=EpochReporter("test"), callbacks=(watch,))
    return watch.rates


@pytest.mark.parametrize("name", ["digits/uic", "digits/simclr"])
def test_epoch_by_epoch(recipe, name):
    given = recipe(FEW, "max_epochs=4", "scheduler.name=linear", "optimizer.lr=1", name=name)
    found = rates(given)
    steps, top = len(found) // 4, given.optimizer.batch_size / 256
    for epoch in range(4):
        share = found[epoch * steps : (epoch + 1) * steps]
        assert share == pytest.approx([top * (1 - epoch / 4)] * steps)


@pytest.mark.parametrize("name", ["digits/uic", "digits/mocov2plus"])
def test_step_by_step_with_warmup(recipe, name):
    settings = ["scheduler.name=linear", "scheduler.interval=step", "scheduler.warmup_epochs=1"]
    given = recipe(FEW, "max_epochs=3", *settings, "optimizer.lr=1", name=name)
    found = rates(given)
    steps, top = len(found) // 3, given.optimizer.batch_size / 256
    start = 3e-5
    warm = [start + (top - start) * i / steps for i in range(steps)]
    decay = [top * (1 - i / (2 * steps)) for i in range(2 * steps)]
    assert found == pytest.approx(warm + decay, rel=1e-4)
    assert math.isclose(found[steps], top)


@pytest.mark.parametrize(
    "name", ["digits/uic", pytest.param("digits/simclr", marks=pytest.mark.slow)]
)
def test_cosine_step_by_step(recipe, name):
    given = recipe(
        FEW, "max_epochs=2", "scheduler.interval=step", "optimizer.lr=1", name=name
    )  # fmt: skip
    found = rates(given)
    top = given.optimizer.batch_size / 256
    wanted = [top * (1 + math.cos(math.pi * i / len(found))) / 2 for i in range(len(found))]
    assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("interval", ["epoch", pytest.param("step", marks=pytest.mark.slow)])
def test_resumed_is_uninterrupted(recipe, tmp_path, interval):
    from runs.test_training import StopAfter, same

    def cfg(folder):
        return recipe(
            FEW,
            "max_epochs=4",
            "scheduler.name=linear",
            f"scheduler.interval={interval}",
            f"run_dir={tmp_path / folder}",
        )

    quiet = EpochReporter("test")
    pretrain(cfg("whole"), reporter=quiet)
    pretrain(cfg("parts"), reporter=quiet, callbacks=(StopAfter(2),))
    pretrain(cfg("parts"), reporter=quiet)
    whole, parts = (read_checkpoint(Path(tmp_path) / f / "last.ckpt") for f in ("whole", "parts"))
    assert same(whole, parts)
    assert whole["lr_schedulers"] == parts["lr_schedulers"]


@needs_solo  # lightly has no SimSiam here
def test_rates_that_the_host_keeps_stay(recipe):
    cfg = recipe(
        FEW, "max_epochs=2", "scheduler.name=linear", "optimizer.lr=1", name="digits/simclr"
    )
    cfg.method = "simsiam"  # whose predictor keeps its learning rate
    cfg.method_kwargs = {
        "proj_hidden_dim": 16,
        "proj_output_dim": 16,
        "pred_hidden_dim": 8,
        "temperature": 0.2,
    }
    groups = []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            groups.append([g["lr"] for g in trainer.optimizers[0].param_groups])

    pretrain(cfg, reporter=EpochReporter("test"), callbacks=(Watch(),))
    top = cfg.optimizer.batch_size / 256
    assert groups[1][0] == pytest.approx(top / 2)
    assert groups[1][-1] == pytest.approx(top)
