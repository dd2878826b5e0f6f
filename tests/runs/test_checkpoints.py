"""Checkpoints whole or not at all, whoever writes them; damaged ones passed over."""

import json
import os
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from host_lines import needs_solo
from omegaconf import OmegaConf

from uic_plugin.errors import NonFiniteError
from uic_plugin.hosts import find_host, load_host, register
from uic_plugin.hosts import guards as module
from uic_plugin.hosts.checkpoint_files import damage_of, read_checkpoint
from uic_plugin.hosts.guards import WholeCheckpointIO
from uic_plugin.methods import UICOptions, VariedUIC
from uic_plugin.runs.datasets import pretrain_loader
from uic_plugin.runs.settings import build_method, prepare_config


@pytest.fixture
def trainer(recipe, host_trainer):
    """A bare trainer of the host, as its own scripts make one, after an epoch of UIC."""
    cfg, source = prepare_config(recipe("max_epochs=1"))
    trainer = host_trainer()
    trainer.fit(build_method(cfg), pretrain_loader(cfg, source))
    return trainer


def test_the_hosts_own_trainer_writes_whole_files(trainer, tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)
    whole = path.read_bytes()
    save = torch.save

    def stopped(content, part):
        save(content, part)
        os.truncate(part, 1000)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.torch, "save", stopped)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(path)
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["a.ckpt"] or not list(tmp_path.glob("*.part"))


def test_weights_that_are_no_numbers_replace_nothing(trainer, tmp_path):
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)
    with torch.no_grad():
        next(trainer.model.parameters())[0] = float("inf")
    with pytest.raises(
        NonFiniteError, match=r"1 of the weights are NaN.*a\.ckpt is left as it was"
    ):
        trainer.save_checkpoint(path)
    weights = read_checkpoint(path)["state_dict"].values()
    assert all(torch.isfinite(weight).all() for weight in weights)


def test_damage_is_found(tmp_path):
    path = tmp_path / "a.ckpt"
    WholeCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(1000)}}, path)
    assert damage_of(path) is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "no whole checkpoint" in damage_of(path)
    path.write_bytes(b"")
    assert "no whole checkpoint" in damage_of(path)


@needs_solo
def test_the_hosts_auto_resume_passes_over_a_damaged_checkpoint(tmp_path):
    register()
    resumer = load_host().AutoResumer
    settings = {}
    for name in resumer.SHOULD_MATCH:
        node = settings
        *groups, last = name.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = f"value of {name}"
    for name in ("whole", "torn"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "args.json").write_text(json.dumps(settings))
        torch.save({"state_dict": {}}, folder / f"{name}-ep=3.ckpt")
    torn = tmp_path / "torn" / "torn-ep=3.ckpt"
    torn.write_bytes(torn.read_bytes()[:100])
    is_main = find_host().line == "main"
    given = OmegaConf.create(settings) if is_main else Namespace(**settings)
    with pytest.warns(UserWarning, match=r"torn-ep=3\.ckpt is not resumed from"):
        found = resumer(tmp_path, 36).find_checkpoint(given)
    checkpoint = found[0] if isinstance(found, tuple) else found
    assert checkpoint == tmp_path / "whole" / "whole-ep=3.ckpt"
    assert (tmp_path / "torn" / "torn-ep=3.ckpt.damaged").exists()


@pytest.mark.parametrize(
    ("ranks", "limit", "steps", "wanted"),
    [
        (1, 1.0, 40, 40),  # nothing to convert
        (2, 1.0, 40, 80),
        (4, 1.0, 24, 96),
        (2, 1.0, 50, 99),  # the last of 1000 / 10 steps is left to do: the epoch boundary is in it
        (2, 30, 14, 28),
        (2, 30, 15, 29),
        (2, 30, 29, 29),
        (2, 500, 49, 98),
        (2, 0.25, 10, 20),
        (2, 0.25, 24, 24),
        (2, 1, 1, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:the checkpoint was written by")
def test_steps_of_another_number_of_ranks_leave_the_last_to_do(ranks, limit, steps, wanted):
    """Of 1000 images in batches of 10, or of as many as `limit_train_batches` allows."""
    method = VariedUIC()
    method._network, method.global_rank, method.batch_size = torch.nn.Identity(), 0, 10
    method.trainer = SimpleNamespace(limit_train_batches=limit)
    method.build_head(5, UICOptions(num_pseudo_classes=4), seed=0)
    method.attach(1000, "images", None)
    state = {"bank": method.bank.state_dict(), "steps_done": steps}
    state |= {"batch_size": 10, "world_size": ranks}
    assert method.load_labels(state, is_within_epoch=True) == wanted
    assert method.images_to_skip == 10 * wanted
