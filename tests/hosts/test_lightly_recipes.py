"""Recipes under lightly: its heads and losses for the methods of other papers, its evaluators."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from host_lines import LINE

if LINE != "lightly":
    pytest.skip("the host is not lightly: make test HOST=lightly", allow_module_level=True)

from uic_plugin.errors import Interrupted
from uic_plugin.experiments.compare.measure import measure_run
from uic_plugin.hosts.lightly_knn import knn_accuracy as lightly_knn
from uic_plugin.hosts.lightning import pl
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.evaluation import extract_features, knn_accuracy, linear_accuracy
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.run import Run
from uic_plugin.runs.settings import build_method, prepare_config
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


def test_a_view_does_not_meet_its_own_key_among_the_others(recipe):
    """Each view has a queue of its own, with the keys of the other one's earlier steps."""
    method = build_method(prepare_config(recipe("methods=mocov2plus", name="digits/any"))[0])
    views = [torch.rand(4, 3, 16, 16) for _ in range(2)]
    keys = [F.normalize(method.teach(view), dim=1) for view in views]
    seen = []
    for criterion in method.criteria:
        criterion.register_forward_pre_hook(
            lambda module, given: seen.append(module.memory_bank.bank.clone())
        )
    method.own(views, [method.backbone(view).flatten(1) for view in views])
    for bank in seen:
        cosines = bank @ torch.cat(keys).T
        assert cosines.max() < 1 - 1e-4
    after = [criterion.memory_bank.bank[:4] for criterion in method.criteria]
    torch.testing.assert_close(after, [keys[1], keys[0]])


@pytest.mark.parametrize("name", ["mocov2plus", "swav", "dino"])
def test_resumed_equals_uninterrupted(recipe, name):
    more = ("method_kwargs.queue_size=256",) if name == "mocov2plus" else ()
    whole, parts = (
        recipe(f"methods={name}", "data.fraction=0.3", "max_epochs=3", *more, name="digits/any")
        for _ in range(2)
    )
    parts.run_dir += "-parts"
    train(whole)

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        pretrain(parts, reporter=EpochReporter(name), callbacks=(Stop(),))
    train(parts)
    first, second = (read_checkpoint(Path(cfg.run_dir) / "last.ckpt") for cfg in (whole, parts))
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for key, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][key]), key
    assert first.get("moco_queues", {}).keys() == second.get("moco_queues", {}).keys()
    for key, queue in first.get("moco_queues", {}).items():
        assert torch.equal(queue, second["moco_queues"][key]), key


def test_swavs_prototypes_stay_in_the_first_epochs(recipe):
    cfg = recipe("methods=swav", "max_epochs=2", "data.fraction=0.3", name="digits/any")
    kept = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            kept.append(module.head["prototypes"].heads[0].weight.detach().clone())

    pretrain(cfg, reporter=EpochReporter("swav"), callbacks=(Watch(),))
    begun = build_method(prepare_config(cfg)[0]).head["prototypes"]
    begun.normalize()
    torch.testing.assert_close(kept[0], begun.heads[0].weight.detach())
    assert not torch.allclose(kept[1], kept[0])


def with_more_crops(cfg, size, count):
    more = copy.deepcopy(cfg.augmentations[0])
    more.crop_size, more.num_crops = size, count
    cfg.augmentations.append(more)
    return cfg


@pytest.mark.parametrize(("name", "size", "count"), [("swav", 8, 4), ("simclr", 16, 1)])
def test_crops_that_nothing_learns_from_are_refused(recipe, name, size, count):
    cfg = with_more_crops(recipe(f"methods={name}", *FEW, name="digits/any"), size, count)
    says = rf"{name} of lightly learns from two views of each image, .* makes {2 + count}: set aug"
    with pytest.raises(ValueError, match=says):
        train(cfg)
    cfg.augmentations[1].num_crops = 0
    assert len(train(cfg)) == 2


@pytest.mark.parametrize("name", ["swav", "dino", "simclr"])
def test_prototypes_are_own_classes(recipe, name):
    given = ("methods=" + name, "data.fraction=0.3", "max_epochs=1", "linear.max_epochs=1")
    few = () if name == "simclr" else ("method_kwargs.num_prototypes=20",)
    cfg = recipe(*given, *few, name="digits/any")
    train(cfg)
    measures = measure_run(Path(cfg.run_dir), clusters=10)
    if name == "simclr":
        assert "own_classes" not in measures
        return
    assert measures["own_classes"] == 20
    assert 0 <= measures["own_nmi"] < 1
    assert 0.1 <= measures["own_accuracy_annotated"] <= 1


def test_own_classes_of_swav_are_those_of_its_training_step(recipe):
    """Its prototypes are brought to unit length before a step, and not after the last one."""
    given = ("methods=swav", "method_kwargs.num_prototypes=20")
    method = build_method(prepare_config(recipe(*given, name="digits/any"))[0]).eval()
    prototypes = method.head["prototypes"]
    with torch.no_grad():
        prototypes.heads[0].weight *= torch.rand(20, 1) + 0.5
        features = torch.rand(6, method.features_dim)
        before = prototypes.heads[0].weight.clone()
        (logits,) = method.own_logits(features)
        assert torch.equal(prototypes.heads[0].weight, before)
        prototypes.normalize()
        expected = prototypes(F.normalize(method.project(features), dim=1))
    torch.testing.assert_close(logits, expected)


@pytest.mark.slow
def test_swav_in_two_ranks_with_its_prototypes_kept(digits, tmp_path):
    """Ranks wait for the gradients of every parameter, of those that are not moved, too."""
    given = ("methods=swav", "devices=2", "accelerator=cpu", "max_epochs=2", "data.num_workers=0")
    program = (sys.executable, "-m", "uic_plugin.cli", "pretrain", "--config-name", "digits/any")
    folders = (f"data.train_path={digits / 'train'}", f"run_dir={tmp_path / 'run'}")
    done = subprocess.run(
        [*program, *given, *folders, "--no-page"],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(read_csv(tmp_path / "run" / "epochs.csv")) == 2


def test_long_gradients_of_dino_are_shortened(recipe):
    given = ("methods=dino", "method_kwargs.clip_grad=0.01", "method_kwargs.freeze_last_layer=0")
    method = build_method(prepare_config(recipe(*given, name="digits/any"))[0])
    weights = [*method.backbone.parameters(), *method.head.parameters()]
    lengths = [0.001, 5.0]  # of gradients, by turns
    for number, weight in enumerate(weights):
        weight.grad = torch.ones_like(weight)
        weight.grad *= lengths[number % 2] / weight.grad.norm()
    method._trainer = SimpleNamespace(current_epoch=0)
    method.on_before_optimizer_step(None)
    for number, weight in enumerate(weights):
        expected = min(lengths[number % 2], 0.01)
        assert float(weight.grad.norm()) == pytest.approx(expected, rel=1e-3)


def test_a_temperature_whose_votes_are_infinite_is_refused():
    features = torch.eye(3).repeat(4, 1)
    known = (features, torch.arange(3).repeat(4))
    given = {"k": 3, "distance": "cosine"}
    assert lightly_knn(known, known, temperature=0.012, **given) == 100
    with pytest.raises(ValueError, match=r"temperature=0.01 is too low for lightly's k-NN"):
        lightly_knn(known, known, temperature=0.01, **given)


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
