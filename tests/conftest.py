"""Shared fixtures: real images (scikit-learn's digits), small recipes, the command line."""

import os
import sys
import warnings

import pytest

from uic_plugin.threads import wait_passively

# Before torch is loaded. Lightning's and OpenMP's threads fight on few cores; one each is faster
# for networks this small.
wait_passively()
os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory):
    """Where the package keeps datasets that it makes itself."""
    folder = tmp_path_factory.mktemp("data")
    os.environ["UIC_DATA"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def digits(data_dir):
    """Folder of the digits: `train/<digit>/*.png` and `val/<digit>/*.png`."""
    from uic_plugin.data.digits import prepare_digits

    return prepare_digits(data_dir / "digits")


@pytest.fixture
def recipe(digits, tmp_path, request):
    """Composes a recipe of a few epochs with a small network, into a folder of its own.

    Half of the training images, for speed; all of them in tests marked `all_digits`.
    """
    from uic_plugin.recipes_path import compose_recipe

    fraction = -1 if request.node.get_closest_marker("all_digits") else 0.5

    def compose(*overrides, name="digits/uic"):
        small = [
            f"run_dir={tmp_path / 'run'}",
            "max_epochs=2",
            "backbone.kwargs.width=8",
            "data.num_workers=0",
            f"data.fraction={fraction}",
            "accelerator=cpu",
        ]
        return compose_recipe(name, [*small, *overrides])

    return compose


@pytest.fixture
def host_trainer():
    """Makes a bare trainer of the host for one epoch, as its own scripts make one."""
    from uic_plugin.hosts.lightning import pl

    return lambda: pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )


class Finished:
    """How a command ended: what `subprocess.run` would say."""

    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


@pytest.fixture
def uic(tmp_path, monkeypatch, capfd):
    """Runs the command in a folder of its own, in this process: starting another takes seconds."""
    from uic_plugin import cli

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["uic", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        with warnings.catch_warnings():
            try:
                cli.main()
            except SystemExit as end:
                code = end.code
        return Finished(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def digits32(digits, tmp_path_factory):
    """Every second digit enlarged to 32 pixels, for networks that need larger images."""
    from PIL import Image

    root = tmp_path_factory.mktemp("digits32")
    for path in sorted(digits.glob("*/*/*.png"))[::2]:
        target = root / path.relative_to(digits)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((32, 32)).save(target)
    return root


@pytest.fixture
def small(digits32, tmp_path):
    """Overrides that let a recipe of `recipes/small` train on the enlarged digits in seconds."""
    return [
        "data.dataset=custom",
        f"data.train_path={digits32 / 'train'}",
        f"data.val_path={digits32 / 'val'}",
        "data.fraction=-1",
        "data.num_workers=0",
        "accelerator=cpu",
        "max_epochs=2",
        "backbone.kwargs.width=0.05",
        "backbone.kwargs.fc_width=32",
    ]


@pytest.fixture(scope="session")
def voc_digits(tmp_path_factory):
    """Digits in PASCAL VOC's layout; not to be changed."""
    from voc_tree import make_voc_of_digits

    return make_voc_of_digits(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def own_voc(tmp_path):
    """The same, to be changed."""
    from voc_tree import make_voc_of_digits

    return make_voc_of_digits(tmp_path / "own", train=4, test=2) / "VOCdevkit" / "VOC2007"
