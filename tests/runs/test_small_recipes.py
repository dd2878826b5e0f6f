"""The paper's recipes at small scale, on real images, against a plain loop on the same machine."""

import math
from pathlib import Path

import pytest
from plain_uic import train_plainly

from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.training import pretrain


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("alexnet_3k", "alexnet_center_labels", "alexnet_strong", "vgg16")
    ],
)
def test_a_plain_loop_gives_the_same_losses_and_labels(small, tmp_path, name):
    overrides = [o for o in small if "fc_width" not in o] if name == "vgg16" else small
    cfg = compose_recipe(f"small/{name}", [*overrides, f"run_dir={tmp_path / 'run'}"])
    pretrain(cfg, reporter=EpochReporter("test"))
    run = Path(cfg.run_dir)
    losses = [float(row["train_uic_loss_epoch"]) for row in read_csv(run / "epochs.csv")]
    plain = train_plainly(cfg)
    assert losses == pytest.approx([epoch.loss for epoch in plain], rel=1e-6)
    labels = read_checkpoint(run / "last.ckpt")["uic"]["bank"]["targets"]
    assert labels.tolist() == plain[-1].labels
    assert abs(losses[0] - math.log(30)) < 0.5  # of a random guess
    assert losses[1] < losses[0]
