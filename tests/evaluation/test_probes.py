"""Linear probes: frozen means frozen, resumed is uninterrupted, ten crops are averaged."""

import csv
import dataclasses

import pytest
import torch
from runs.test_bad_input import one_line
from torch import nn
from torch.utils.data import Dataset

from uic_plugin.evaluation.probe_settings import ProbeSettings
from uic_plugin.evaluation.probes import ProbeTrainer
from uic_plugin.networks import Conv4
from uic_plugin.networks.weights import weights_fingerprint
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.run import Run
from uic_plugin.runs.training import pretrain

SETTINGS = ProbeSettings(
    epochs=3, lr=0.05, lr_decay_epochs=(1, 2), batch_size=16, pooled=100, seed=3
)


class Squares(Dataset):
    """Noise with a bright square in one of the four corners, which is its class."""

    def __init__(self, count, crops=None, noise=0.0):
        generator = torch.Generator().manual_seed(count)
        self.images = torch.rand(count, 3, 16, 16, generator=generator)
        self.targets = torch.arange(count) % 4
        for image, target in zip(self.images, self.targets.tolist(), strict=True):
            row, column = divmod(target, 2)
            image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
        self.crops, self.noise = crops, noise

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        if self.crops is not None:
            image = torch.stack([image + 0.05 * i for i in range(self.crops)])
        else:
            image = image + self.noise * torch.randn(image.shape)  # drawn anew at each visit
        return image, int(self.targets[index])


def encoder():
    """Random weights, but the statistics of the images: activations keep their scale."""
    torch.manual_seed(0)
    network = Conv4(4)
    images = Squares(64).images
    for _ in range(40):
        network.train()(images)
    return network


def trainer(network=None, settings=SETTINGS, layers=("conv1", "conv3"), train=None):
    return ProbeTrainer(
        network or encoder(),
        layers,
        train or Squares(64, noise=0.01),
        Squares(20),
        num_classes=4,
        image_size=16,
        settings=settings,
        device=torch.device("cpu"),
    )


def quiet(row):
    pass


def test_probes_learn_and_the_network_does_not(tmp_path):
    network = encoder()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    settings = dataclasses.replace(SETTINGS, epochs=12, lr_decay_epochs=(10,))
    results = trainer(network, settings).run(tmp_path, Squares(20, crops=10), quiet)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name  # BatchNorm's statistics too
    assert [(r.layer, r.probe, r.crops) for r in results] == [
        (layer, probe, crops)
        for crops in (1, 10)
        for layer in ("conv1", "conv3")
        for probe in ("last", "best")
    ]
    for result in results:
        assert result.top1 >= 90
        assert result.top5 == 100
        assert result.epoch == 12 or result.probe == "best"


def test_resumed_is_uninterrupted(tmp_path):
    whole, parts = trainer(), trainer()
    results = whole.run(tmp_path / "whole", None, quiet)

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    with pytest.raises(Stop):
        parts.run(tmp_path / "parts", None, stop)
    again = trainer()
    assert again.run(tmp_path / "parts", None, quiet) == results
    assert [row["epoch"] for row in again.history] == [1, 2, 3]
    assert again.history == whole.history
    for one, two in zip(whole.probes, again.probes, strict=True):
        assert torch.equal(one.weight, two.weight)
        assert torch.equal(one.bias, two.bias)


def test_learning_rate_falls_at_the_given_epochs(tmp_path):
    probes = trainer()
    probes.run(tmp_path, None, quiet)
    rates = [row["lr"] for row in probes.history]
    assert rates == pytest.approx([0.05, 0.005, 0.0005])


