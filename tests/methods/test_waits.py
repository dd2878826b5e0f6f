"""No training step waits for the device: counted on the CPU, and on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from waits import Waits, counting

from uic_plugin import PseudoLabelBank
from uic_plugin.hosts.lightning import pl
from uic_plugin.pseudo_labels import EpochTelemetry, StepLabels, StepTelemetry
from uic_plugin.readout import Readout
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.training import pretrain

VARIANTS = [
    ("digits/uic", ()),
    ("digits/uic", ("method_kwargs.heads=2", "method_kwargs.label_momentum=0.9")),
    ("digits/uic", ("method_kwargs.views=2",)),
    ("digits/uic", ("method_kwargs.label_view=center",)),
    ("digits/uic", ("method_kwargs.label_source=step",)),
    ("digits/uic", ("method_kwargs.balanced_sampling=false", "+gradient_clip_val=1")),
    ("digits/demo", ()),
    ("digits/demo", ("method_kwargs.instance_share=0.5",)),
    ("digits/deepcluster", ()),
    ("digits/selflabel", ("method_kwargs.head_width=16", "method_kwargs.heads=2")),
    ("digits/supervised", ()),
]


def waits_of(cfg):
    """Return what each step of a short training waits for, but for an epoch's last, the boundary.

    The whole of Lightning's step counts: hooks, callbacks, logging, gradients, the optimizer.
    """
    counted = []
    pretrain(cfg, reporter=EpochReporter("test"), callbacks=(counting(pl, counted),))
    assert sum(is_last for *_, is_last, _ in counted) == cfg.max_epochs
    return [found for *_, is_last, found in counted if not is_last]


@pytest.mark.parametrize(
    ("name", "options"),
    [VARIANTS[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in VARIANTS[1:])],
)
def test_a_step_of_a_real_run_waits_for_nothing(recipe, name, options):
    found = waits_of(recipe("max_epochs=1", "+limit_train_batches=4", *options, name=name))
    assert len(found) == 3
    assert not any(found), found


def test_the_count_sees_what_waits():
    numbers = torch.arange(4)
    with Waits() as waits:
        float(numbers.sum())
        bool((numbers > 1).any())
        numbers[numbers > 1]
        numbers[numbers > 1] = torch.tensor([1, 2])
        numbers.nonzero()
        numbers.bincount()
        numbers[torch.tensor([0, 1])]
    assert len(waits.found) == 6, waits.found


PROGRAM = """
import sys
import torch
torch.set_num_threads(1)
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.runs.settings import set_up_host
from uic_plugin.runs.training import pretrain
set_up_host()
from uic_plugin.hosts.lightning import pl
from waits import counting

counted = []
pretrain(compose_recipe(sys.argv[1], sys.argv[2:]), callbacks=(counting(pl, counted),))
found = [found for *_, is_last, found in counted if not is_last]
print("COUNTED", len(found), sum(found, []))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [VARIANTS[number] for number in (0, 1, 4, 6, 7)])
def test_a_step_of_two_ranks_waits_for_nothing(tmp_path, digits, name, options):
    (tmp_path / "program.py").write_text(PROGRAM)
    settings = ["devices=2", "accelerator=cpu", "max_epochs=1", "+limit_train_batches=4"]
    settings += ["backbone.kwargs.width=4", "data.num_workers=0", f"run_dir={tmp_path / 'run'}"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", tmp_path / "program.py", name, *settings, *options],
        capture_output=True,
        text=True,
        timeout=250,
        env={
            **os.environ,
            "PYTHONPATH": f"{root}:{root / 'tests'}",
            "MASTER_ADDR": "127.0.0.1",
        },
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "COUNTED 3 []" in done.stdout, done.stdout[-2000:]


def test_nothing_of_a_step_leaves_the_device(monkeypatch):
    # fake tensors know the device that they are on and have no values: asking for one is an error
    monkeypatch.setattr(Readout, "offer", lambda self, values: None)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        device = torch.device("cuda")
        bank = PseudoLabelBank(50, 5, device=device)
        telemetry, pairs = EpochTelemetry(), StepTelemetry(5, 3)
        labels = StepLabels(50, 5)
        waits.found.clear()  # the start of a run
        for _ in range(2):
            index = torch.zeros(8, dtype=torch.int64, device=device)
            logits = torch.zeros(8, 5, device=device)
            targets = bank.targets(index)
            bank.update(index, logits.argmax(1))
            telemetry.observe(logits)
            own = labels.assign(logits)
            pairs.note(own, targets - 1)
            for tensor in (targets, bank.labels, telemetry.sums, own, pairs.table, labels.counts):
                assert tensor.device.type == "cuda"
    assert waits.found == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_step_on_a_gpu_waits_for_nothing(recipe, name, options):
    class Watched(pl.Callback):
        """Has torch refuse to wait between an epoch's first step and its last."""

        def on_train_batch_start(self, trainer, module, batch, batch_idx, *_):
            if batch_idx + 1 < trainer.num_training_batches:
                torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx, *_):
            torch.cuda.set_sync_debug_mode("default")

    settings = ("max_epochs=1", "+limit_train_batches=4", "accelerator=gpu", "devices=1")
    try:
        pretrain(
            recipe(*settings, *options, name=name),
            reporter=EpochReporter("test"),
            callbacks=(Watched(),),
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
