"""Stored features in `uic knn`, `uic fewshot`, `uic probe`, `uic classes` and `uic export`."""

import shutil

import numpy as np
import pytest
import torch

from uic_plugin.data.labels import LabelTable, write_labels
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.training import pretrain

EPISODES = ("--ways", 5, "--episodes", 40)
PROBE = ("--epochs", 3, "--batch-size", 64, "--layers", "features", "--resize", 16)


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A run on digits of its own, and the folder with its train/ and val/."""
    from uic_plugin.recipes_path import compose_recipe

    root = tmp_path_factory.mktemp("stored")
    for part in ("train", "val"):
        shutil.copytree(digits / part, root / "data" / part)
    small = ["max_epochs=1", "backbone.kwargs.width=8", "data.num_workers=0", "accelerator=cpu"]
    paths = [f"data.{p}_path={root / 'data' / p}" for p in ("train", "val")]
    recipe = ["data.dataset=custom", f"run_dir={root / 'run'}", *paths, *small]
    pretrain(compose_recipe("digits/uic", recipe), reporter=EpochReporter("test"))
    return root


@pytest.fixture
def embed(uic, made):
    """Makes a store with the run's network, in 32 bits as the commands without a store."""

    def make(folder, out, *more):
        given = ("embed", folder, "--out", out, "--backbone", made / "run", "--workers", 0)
        done = uic(*given, "--precision", 32, *more)
        assert done.returncode == 0, done.stderr
        return out

    return make


def one_line(done, *words):
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.slow
def test_the_same_figures_with_one_store_of_all(made, embed, uic, tmp_path):
    store = embed(made / "data", tmp_path / "store")
    run, data = made / "run", made / "data"

    plain, stored = uic("knn", run), uic("knn", run, "--features", store)
    assert stored.returncode == 0, stored.stderr
    assert figure(stored) == pytest.approx(figure(plain), abs=0.3)  # 16 bits: an image or none

    sizes = ("--resolution", 16)
    for out, more in (("a", ("--layers", "features", *sizes)), ("b", ("--features", store))):
        done = uic("fewshot", run, data / "val", *EPISODES, *more, "--out", f"{out}.csv")
        assert done.returncode == 0, done.stderr
    a, b = (read_csv(tmp_path / f"{name}.csv")[0] for name in "ab")
    assert float(b["accuracy"]) == pytest.approx(float(a["accuracy"]), abs=0.2)
    assert (a["layer"], a["dimensions"]) == (b["layer"], b["dimensions"])

    options = {"a": ("--store-features", "--crops", 1), "b": ("--features", store)}
    for out, more in options.items():
        done = uic("probe", run, *PROBE, *more, "--out", f"probe-{out}")
        assert done.returncode == 0, done.stderr
    a, b = (read_csv(tmp_path / f"probe-{name}" / "probe.csv") for name in "ab")
    assert len(a) == len(b) == 2
    for one, two in zip(a, b, strict=True):
        assert float(two["top1"]) == pytest.approx(float(one["top1"]), abs=0.6)
        assert one["features"] == two["features"]


def figure(done):
    return float(done.stdout.split("top-1")[1].split("%")[0])