def test_ten_crops_are_the_mean_of_the_softmax_outputs(tmp_path):
    probes = trainer(settings=dataclasses.replace(SETTINGS, epochs=1, lr=0.001))
    crops = Squares(20, crops=10)
    results = probes.run(tmp_path, crops, quiet)
    scores = torch.zeros(20, 4)
    for number in range(20):
        images, _ = crops[number]
        features = probes.features.of(images)[1]
        scores[number] = probes.probes[1](features).softmax(1).mean(0)
    expected = 100 * (scores.argmax(1) == crops.targets).double().mean().item()
    found = next(r for r in results if (r.layer, r.probe, r.crops) == ("conv3", "last", 10))
    assert found.top1 == pytest.approx(expected)


def test_best_is_the_best_epoch_and_its_weights(tmp_path):
    probes = trainer(settings=dataclasses.replace(SETTINGS, lr=0.001, lr_decay_epochs=()))
    results = {(r.layer, r.probe): r for r in probes.run(tmp_path, None, quiet)}
    for layer in ("conv1", "conv3"):
        tops = [row[f"{layer}_top1"] for row in probes.history]
        assert results[layer, "best"].epoch == tops.index(max(tops)) + 1
        assert results[layer, "last"].epoch == 3


def test_stored_features_are_computed_once(tmp_path):
    network = encoder()
    calls = []
    network.conv1.register_forward_hook(lambda *_: calls.append(1))
    settings = dataclasses.replace(SETTINGS, store_features=True, epochs=5)
    probes = trainer(network, settings)
    calls.clear()
    results = probes.run(tmp_path, None, quiet)
    assert len(calls) == 64 / 16 + 2  # the training images and the 20 test images, in batches
    assert results[0].top1 >= 90


def test_views_do_not_depend_on_workers(tmp_path):
    weights = []
    for workers in (0, 2):
        probes = trainer(settings=dataclasses.replace(SETTINGS, epochs=1))
        probes.num_workers = workers
        probes.run(tmp_path / str(workers), None, quiet)
        weights.append(probes.probes[0].weight.clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: trainer(settings=dataclasses.replace(SETTINGS, lr=0.1)), "other settings"),
        (lambda: trainer(layers=("conv1",)), "other layers"),
        (lambda: trainer(network=Conv4(5)), "other features, network"),
        (lambda: trainer(train=Squares(80)), "other images"),
        (
            lambda: trainer(settings=dataclasses.replace(SETTINGS, pooled=50)),
            "other settings, fe",
        ),
    ],
)
def test_a_folder_of_other_probes(tmp_path, build, reason):
    trainer(settings=dataclasses.replace(SETTINGS, epochs=3)).run(tmp_path, None, quiet)
    with pytest.raises(ValueError, match=f"probes with {reason}.*give another --out"):
        build().run(tmp_path, None, quiet)


def test_bad_settings():
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        ProbeSettings(epochs=0)
    with pytest.raises(ValueError, match="crops must be 1 or 10, got 5"):
        ProbeSettings(crops=5)
    with pytest.raises(ValueError, match="lr must be a number of at least 0, got nan"):
        ProbeSettings(lr=float("nan"))
    with pytest.raises(ValueError, match=r"'conv7'.*conv1, conv2, conv3, conv4, features"):
        trainer(layers=("conv7",))
    with pytest.raises(ValueError, match="name each layer once"):
        trainer(layers=("conv1", "conv1"))
    with pytest.raises(ValueError, match="a batch of 16 images is too large: 8 training images"):
        trainer(train=Squares(8))


def test_fingerprint_sees_every_change():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    first = weights_fingerprint(network)
    assert first == weights_fingerprint(network)
    network.train()(torch.rand(4, 2))  # statistics alone
    assert weights_fingerprint(network) != first


def test_the_seed_decides_the_weights():
    torch.manual_seed(1)
    first = trainer().probes[0].weight
    torch.manual_seed(2)
    assert torch.equal(trainer().probes[0].weight, first)
    other = trainer(settings=dataclasses.replace(SETTINGS, seed=4)).probes[0].weight
    assert not torch.equal(other, first)


