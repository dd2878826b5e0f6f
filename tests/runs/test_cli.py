"""The commands of the README, on real images."""

import csv

import pytest


def small(*more):
    return [
        "max_epochs=2",
        "backbone.name=conv4",
        "backbone.kwargs.width=8",
        "augmentations.0.crop_size=16",
        "augmentations.0.horizontal_flip.prob=0",
        "method_kwargs.num_pseudo_classes=20",
        "data.num_workers=0",
        "accelerator=cpu",
        *more,
    ]


def test_own_folder_then_knn_and_linear(uic, digits, tmp_path):
    done = uic(
        "pretrain",
        "--config-name",
        "custom/uic",
        f"data.train_path={digits / 'train'}",
        *small(),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("uic epoch 1/2  loss ")
    run = "runs/custom-uic-seed0"
    assert f"Next: uic knn {run}   uic linear {run}" in lines
    assert lines[-1].endswith(f"{run}/classes/index.html")  # where to look
    assert (tmp_path / run / "classes" / "index.html").is_file()
    assert "val_path" in uic("knn", run).stderr  # says what is missing
    done = uic("knn", run, f"data.val_path={digits / 'val'}")
    assert done.stdout.startswith("k-NN top-1 ")
    assert float(done.stdout.split()[2]) > 50
    untrained = uic("knn", run, f"data.val_path={digits / 'val'}", "--untrained")
    assert "random weights of seed 0" in untrained.stdout
    done = uic("linear", run, f"data.val_path={digits / 'val'}", "linear.max_epochs=1")
    assert done.stdout.startswith("linear top-1 ")
    with open(tmp_path / run / "epochs.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


@pytest.mark.slow
def test_the_hosts_simclr_with_the_same_command(uic, digits):
    settings = [s for s in small() if "pseudo" not in s]
    done = uic("pretrain", "--config-name", "digits/simclr", *settings, "run_dir=simclr")
    assert done.returncode == 0, done.stderr
    assert "simclr epoch 2/2" in done.stdout


def test_lists(uic):
    assert "cifar10/uic" in uic("recipes").stdout.splitlines()
    assert "pretrain" in uic("--help").stdout
    done = uic("data", "digits", "here")
    assert done.stdout.startswith("the digits are in ")
