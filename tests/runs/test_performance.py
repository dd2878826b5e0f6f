"""Settings of speed: the same training, and checkpoints that load with and without them."""

import re
from pathlib import Path

import pytest
import torch

from uic_plugin.hosts import backbone_of
from uic_plugin.hosts.lightning import pl
from uic_plugin.networks.weights import read_state
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs import performance
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.run import Run
from uic_plugin.runs.settings import build_method, prepare_config, validate
from uic_plugin.runs.training import pretrain


def train(cfg, *callbacks):
    pretrain(cfg, reporter=EpochReporter("test"), callbacks=callbacks)
    return read_checkpoint(Path(cfg.run_dir) / "last.ckpt")


class Noted(pl.Callback):
    """Notes what a training is given."""

    def on_train_start(self, trainer, module):
        self.precision = torch.get_float32_matmul_precision()
        self.benchmark = torch.backends.cudnn.benchmark
        self.is_compiled = backbone_of(module)._compiled_call_impl is not None
        loaders = trainer.train_dataloader
        loader = getattr(loaders, "loaders", loaders)
        self.persists = loader.persistent_workers


def test_settings_reach_the_training_and_end_with_it(recipe):
    names = {
        "matmul_precision": "high",
        "cudnn_benchmark": "true",
        "persistent_workers": "true",
    }
    given = [f"performance.{name}={value}" for name, value in names.items()]
    noted, before = Noted(), torch.get_float32_matmul_precision()
    train(recipe("max_epochs=2", "data.num_workers=1", "+limit_train_batches=3", *given), noted)
    assert noted.precision == "high"
    assert noted.benchmark
    assert noted.persists
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.slow
def test_persistent_workers_change_nothing(recipe, tmp_path):
    runs = [
        train(
            recipe(
                f"run_dir={tmp_path / name}",
                "data.num_workers=2",
                "+limit_train_batches=4",
                f"performance.persistent_workers={name}",
            )
        )
        for name in ("true", "false")
    ]
    assert torch.equal(runs[0]["uic"]["bank"]["targets"], runs[1]["uic"]["bank"]["targets"])


@pytest.mark.slow  # compiles for about half a minute
@pytest.mark.parametrize("name", ["digits/uic", "digits/simclr"])
def test_a_compiled_run_resumes_without_and_with(recipe, tmp_path, name):
    settings = [f"run_dir={tmp_path / 'run'}", "+limit_train_batches=3", "scheduler.name=none"]
    noted = Noted()
    first = train(recipe("max_epochs=1", "performance.compile=true", *settings, name=name), noted)
    assert noted.is_compiled
    assert not any("_orig_mod" in each for each in first["state_dict"])
    plain = train(recipe("max_epochs=2", "performance.compile=false", *settings, name=name))
    again = train(recipe("max_epochs=3", "performance.compile=true", *settings, name=name))
    assert plain["state_dict"].keys() == again["state_dict"].keys() == first["state_dict"].keys()
    assert again["epoch"] > plain["epoch"] > first["epoch"]


def test_wrapped_names_load(recipe, tmp_path):
    # as a script leaves them that wraps the backbone by `torch.compile`
    cfg = recipe("max_epochs=1", "+limit_train_batches=2", "scheduler.name=none")
    run = Path(cfg.run_dir)
    whole = train(cfg)
    content = torch.load(run / "last.ckpt", weights_only=True)
    content["state_dict"] = {
        re.sub(r"^(backbone|encoder)\.", r"\1._orig_mod.", key): value
        for key, value in content["state_dict"].items()
    }
    assert any("_orig_mod" in key for key in content["state_dict"])
    torch.save(content, run / "last.ckpt")
    assert read_state(run / "last.ckpt").keys() == whole["state_dict"].keys()
    backbone = Run.open(run).backbone.state_dict()
    for key, value in backbone.items():
        own = next(v for k, v in whole["state_dict"].items() if k.split(".", 1)[1] == key)
        assert torch.equal(own, value)
    resumed = train(recipe("max_epochs=2", "+limit_train_batches=2", "scheduler.name=none"))
    assert resumed["state_dict"].keys() == whole["state_dict"].keys()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("performance.compile=maybe", "performance.compile must be true or false, got 'maybe'"),
        ("performance.matmul_precision=tf32", "must be highest, high"),
        ("performance.cudnn_benchmark=3", "true, false or null, got 3"),
    ],
)
def test_wrong_settings_are_named(recipe, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare_config(recipe(override))


def test_without_a_compiler_it_is_said_at_once(recipe, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(performance.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler.*performance.compile=false"):
        validate(recipe("performance.compile=true"))


def test_a_recipe_without_the_section_is_as_before(recipe):
    cfg = recipe()
    for name in ("compile", "matmul_precision", "cudnn_benchmark", "persistent_workers"):
        del cfg.performance[name]
    prepared, _ = prepare_config(cfg)
    assert backbone_of(build_method(prepared))._compiled_call_impl is None
