"""solo-learn main's own scripts, unmodified, with `method=uic`.

Needs a checkout: SOLO_LEARN=<folder>, which `make test HOST=<folder>` sets.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

CHECKOUT = os.environ.get("SOLO_LEARN")
pytestmark = pytest.mark.skipif(
    not CHECKOUT or not (Path(CHECKOUT) / "main_pretrain.py").is_file(),
    reason="no checkout of solo-learn main: SOLO_LEARN=<folder>, or make test HOST=<folder>",
)

# Tensors have no `.cuda()` without a GPU; main_knn.py and main_umap.py call it whatever there is.
CPU_CUDA = """
import torch
if not torch.cuda.is_available():
    torch.Tensor.cuda = lambda self, *a, **k: self
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script of the checkout in a folder of its own."""
    aid = tmp_path / "aid"
    aid.mkdir()
    (aid / "sitecustomize.py").write_text(CPU_CUDA)

    def run(*command, check=True, timeout=280):
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": f"{aid}:{CHECKOUT}", "WANDB_MODE": "disabled"},
        )
        if check:
            assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
        return done

    return run


def pretrain_command(digits, *overrides):
    return [
        f"{CHECKOUT}/main_pretrain.py",
        "--config-path",
        f"{CHECKOUT}/scripts/pretrain/cifar",
        "--config-name",
        "simclr.yaml",
        "method=uic",
        "data.dataset=custom",
        f"data.train_path={digits / 'train'}",
        "data.val_path=null",
        "data.num_workers=1",
        "wandb.enabled=false",
        "accelerator=cpu",
        "devices='1'",
        "precision=32",
        "strategy=auto",
        "backbone.name=conv4",
        "+backbone.kwargs.width=8",
        "optimizer.batch_size=64",
        "+method_kwargs.num_pseudo_classes=30",
        "+num_sanity_val_steps=0",
        *overrides,
    ]


def checkpoint_in(folder):
    found = sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert found, f"no checkpoint in {folder}"
    return found[-1]


def labels_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["uic"]["bank"]


def test_pretrain_linear_knn(script, digits, tmp_path):
    done = script(*pretrain_command(digits, "max_epochs=2", "checkpoint.dir=out"))
    assert "leaves out options of another method's recipe" in done.stderr
    checkpoint = checkpoint_in(tmp_path / "out" / "uic")
    arguments = json.loads((checkpoint.parent / "args.json").read_text())
    # SimCLR's temperature of 0.2 is not UIC's; the recipe's two crops are one view
    assert arguments["method_kwargs"]["temperature"] == 1.0
    assert [p["num_crops"] for p in arguments["augmentations"]] == [1]
    assert labels_of(checkpoint)["epoch"] == 2

    linear = script(
        f"{CHECKOUT}/main_linear.py",
        "--config-path",
        f"{CHECKOUT}/scripts/linear/imagenet-100",
        "--config-name",
        "simclr.yaml",
        "pretrain_method=uic",
        "backbone.name=conv4",
        "+backbone.kwargs.width=8",
        f"pretrained_feature_extractor='{checkpoint}'",
        "data.dataset=custom",
        f"data.train_path={digits / 'train'}",
        f"data.val_path={digits / 'val'}",
        "data.format=image_folder",
        "data.num_workers=1",
        "max_epochs=1",
        "wandb.enabled=false",
        "accelerator=cpu",
        "devices='1'",
        "strategy=auto",
        "precision=32",
    )
    assert "val_acc1" in linear.stdout or list(
        (tmp_path / "trained_models" / "linear").rglob("*.ckpt")
    )

    knn = script(
        "-m",
        "uic_plugin",
        f"{CHECKOUT}/main_knn.py",
        *("--dataset", "custom", "--train_data_path", digits / "train"),
        *("--val_data_path", digits / "val", "--pretrained_checkpoint_dir", checkpoint.parent),
        *("--k", "5", "--temperature", "0.1", "--distance_function", "euclidean"),
        *("--feature_type", "backbone", "projector", "--batch_size", "64", "--num_workers", "1"),
    )
    assert knn.stdout.count("Result: acc@1=") == 2


def test_a_recipe_for_dali_trains_and_says_so(script, digits, tmp_path):
    dali = ["data.format=dali", "max_epochs=1", "checkpoint.dir=out"]
    done = script(*pretrain_command(digits, *dali))
    said = [line for line in done.stderr.splitlines() if "dali" in line.lower()]
    assert "data.format=dali is taken for image_folder" in said[0]
    assert labels_of(checkpoint_in(tmp_path / "out" / "uic"))["epoch"] == 1


def test_crops_of_two_sizes_end_in_one_line(script, digits):
    command = [part.replace("simclr.yaml", "byol.yaml") for part in pretrain_command(digits)]
    done = script(*command, "augmentations.0.crop_size=64", check=False)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert len(errors) == 1
    assert "crops of 64, 32 pixels" in errors[0]
    assert "Traceback" not in done.stderr


def test_resume_with_the_hosts_own_option(script, digits, tmp_path):
    """2 epochs, then resume_from_checkpoint to 4, equal 4 without a stop."""
    constant = ["scheduler.name=none", "auto_resume.enabled=false"]
    script(*pretrain_command(digits, "max_epochs=4", "checkpoint.dir=whole", *constant))
    script(*pretrain_command(digits, "max_epochs=2", "checkpoint.dir=half", *constant))
    half = checkpoint_in(tmp_path / "half")
    script(
        *pretrain_command(
            digits,
            "max_epochs=4",
            "checkpoint.dir=rest",
            f"+resume_from_checkpoint='{half}'",
            *constant,
        )
    )
    whole, rest = checkpoint_in(tmp_path / "whole"), checkpoint_in(tmp_path / "rest")
    assert torch.equal(labels_of(whole)["targets"], labels_of(rest)["targets"])
    one, two = (torch.load(path, weights_only=True)["state_dict"] for path in (whole, rest))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_auto_resume_after_a_kill(script, digits, tmp_path):
    command = pretrain_command(digits, "max_epochs=4", "checkpoint.dir=out", "scheduler.name=none")
    environment = {**os.environ, "PYTHONPATH": CHECKOUT}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *command],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 120
    while not list((tmp_path / "out").rglob("*ep=1.ckpt")) and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = script(*command)
    assert "Resuming from previous checkpoint" in done.stdout
    whole = script(
        *pretrain_command(
            digits,
            "max_epochs=4",
            "checkpoint.dir=whole",
            "scheduler.name=none",
            "auto_resume.enabled=false",
        )
    )
    assert whole.returncode == 0
    assert torch.equal(
        labels_of(checkpoint_in(tmp_path / "out"))["targets"],
        labels_of(checkpoint_in(tmp_path / "whole"))["targets"],
    )


def test_a_typo_is_named(script, digits):
    done = script(*pretrain_command(digits, "+method_kwargs.num_clases=3"), check=False)
    assert done.returncode != 0
    assert "unknown option method_kwargs.num_clases" in done.stderr
    assert "Valid options of uic: " in done.stderr
    assert "num_pseudo_classes, head, " in done.stderr


def test_runner_names_a_wrong_script():
    done = subprocess.run(
        [sys.executable, "-m", "uic_plugin", "no_such.py"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.strip().startswith("error: there is no script no_such.py")


def test_papers_network_schedule_and_centered_labels(script, digits32, tmp_path):
    command = pretrain_command(
        digits32,
        "max_epochs=2",
        "checkpoint.dir=out",
        "backbone.name=alexnet",
        "+backbone.kwargs.image_size=32",
        "+backbone.kwargs.fc_width=16",
        "scheduler.name=linear",
        "+scheduler.interval=step",
        "+scheduler.warmup_epochs=1",
        "+method_kwargs.label_view=center",
    )
    script(*[part.replace("kwargs.width=8", "kwargs.width=0.05") for part in command])
    content = torch.load(checkpoint_in(tmp_path / "out" / "uic"), weights_only=True)
    assert content["uic"]["bank"]["epoch"] == 2
    assert content["lr_schedulers"][0]["_last_lr"] == pytest.approx([0.0, 0.0, 0.0])


def test_hosts_method_with_a_network_of_timm(script, digits32, tmp_path):
    command = pretrain_command(digits32, "max_epochs=1", "checkpoint.dir=out", "method=simclr")
    drop = ("method=uic", "+backbone.kwargs", "+method_kwargs", "backbone.name")
    command = [part for part in command if not part.startswith(drop)]
    script(*command, "backbone.name=timm/resnet10t")
    assert checkpoint_in(tmp_path / "out" / "simclr")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["deepcluster", "selflabel"])
def test_methods_that_label_in_a_pass_of_their_own(script, digits, tmp_path, method):
    command = pretrain_command(digits, "max_epochs=1", "checkpoint.dir=out", f"method={method}")
    script(*[part for part in command if part != "method=uic"])
    state = torch.load(checkpoint_in(tmp_path / "out" / method), weights_only=True)["uic"]
    assert (state["method"], state["bank"]["epoch"]) == (method, 1)
    assert len(state["bank"]["targets"].unique()) > 20