@pytest.fixture
def run(small, tmp_path):
    """A run of the small AlexNet with an MLP head."""
    head = ["method_kwargs.head=mlp", "method_kwargs.head_width=8", f"run_dir={tmp_path / 'run'}"]
    cfg = compose_recipe("small/alexnet_3k", [*small, *head])
    pretrain(cfg, reporter=EpochReporter("test"))
    return tmp_path / "run"


QUICK = ["--epochs", "2", "--lr-decay-epochs", "1", "--batch-size", "32", "--lr", "0.02"]


def test_command(uic, run):
    before = weights_fingerprint(Run.open(run, ["accelerator=cpu"]).load())
    layers = "conv1,conv2,conv3,conv4,conv5,mlp"
    done = uic("probe", run, "--layers", layers, *QUICK)
    assert done.returncode == 0, done.stderr
    rows = read_csv(run / "probe" / "probe.csv")
    assert len(rows) == 6 * 2 * 2
    assert {row["layer"] for row in rows} == set(layers.split(","))
    best = max(float(row["top1"]) for row in rows if row["probe"] == "last")
    assert best > 60  # digits, by the features of a barely trained network
    assert len(read_csv(run / "probe" / "probe_epochs.csv")) == 2
    assert weights_fingerprint(Run.open(run, ["accelerator=cpu"]).load()) == before
    finished = uic("probe", run, "--layers", layers, *QUICK)  # nothing is trained again
    assert "probe epoch" not in finished.stdout
    assert read_csv(run / "probe" / "probe.csv") == rows


@pytest.mark.slow
def test_layers_by_default(uic, run):
    assert uic("probe", run, *QUICK, "--out", run / "default", "--crops", "1").returncode == 0
    names = {row["layer"] for row in read_csv(run / "default" / "probe.csv")}
    assert names == {"conv1", "conv2", "conv3", "conv4", "conv5", "mlp"}


@pytest.mark.slow
def test_other_images_than_the_runs(uic, run, digits32):
    done = uic("probe", run, digits32, "--layers", "conv5", *QUICK, "--crops", "1")
    assert done.returncode == 0, done.stderr
    one_line(
        uic("probe", run, "--layers", "conv5", *QUICK, "--image-size", "24", "--crops", "1"),
        "probe.ckpt holds probes with other views",
        "give another --out",
    )
    with open(run / "probe" / "probe.csv") as file:
        assert [row["crops"] for row in csv.DictReader(file)] == ["1", "1"]


@pytest.mark.slow
def test_layers_with_spaces(uic, run):
    done = uic(
        "probe", run, *QUICK, "--crops", "1", "--layers", "conv1", "conv3", "--out", run / "o"
    )
    assert done.returncode == 0, done.stderr
    assert {row["layer"] for row in read_csv(run / "o" / "probe.csv")} == {"conv1", "conv3"}


@pytest.mark.slow
def test_a_mistake_with_several_processes_is_one_line(uic, run):
    one_line(uic("probe", run / "none", "--processes", "2"), "no such run folder")
    one_line(uic("probe", run, "--processes", "0"), "--processes must be at least 1")


@pytest.mark.slow
def test_a_process_that_fails_is_heard(run):
    import subprocess
    import sys

    command = [sys.executable, "-m", "uic_plugin.cli", "probe", str(run), "--layers", "conv9"]
    done = subprocess.run(
        [*command, "--processes", "2"], capture_output=True, text=True, timeout=200
    )
    one_line(done, "unknown layer 'conv9'")


@pytest.mark.slow
def test_two_processes_train_the_same_probes(run):
    import subprocess
    import sys

    for processes in ("1", "2"):
        command = [sys.executable, "-m", "uic_plugin.cli", "probe", str(run), "--layers", "conv5"]
        command += [*QUICK, "--processes", processes, "--out", str(run / processes)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    one, two = (
        torch.load(run / n / "probe.ckpt", weights_only=True)["probes"]["0.weight"] for n in "12"
    )
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    first, second = (read_csv(run / n / "probe.csv") for n in "12")
    assert [row["top1"] for row in first] == [row["top1"] for row in second]
