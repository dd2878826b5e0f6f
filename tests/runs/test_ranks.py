"""Two processes (DDP, gloo on the CPU): one bank, disjoint shares."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from uic_plugin.report.tables import read_csv

PROGRAM = """
import json, os, sys
import torch
from uic_plugin.hosts import load_host
from uic_plugin.hosts.lightning import pl
from uic_plugin.runs.training import pretrain
from uic_plugin.recipes_path import compose_recipe

torch.set_num_threads(1)
folder = sys.argv[1]

class Watch(pl.Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx, *rest):
        bank = module.bank
        place = torch.arange(1, len(bank) + 1)
        sums = [labels.long().mul(place).sum().item() for labels in (bank._targets, bank._staged)]
        self.steps.append([trainer.current_epoch, sums, bank.epoch, batch[0].tolist()])

    def on_train_end(self, trainer, module):
        weights = [w.double().sum().item() for w in module.parameters()]
        with open(f"{folder}/rank{trainer.global_rank}.json", "w") as file:
            json.dump({"steps": self.steps, "weights": weights}, file)

pretrain(compose_recipe(sys.argv[2], sys.argv[3:]), callbacks=(Watch(),))
"""


@pytest.fixture
def two_ranks(tmp_path, digits):
    def run(*overrides, name="digits/uic"):
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        settings = [
            "devices=2",
            "accelerator=cpu",
            "max_epochs=2",
            "backbone.kwargs.width=4",
            "data.num_workers=1",
            f"run_dir={tmp_path / 'run'}",
            *overrides,
        ]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(program), str(tmp_path), name, *settings],
            capture_output=True,
            text=True,
            timeout=250,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "MASTER_ADDR": "127.0.0.1",
            },
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]

    return run


@pytest.mark.slow
def test_ranks_share_the_pass_over_centered_views(two_ranks, tmp_path):
    first, second = two_ranks("method_kwargs.label_view=center")
    assert [step[:3] for step in first["steps"]] == [step[:3] for step in second["steps"]]
    assert first["weights"] == second["weights"]
    from uic_plugin.runs.folder import read_checkpoint

    labels = read_checkpoint(tmp_path / "run" / "last.ckpt")["uic"]["bank"]["targets"]
    assert len(labels.unique()) > 1


@pytest.mark.slow
def test_ranks_hold_one_bank_and_disjoint_shares(two_ranks):
    first, second = two_ranks()
    assert len(first["steps"]) == len(second["steps"]) == 2 * (1442 // 2 // 64)
    for one, two in zip(first["steps"], second["steps"], strict=True):
        assert one[:3] == two[:3]  # epoch, sums over both buffers, the bank's epoch
    assert first["weights"] == second["weights"]
    from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank

    bank = PseudoLabelBank(1442, 30, seed=0)
    bank.fix_empty_classes(EmptyClassFixer(30))
    order = ClassBalancedSampler(bank, seed=0).order().tolist()
    for rank, record in enumerate((first, second)):
        drawn = [image for step in record["steps"] if step[0] == 0 for image in step[3]]
        assert drawn == order[rank::2][: len(drawn)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits/deepcluster", ("method_kwargs.bank_storage=mmap",)),
        ("digits/selflabel", ("method_kwargs.heads=2",)),
        ("digits/uic", ("method_kwargs.heads=2",)),
        (
            "digits/uic",
            (
                "method_kwargs.label_source=swap",
                "method_kwargs.more_heads=[60]",
                "method_kwargs.swap_balance=prices",
                "method_kwargs.balanced_sampling=false",
                "method_kwargs.instance_share=0.5",
            ),
        ),
    ],
)
def test_ranks_agree_on_labels_of_a_pass_of_their_own(two_ranks, tmp_path, name, options):
    first, second = two_ranks("method_kwargs.head_width=16", *options, name=name)
    assert [step[:3] for step in first["steps"]] == [step[:3] for step in second["steps"]]
    assert first["weights"] == second["weights"]
    from uic_plugin.runs.folder import read_checkpoint

    state = read_checkpoint(tmp_path / "run" / "last.ckpt")["uic"]
    for bank in (state["bank"], *state["more_banks"]):
        assert len(bank["targets"].unique()) > 20
    steps = [step for step in (*first["steps"], *second["steps"]) if step[0] == 1]
    drawn = {image for step in steps for image in step[3]}
    last = read_csv(tmp_path / "run" / "epochs.csv")[-1]
    assert float(last["uic_coverage"]) == pytest.approx(len(drawn) / 1442)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rotnet", "instdisc", "random"])
def test_methods_without_labels_train_on_two_ranks(tmp_path, digits, method):
    given = [f"methods={method}", "devices=2", "accelerator=cpu", "max_epochs=1"]
    given += ["backbone.kwargs.width=4", "data.num_workers=0", f"run_dir={tmp_path / 'run'}"]
    if method == "instdisc":
        given.append("method_kwargs.num_negatives=64")
    done = subprocess.run(
        [sys.executable, "-m", "uic_plugin.cli", "pretrain", "--config-name=digits/any", *given],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "MASTER_ADDR": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (tmp_path / "run" / "last.ckpt").exists()