def test_features_are_those_of_the_network_in_the_order_of_the_images(made, embed, tmp_path):
    """What a store gives back differs by its 16 bits alone, so that every figure is the same."""
    from uic_plugin.runs.evaluation import extract_features, knn_accuracy, read_features
    from uic_plugin.runs.run import Run

    parts = [embed(made / "data" / part, tmp_path / part) for part in ("val", "train")]
    run = Run.open(made / "run", needs_images=True)
    own, stored = extract_features(run), read_features(run, parts)
    assert torch.equal(stored.train_targets, own.train_targets)
    assert torch.equal(stored.val_targets, own.val_targets)
    torch.testing.assert_close(stored.train, own.train, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(stored.val, own.val, rtol=1e-3, atol=1e-3)
    rounded = type(own)(
        own.train.half().float(), own.train_targets, own.val.half().float(), own.val_targets
    )
    settings = {"k": 20, "temperature": 0.1, "distance": "cosine"}
    assert knn_accuracy(stored, **settings) == pytest.approx(
        knn_accuracy(rounded, **settings), abs=0.3
    )


def test_a_map_is_its_mean(made, embed, uic, tmp_path):
    store = embed(made / "data" / "val", tmp_path / "store", "--layer", "conv3")
    for out, more in (
        ("a", ("--layers", "conv3+mean", "--resolution", 16)),
        ("b", ("--features", store)),
    ):
        done = uic(
            "fewshot", made / "run", made / "data" / "val", *EPISODES, *more, "--out", f"{out}.csv"
        )
        assert done.returncode == 0, done.stderr
    a, b = (read_csv(tmp_path / f"{name}.csv")[0] for name in "ab")
    assert a["layer"] == b["layer"] == "conv3+mean"
    assert float(b["accuracy"]) == pytest.approx(float(a["accuracy"]), abs=0.2)


def test_a_folder_that_is_linked_to(made, embed, uic, tmp_path):
    (tmp_path / "all").mkdir()
    for part in ("train", "val"):
        (tmp_path / "all" / part).symlink_to(made / "data" / part)
    store = embed(tmp_path / "all", tmp_path / "store")
    done = uic("knn", made / "run", "--features", store)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_one_line_for_a_store_that_does_not_fit(made, embed, uic, tmp_path):
    run, val = made / "run", made / "data" / "val"
    store = embed(val, tmp_path / "val")
    commands = (("knn", run), ("fewshot", run, val, *EPISODES), ("probe", run, *PROBE))
    for command in commands:
        one_line(uic(*command, "--features", tmp_path / "none"), "no features there")
    for command in (commands[0], commands[2]):  # these need the training images, too
        one_line(uic(*command, "--features", store), "no features of", "data/train")
    shutil.copytree(val, tmp_path / "copy")
    one_line(
        uic("fewshot", run, tmp_path / "copy", *EPISODES, "--features", store), "no features of"
    )
    for command in commands:
        one_line(uic(*command, "--untrained", "--features", store), "another network")
    large = embed(made / "data", tmp_path / "large", "--size", 32)
    for command in commands:
        one_line(uic(*command, "--features", large), "another preprocessing")
    given = ("fewshot", run, val, *EPISODES, "--features", store)
    one_line(uic(*given, "--layers", "conv3"), "layer features, not conv3")
    one_line(uic(*given, "--resolution", 32), "made with other sizes")


def test_images_that_changed_or_came_later(made, embed, uic, tmp_path):
    shutil.copytree(made / "data" / "val", tmp_path / "val")
    store = embed(tmp_path / "val", tmp_path / "store")
    given = ("fewshot", made / "run", tmp_path / "val", *EPISODES, "--features", store)
    first, second = sorted((tmp_path / "val" / "3").iterdir())[:2]
    shutil.copy(second, first.with_name("new.png"))
    one_line(uic(*given), "no features of 1 of the", "uic embed")
    first.with_name("new.png").unlink()
    first.write_bytes(second.read_bytes() + b"\0")
    one_line(uic(*given), "has changed since")
    embed(tmp_path / "val", store)
    assert uic(*given).returncode == 0
    first.write_text("no image")
    embed(tmp_path / "val", store)
    one_line(uic(*given), "could not be read (not an image)")


def test_arrays_have_no_features_in_a_store(made, embed, tmp_path):
    from torchvision.datasets import FakeData

    from uic_plugin.runs.run import Run
    from uic_plugin.runs.stored import stored_features

    store = embed(made / "data" / "val", tmp_path / "store")
    with pytest.raises(ValueError, match=r"of annotated image files.*FakeData"):
        stored_features(Run.open(made / "run"), [store], [FakeData(4)])


def test_the_page_and_an_export_use_it(made, embed, uic, tmp_path):
    val = made / "data" / "val"
    store = embed(made / "data", tmp_path / "store")  # of the folder above
    paths = sorted(p.relative_to(val).as_posix() for p in val.glob("*/*.png"))
    labels = np.array([int(path[0]) for path in paths])
    scores = np.full(len(paths), 0.5, np.float32)
    write_labels(tmp_path / "labels.csv", LabelTable(paths, labels, scores, scores))
    done = uic("classes", "labels.csv", val, "--out", "page", "--features", store)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "files" / "features.js").is_file()
    shutil.copytree(val, tmp_path / "copy")
    given = ("--features", store)
    one_line(uic("classes", "labels.csv", "copy", "--out", "p", *given), "another folder")
    assert not (tmp_path / "p").exists()
    atlas = ("export", "labels.csv", "--to", "embedding-atlas")
    one_line(uic(*atlas, "copy", "--out", "a", *given), "another folder")
    assert uic(*atlas, val, "--out", "a", *given).returncode == 0
