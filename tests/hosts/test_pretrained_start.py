"""Training from a pretrained network inside the installed host: frozen layers, slower layers."""

from pathlib import Path

import pytest
import torch

from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.hosts.lightning import pl
from uic_plugin.networks.pretrained import load_pretrained
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.partial_training import prepare_partial_training, with_layer_decay
from uic_plugin.runs.run import Run
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.runs.training import pretrain

QUIET = EpochReporter("test")
LITE0 = ("backbone=timm/tf_efficientnet_lite0", "pretrained=true")


@pytest.fixture
def lite0(recipe, digits32):
    """Composes a recipe that starts from the pretrained default on few enlarged digits."""

    def compose(*overrides, name="digits/uic"):
        cfg = recipe(
            "data.dataset=custom",
            f"data.train_path={digits32 / 'train'}",
            "data.val_path=null",
            "augmentations.0.crop_size=32",
            "optimizer.batch_size=32",
            "+limit_train_batches=2",
            "max_epochs=1",
            *overrides,
            *LITE0,
            name=name,
        )
        return cfg

    return compose


def backbone_state(cfg):
    state = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")["state_dict"]
    prefix = f"{load_host().BACKBONE_KEY}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def changed(cfg):
    """Return which weights and statistics differ from the pretrained ones."""
    own, start = backbone_state(cfg), load_pretrained("lite0").network.state_dict()
    return {name for name, value in start.items() if not torch.equal(value, own[name])}


@pytest.mark.parametrize(
    "name",
    [
        "digits/uic",
        *(
            pytest.param(f"digits/{name}", marks=pytest.mark.slow)
            for name in ("simclr", "mocov2plus", "selflabel")
        ),
    ],
)
def test_frozen_layers_are_those_of_the_file(lite0, name):
    cfg = lite0("freeze=3", name=name)
    pretrain(cfg, reporter=QUIET)
    moved = changed(cfg)
    frozen = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")
    assert moved
    assert not any(weight.startswith(frozen) for weight in moved)
    assert any("running_mean" in weight for weight in moved)  # of the layers behind


def test_all_frozen_is_a_head_on_pretrained_features(lite0):
    cfg = lite0("freeze=all")
    pretrain(cfg, reporter=QUIET)
    assert not changed(cfg)
    assert Run.open(Path(cfg.run_dir)).classifier() is not None


@pytest.mark.slow
def test_resumed_equals_uninterrupted(lite0, tmp_path):
    options = ("freeze=2", "layer_decay=0.8", "max_epochs=2")
    whole = lite0(*options, f"run_dir={tmp_path / 'whole'}")
    pretrain(whole, reporter=QUIET)

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    parts = lite0(*options, f"run_dir={tmp_path / 'parts'}")
    pretrain(parts, reporter=QUIET, callbacks=(Stop(),))
    assert read_checkpoint(tmp_path / "parts" / "last.ckpt")["epoch"] == 0
    pretrain(parts, reporter=QUIET)
    first, second = backbone_state(whole), backbone_state(parts)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_learning_rates_fall_with_depth(recipe):
    """The optimizer's own groups: the last layer learns as the recipe says, the first slowest."""
    cfg, _ = prepare_config(recipe("layer_decay=0.5", "optimizer.lr=0.4", "freeze=1"))
    method = build_method(cfg)
    plain = {id(p) for group in method.learnable_params for p in as_list(group)}
    prepare_partial_training(cfg, method)
    key = load_host().BACKBONE_KEY
    rates = {}
    for group in method.learnable_params:
        if group["name"] == key:
            rates.update(dict.fromkeys(map(id, as_list(group)), group["lr"]))
    network = backbone_of(method)
    named = [(n, rates[id(p)]) for n, p in network.named_parameters() if p.requires_grad]
    assert len(rates) == len(named)
    ordered = [rate for _, rate in named]
    assert ordered == sorted(ordered)
    assert max(ordered) <= method.lr
    assert min(ordered) < method.lr / 2
    frozen = {id(p) for p in network.parameters() if not p.requires_grad}
    assert {id(p) for group in method.learnable_params for p in as_list(group)} == plain - frozen


def as_list(group):
    group["params"] = list(group["params"])
    return group["params"]


def test_momentum_networks_start_as_copies(lite0):
    from uic_plugin.runs.start_weights import start_pretrained

    cfg, _ = prepare_config(lite0("freeze=2", name="digits/mocov2plus"))
    method = build_method(cfg)
    start_pretrained(method, cfg)
    copy = getattr(method, f"momentum_{load_host().BACKBONE_KEY}")
    start = load_pretrained("lite0").network.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in copy.state_dict().items())
    callbacks = prepare_partial_training(cfg, method)
    method.train()
    callbacks[0].on_train_batch_start()
    assert not copy.conv_stem.training
    assert not copy.blocks[0].training
    assert copy.blocks[-1].training


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["pretrained=true"], ["pretrained=true is for networks of timm", "weights=FILE"]),
        (["pretrained=maybe"], ["pretrained must be true or false"]),
        (["pretrained=true", "weights=net.pth"], ["two starts"]),
        (["freeze=99"], ["freeze=99", "layers", "freeze=all"]),
        (["freeze=half"], ["freeze must be none, all"]),
        (["layer_decay=0"], ["layer_decay must be a number above 0"]),
        (["layer_decay=1.5"], ["at most 1"]),
    ],
)
def test_one_line_for_what_cannot_be(recipe, overrides, words):
    with pytest.raises(ValueError, match=r".") as caught:
        pretrain(recipe(*overrides), reporter=QUIET)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_decay_leaves_the_method_itself(recipe):
    cfg, _ = prepare_config(recipe())
    method = build_method(cfg)
    kind = type(method)
    with_layer_decay(method, 0.9)
    assert isinstance(method, kind)
    assert type(method).__name__ == kind.__name__
