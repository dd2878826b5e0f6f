"""Settled classifiers of a finished run."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from uic_plugin.experiments.compare.measure import measure_run
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.run import Run
from uic_plugin.runs.settling import SETTLED_FILE, settle_run
from uic_plugin.runs.training import pretrain

pytestmark = pytest.mark.all_digits


def train(recipe, folder, *overrides):
    cfg = recipe(f"run_dir={folder}", "max_epochs=2", *overrides, name="digits/demo")
    return pretrain(cfg, reporter=EpochReporter("test")).run_dir


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "settled"


@pytest.fixture
def trained(recipe, kept, tmp_path):
    """A copy of one run."""
    if not kept.exists():
        train(recipe, kept)
    return shutil.copytree(kept, tmp_path / "settled")


def test_whoever_opens_a_run_gets_settled_classifiers(trained):
    as_trained = replace(Run.open(trained), is_settled=False)
    weight = read_checkpoint(trained / "last.ckpt")["state_dict"]["head.classifier.weight"]
    assert torch.equal(as_trained.head.classifier.weight, weight)
    settled = Run.open(trained).head.classifier.weight
    assert not torch.allclose(F.normalize(settled, dim=1), F.normalize(weight, dim=1), atol=1e-3)
    # nothing else is another
    for name, value in Run.open(trained).load().state_dict().items():
        if name != "head.classifier.weight":
            assert torch.equal(value, as_trained.load().state_dict()[name]), name


def test_settled_directions_are_means_of_classes(trained):
    run = Run.open(trained, needs_images=True)
    from uic_plugin.runs.settling import _embeddings

    z = F.normalize(_embeddings(run, 10_000), dim=1)
    assert len(z) == 1442
    first = run.head.classifier.weight[:30].detach()
    classes = (z @ first.T).argmax(1)
    means = torch.stack([z[classes == k].mean(0) for k in range(30)])
    cosines = F.cosine_similarity(means, first)[torch.bincount(classes, minlength=30) > 0]
    assert float(cosines.min()) > 0.99


def test_costs_count_and_a_second_call_changes_nothing(trained, recipe):
    cost = json.loads((trained / "cost.json").read_text())
    assert cost["settle_seconds"] > 0
    assert cost["settle_cpu_seconds"] > 0
    measures = measure_run(trained, clusters=30, overrides=("linear.max_epochs=1",))
    history = (trained / "epochs.csv").read_text().splitlines()
    column = history[0].split(",").index("seconds")
    trained_for = sum(float(row.split(",")[column]) for row in history[1:])
    assert measures["seconds"] == pytest.approx(trained_for + cost["settle_seconds"], abs=0.01)
    content = (trained / SETTLED_FILE).read_bytes()
    settle_run(replace(Run.open(trained, needs_images=True), is_settled=False))
    train(recipe, trained)
    assert (trained / SETTLED_FILE).read_bytes() == content
    (trained / SETTLED_FILE).unlink()
    train(recipe, trained)  # as after a kill between the last epoch and the file
    assert torch.equal(
        torch.load(trained / SETTLED_FILE)["rows"], Run.open(trained).head.classifier.weight
    )


def test_a_longer_training_resumes_from_what_was_trained(recipe, tmp_path):
    schedule = ["scheduler.name=none", "method_kwargs.label_every=1"]
    whole = train(recipe, tmp_path / "whole", *schedule, "max_epochs=3")
    parts = train(recipe, tmp_path / "parts", *schedule)
    train(recipe, tmp_path / "parts", *schedule, "max_epochs=3")
    first, second = (read_checkpoint(run / "last.ckpt")["state_dict"] for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    settled = [Run.open(run).head.classifier.weight for run in (whole, parts)]
    assert torch.equal(*settled)


def test_settled_rows_of_other_weights_are_left(recipe, trained, tmp_path):
    other = train(recipe, tmp_path / "other", "seed=1", "method_kwargs.settle_rounds=0")
    assert not (other / SETTLED_FILE).exists()
    (other / SETTLED_FILE).write_bytes((trained / SETTLED_FILE).read_bytes())
    weight = read_checkpoint(other / "last.ckpt")["state_dict"]["head.classifier.weight"]
    assert torch.equal(Run.open(other).head.classifier.weight, weight)
    (trained / SETTLED_FILE).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"settled.pt is damaged .*: delete it"):
        Run.open(trained).load()


def test_rounds_are_of_the_present_recipe(recipe, trained):
    """They are no part of the training: a run without gets them, and the other way about."""
    weight = read_checkpoint(trained / "last.ckpt")["state_dict"]["head.classifier.weight"]
    settled = Run.open(trained).head.classifier.weight
    as_trained = Run.open(trained, ["method_kwargs.settle_rounds=0"])
    assert torch.equal(as_trained.head.classifier.weight, weight)
    train(recipe, trained, "method_kwargs.settle_rounds=0")
    assert torch.equal(Run.open(trained).head.classifier.weight, weight)
    train(recipe, trained, "method_kwargs.settle_rounds=1")
    once = Run.open(trained).head.classifier.weight
    assert not torch.equal(once, settled)
    assert Run.open(trained).config.method_kwargs.settle_rounds == 1
    train(recipe, trained)
    assert torch.equal(Run.open(trained).head.classifier.weight, settled)


def test_a_finished_run_needs_no_images_and_finds_those_that_moved(recipe, digits, tmp_path):
    images, moved = tmp_path / "images", tmp_path / "moved"
    shutil.copytree(digits / "train", images)
    run = train(recipe, tmp_path / "run", f"data.train_path={images}")
    images.rename(moved)
    settled = Run.open(run).head.classifier.weight
    train(recipe, tmp_path / "run", f"data.train_path={moved}")
    (run / SETTLED_FILE).unlink()
    train(recipe, tmp_path / "run", f"data.train_path={moved}")
    assert torch.equal(Run.open(run).head.classifier.weight, settled)


def test_one_process_of_a_launcher_settles(recipe, trained, monkeypatch):
    (trained / SETTLED_FILE).unlink()
    monkeypatch.setenv("SLURM_PROCID", "1")
    train(recipe, trained)
    assert not (trained / SETTLED_FILE).exists()
    monkeypatch.setenv("SLURM_PROCID", "0")
    train(recipe, trained)
    assert (trained / SETTLED_FILE).exists()
