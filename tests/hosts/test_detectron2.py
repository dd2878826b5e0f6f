"""The host's conversion of a ResNet-50 for detectron2 takes a UIC checkpoint, unchanged."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.training import pretrain

CHECKOUT = os.environ.get("SOLO_LEARN")
SCRIPT = Path(CHECKOUT or "", "downstream/object_detection/convert_model_to_detectron2.py")


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="needs a checkout of solo-learn: SOLO_LEARN=<folder>")
def test_conversion(digits32, tmp_path):
    overrides = [
        f"run_dir={tmp_path / 'run'}",
        "backbone.name=resnet50",
        "data.dataset=custom",
        f"data.train_path={digits32 / 'val'}",
        "data.val_path=null",
        "data.num_workers=0",
        "accelerator=cpu",
        "max_epochs=1",
        "augmentations.0.crop_size=32",
    ]
    cfg = compose_recipe("digits/uic", overrides)
    pretrain(cfg, reporter=EpochReporter("test"))
    plain = tmp_path / "run" / "last.ckpt"
    out = tmp_path / "detectron2.pkl"
    given = ["--pretrained_feature_extractor", plain, "--output_detectron_model", out]
    done = subprocess.run([sys.executable, SCRIPT, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = pickle.loads(out.read_bytes())
    model = content["model"]
    state = torch.load(plain, weights_only=True)["state_dict"]
    backbone = {k: v for k, v in state.items() if k.startswith("backbone.")}
    assert len(model) == len(backbone)
    assert model["stem.conv1.weight"].shape == (64, 3, 7, 7)
    assert (model["stem.conv1.weight"] == state["backbone.conv1.weight"].numpy()).all()
    # the names that detectron2's ResNet has: stages res2 to res5, norms within convolutions
    blocks = {"res2": 3, "res3": 4, "res4": 6, "res5": 3}
    for stage, count in blocks.items():
        for block in range(count):
            for number in (1, 2, 3):
                assert f"{stage}.{block}.conv{number}.weight" in model
                assert f"{stage}.{block}.conv{number}.norm.running_mean" in model
        assert f"{stage}.0.shortcut.weight" in model
        assert f"{stage}.0.shortcut.norm.weight" in model
    assert {name.split(".")[0] for name in model} == {"stem", *blocks}
    assert content["matching_heuristics"] is True
