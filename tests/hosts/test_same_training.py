"""Every host trains the same: labels and weights of two epochs, bit for bit on one processor.

    SAME_TRAINING=folder pytest -m slow tests/hosts/test_same_training.py    # in each environment

No two hosts fit into one environment: each writes its digests into the folder and compares them
with those of the others. Without a folder the plain loop alone is compared with.
"""

import hashlib
import json
import os
from pathlib import Path

import pytest
from plain_uic import train_plainly

from uic_plugin.hosts import backbone_of, find_host
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.run import Run
from uic_plugin.runs.training import pretrain


def digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.slow
def test_of_every_host(recipe):
    given = ("scheduler.name=linear", "data.fraction=0.2")
    cfg = recipe(*given)
    pretrain(cfg, reporter=EpochReporter("test"))
    targets = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")["uic"]["bank"]["targets"].long()
    assert targets.tolist() == train_plainly(recipe(*given))[-1].labels
    method = Run.open(cfg.run_dir).load()
    mine = {
        "labels": digest([targets]),
        "backbone": digest(backbone_of(method).state_dict().values()),
        "head": digest(method.head.state_dict().values()),
    }
    folder = os.environ.get("SAME_TRAINING")
    if folder:
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / f"{find_host().line}.json").write_text(json.dumps(mine))
        for path in Path(folder).glob("*.json"):
            assert json.loads(path.read_text()) == mine, path.stem
