"""A loss that is NaN ends the run, also where a GPU tells it some steps later."""

from pathlib import Path

import pytest
import torch

from uic_plugin.data.images import path_of
from uic_plugin.errors import NonFiniteError
from uic_plugin.hosts import guards
from uic_plugin.hosts.guards import FiniteLoss
from uic_plugin.hosts.lightning import pl
from uic_plugin.readout import Readout
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.training import pretrain


class LateReadout(Readout):
    """As on a GPU that is behind: numbers arrive so many steps later."""

    steps = 3

    def __init__(self):
        super().__init__()
        self._waiting = []

    def offer(self, values):
        self._offers += 1
        self._waiting.append((self._offers, values.detach().double().numpy().copy()))

    def poll(self):
        while self._waiting and self._waiting[0][0] <= self._offers - self.steps:
            self.count, self.latest = self._waiting.pop(0)
        return self.latest


class Poison(pl.Callback):
    """Makes the weights NaN before a step."""

    def __init__(self, step):
        self.step, self.images = step, None

    def on_train_batch_start(self, trainer, module, batch, batch_idx, *_):
        if trainer.global_step == self.step:
            self.images = batch[0].tolist()
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))


@pytest.mark.parametrize(
    ("late", "step"), [(0, 5), (3, 5), pytest.param(1000, 20, marks=pytest.mark.slow), (1000, 21)]
)
@pytest.mark.all_digits
def test_it_is_found_late_and_named_and_in_no_checkpoint(recipe, monkeypatch, late, step):
    # with 22 steps an epoch, 20 is found before the epoch's last one, 21 before the next epoch
    monkeypatch.setattr(LateReadout, "steps", late)
    monkeypatch.setattr(guards, "Readout", LateReadout)
    cfg = recipe("max_epochs=2", "checkpoint_steps=4", "knn_eval.enabled=false")
    poison = Poison(step)
    with pytest.raises(NonFiniteError, match=rf"the loss is nan at step {step + 1} ") as error:
        pretrain(cfg, reporter=EpochReporter("test"), callbacks=(poison,))
    first = pl_names(cfg, poison.images[:1])[0]
    assert first in str(error.value)
    content = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")
    assert content["uic"]["steps_done"] == step // 4 * 4
    assert all(torch.isfinite(each).all() for each in content["state_dict"].values())
    assert not (Path(cfg.run_dir) / "epochs.csv").exists()


def pl_names(cfg, images):
    from uic_plugin.runs.datasets import pretrain_loader
    from uic_plugin.runs.settings import prepare_config

    cfg, source = prepare_config(cfg)
    dataset = pretrain_loader(cfg, source).dataset.dataset
    return [Path(path_of(dataset, image)).name for image in images]


def test_finite_losses_are_forgotten_and_a_large_sum_is_no_error():
    guard, module = FiniteLoss(LateReadout()), pl.LightningModule()

    class Trainer:
        global_step, current_epoch = 0, 0

    for _ in range(20):
        guard.on_before_backward(Trainer, module, torch.tensor(3e38))
    assert len(guard._steps) <= LateReadout.steps + 1


def test_integers_arrive_exactly():
    """Numbers of images above 2^24, which 32 bits of floating point round."""

    class Done:
        def query(self):
            return True

    readout = Readout()
    readout._buffer, readout._event = torch.tensor([16_999_999, 0]), Done()
    assert readout.poll().tolist() == [16_999_999, 0]
