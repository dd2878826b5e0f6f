"""Recipes under lightly: its heads and losses for the methods of other papers, its evaluators."""

import pytest

from uic_plugin.hosts.detect import HostError, find_host

try:
    HAS_LIGHTLY = find_host().line == "lightly"
except HostError:
    HAS_LIGHTLY = False
if not HAS_LIGHTLY:
    pytest.skip("the host is not lightly: make test HOST=lightly", allow_module_level=True)

from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.evaluation import extract_features, knn_accuracy, linear_accuracy
from uic_plugin.runs.run import Run
from uic_plugin.runs.training import pretrain

FEW = ("data.fraction=0.3", "max_epochs=2", "knn_eval.enabled=true")


def train(cfg):
    pretrain(cfg, reporter=EpochReporter(cfg.method))
    return read_csv(f"{cfg.run_dir}/epochs.csv")


@pytest.mark.parametrize("name", ["simclr", "mocov2plus", "byol", "swav", "dino"])
def test_lightlys_heads_and_losses(recipe, name):
    cfg = recipe(f"methods={name}", *FEW, name="digits/any")
    rows = train(cfg)
    assert all(float(row[f"train_{name}_loss"]) == float(row[f"train_{name}_loss"]) for row in rows)
    assert float(rows[-1]["val_knn_acc1"]) > 20
    assert not Run.open(cfg.run_dir).load().training  # its weights fit


def test_lightlys_evaluators_of_a_run(recipe):
    cfg = recipe(*FEW, "linear.max_epochs=40")
    rows = train(cfg)
    assert float(rows[-1]["val_knn_acc1"]) > 20
    run = Run.open(cfg.run_dir, needs_images=True)
    assert run.config.host == "lightly"
    features = extract_features(run)
    assert knn_accuracy(features, **run.config.knn) > 40
    assert linear_accuracy(run, features) > 30
    with pytest.raises(ValueError, match="euclidean needs solo-learn"):
        knn_accuracy(features, k=20, temperature=0.1, distance="euclidean")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("host=solo",), "host must be one of auto, solo-learn, lightly, got 'solo'"),
        (("methods=swav", "method_kwargs.queue_size=8"), "set method_kwargs.queue_size=0, got 8"),
        (("methods=simclr", "method_kwargs.queue_size=8"), "simclr of lightly does not take queue"),
        (("methods=barlow_twins",), "unknown method 'barlow_twins': one of byol"),
    ],
)
def test_recipes_that_cannot_be_are_named(recipe, overrides, says):
    with pytest.raises(ValueError, match=says):
        train(recipe(*overrides, name="digits/any"))
