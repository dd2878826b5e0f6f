"""The descent by iterations: its schedule, and a run that was stopped equals one that was not."""

import os
import signal

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from uic_plugin.errors import Interrupted, NonFiniteError
from uic_plugin.evaluation.voc.fine_tuning import CHECKPOINT_FILE, CURVE_FILE, fine_tune
from uic_plugin.evaluation.voc.settings import Schedule
from uic_plugin.report.tables import read_csv


class NoisyDigits(torch.utils.data.Dataset):
    """Digits with a random shift of brightness, which a resumed run has to draw again."""

    def __init__(self):
        data = load_digits(n_class=3)
        self.images = torch.tensor(data.images[:50], dtype=torch.float32) / 16
        self.targets = torch.tensor(data.target[:50])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        return self.images[number] + 0.2 * torch.rand(()), self.targets[number]


def network():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def train(folder, schedule, *, stop_at=None, identity=None):
    model = network()

    def progress(done, total):
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def losses_of(batch):
        images, targets = batch
        return {"loss": nn.functional.cross_entropy(model(images), targets)}

    curve = fine_tune(
        model,
        NoisyDigits(),
        losses_of,
        schedule,
        folder,
        set_mode=model.train,
        identity=identity or {"network": "a"},
        progress=progress,
    )
    return curve, model


SHORT = Schedule(iterations=30, batch_size=8, lr=0.1, lr_step=10, save_every=7)


def test_learning_rates():
    step = Schedule(iterations=100, batch_size=1, lr=0.8, lr_step=10, lr_decay=0.5)
    assert [step.lr_at(i) for i in (0, 9, 10, 25)] == [0.8, 0.8, 0.4, 0.2]
    poly = Schedule(iterations=100, batch_size=1, lr=1.0, policy="poly", power=2)
    assert [poly.lr_at(i) for i in (0, 50, 90)] == pytest.approx([1, 0.25, 0.01])
    warm = Schedule(iterations=100, batch_size=1, lr=1.0, policy="constant", warmup=10)
    assert [warm.lr_at(i) for i in (0, 5, 10, 99)] == pytest.approx([0.001, 0.5005, 1, 1])


@pytest.mark.parametrize("stop_at", [3, 14, 29])
def test_stopped_equals_uninterrupted(tmp_path, stop_at):
    whole, model = train(tmp_path / "whole", SHORT)
    with pytest.raises(Interrupted, match=rf"stopped after {stop_at} of 30 iterations"):
        train(tmp_path / "part", SHORT, stop_at=stop_at)
    curve, resumed = train(tmp_path / "part", SHORT)
    assert curve == whole
    for one, other in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert [int(row["iteration"]) for row in read_csv(tmp_path / "part" / CURVE_FILE)] == [
        *range(1, 31)
    ]


def test_killed_between_checkpoints_equals_uninterrupted(tmp_path):
    whole, _ = train(tmp_path / "whole", SHORT)

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 17:  # the last checkpoint is of iteration 14
            raise Killed

    part = network()
    given = {"set_mode": part.train, "identity": {"network": "a"}}
    with pytest.raises(Killed):
        fine_tune(
            part,
            NoisyDigits(),
            lambda batch: {"loss": nn.functional.cross_entropy(part(batch[0]), batch[1])},
            SHORT,
            tmp_path / "part",
            progress=kill,
            **given,
        )
    assert train(tmp_path / "part", SHORT)[0] == whole


def test_it_learns_and_is_done(tmp_path):
    curve, _ = train(tmp_path, Schedule(iterations=120, batch_size=8, lr=0.1, lr_step=60))
    assert curve[-1]["loss"] < curve[0]["loss"] / 3
    again, _ = train(tmp_path, Schedule(iterations=120, batch_size=8, lr=0.1, lr_step=60))
    assert again == curve


def test_other_settings_and_damage_are_refused(tmp_path):
    train(tmp_path, SHORT)
    other = Schedule(iterations=30, batch_size=8, lr=0.2, lr_step=10)
    with pytest.raises(ValueError, match="is of another schedule: give another --out"):
        train(tmp_path, other)
    with pytest.raises(ValueError, match="is of another network"):
        train(tmp_path, SHORT, identity={"network": "b"})
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged: remove it"):
        train(tmp_path, SHORT)


def test_a_loss_that_explodes_is_one_line(tmp_path):
    with pytest.raises(NonFiniteError, match=r"lower --lr \(it is 1e\+30\)"):
        train(tmp_path, Schedule(iterations=30, batch_size=8, lr=1e30, clip=0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"iterations": 0}, "--iterations must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"lr": float("nan")}, "--lr must be above 0"),
        ({"lr_decay": 2.0}, "--lr-decay must be above 0"),
        ({"policy": "cosine"}, "--policy must be one of step, poly, constant"),
        ({"momentum": -1.0}, "--momentum must be at least 0"),
    ],
)
def test_numbers_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**{"iterations": 1, "batch_size": 1, "lr": 0.1, **given})


def test_a_batch_of_more_than_all_images(tmp_path):
    with pytest.raises(ValueError, match="--batch-size 51 is more than the 50 training images"):
        train(tmp_path, Schedule(iterations=1, batch_size=51, lr=0.1))
