"""Mistakes with labels, weights and probes: one clear line each."""

import pytest
import torch
import yaml
from runs.test_bad_input import one_line

from uic_plugin.networks import Conv4
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import CHECKPOINT_FILE
from uic_plugin.runs.training import pretrain

QUIET = EpochReporter("test")


SMALL = ("max_epochs=1", "data.num_workers=0", "accelerator=cpu", "data.fraction=0.5")


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    """An epoch of a small network; a test writes nothing into its folder but results."""
    folder = tmp_path_factory.mktemp("stage_errors") / "run"
    settings = [*SMALL, f"run_dir={folder}", "backbone.kwargs.width=8"]
    pretrain(compose_recipe("digits/uic", settings), reporter=QUIET)
    return folder


@pytest.fixture
def again(uic, tmp_path):
    """Starts another run of the same recipe with overrides."""

    def start(*overrides):
        settings = [*SMALL, f"run_dir={tmp_path / 'again'}"]
        if not any("backbone" in override for override in overrides):
            settings.append("backbone.kwargs.width=8")
        return uic("pretrain", "--config-name", "digits/uic", *settings, *overrides)

    return start


def test_wrong_layer(uic, run):
    one_line(
        uic("probe", run, "--layers", "conv1,conv7"),
        "unknown layer 'conv7': this network has conv1, conv2, conv3, conv4, features",
    )
    one_line(uic("probe", run, "--layers", "fc6"), "unknown layer 'fc6'")


def test_wrong_numbers(uic, run):
    one_line(uic("probe", run, "--epochs", "0"), "epochs must be at least 1, got 0")
    one_line(uic("probe", run, "--crops", "3"), "crops must be 1 or 10, got 3")
    one_line(uic("probe", run, "--lr-decay-epochs", "1;2"), "--lr-decay-epochs must be whole")
    one_line(uic("probe", run, "--resize", "4"), "--resize 4 leaves no crop of 16 pixels")


def test_images_smaller_than_the_crop(uic, run):
    one_line(
        uic("probe", run, "--image-size", "24"),
        "has 8x8 pixels, less than the crop of 24: --resize 27 enlarges",
    )
    done = uic(
        "probe", run, "--image-size", "24", "--resize", "27", "--epochs", "1", "--crops", "1"
    )
    assert done.returncode == 0, done.stderr


def test_class_folder_missing_in_val(uic, run, digits, tmp_path):
    import shutil

    shutil.copytree(digits, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val" / "7")
    one_line(uic("probe", run, tmp_path / "data"), "the class folders of", "differ (7)")
    shutil.rmtree(tmp_path / "data" / "val")
    one_line(uic("probe", run, tmp_path / "data"), "data.val_path=", "no such folder")


def test_checkpoint_of_another_network(again, run, tmp_path, digits32):
    one_line(
        again(
            f"weights={run / CHECKPOINT_FILE}",
            "backbone.name=alexnet",
            "backbone.kwargs.image_size=32",
            "augmentations.0.crop_size=32",
        ),
        "no weight in",
        "fits this AlexNet",
        "the network wants features.0.weight",
    )
    one_line(again(f"weights={tmp_path / 'none.ckpt'}"), "no such file of weights")


def test_weights_that_lack_a_part(again, tmp_path):
    network = Conv4(8)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("conv4")}
    torch.save(state, tmp_path / "part.pth")
    weights = f"weights={tmp_path / 'part.pth'}"
    one_line(again(weights), "weights are not in the file: conv4.0.weight", "allow_missing")
    done = again(weights, "weights_allow_missing=['conv4.*']")
    assert done.returncode == 0
    assert "warning: " in done.stderr
    assert "weights are not in the file: conv4.0.weight" in done.stderr


def test_other_number_of_pseudo_classes(again, run):
    one_line(
        again(f"weights={run / CHECKPOINT_FILE}", "method_kwargs.num_pseudo_classes=20"),
        "has 30 pseudo classes, this run has 20: set method_kwargs.num_pseudo_classes=30",
    )
    one_line(  # as many outputs, of other classifiers
        again(
            f"weights={run / CHECKPOINT_FILE}",
            "method_kwargs.num_pseudo_classes=15",
            "method_kwargs.heads=2",
        ),
        "has 30 pseudo classes, this run has 15, 15: set method_kwargs.num_pseudo_classes=30 "
        "method_kwargs.heads=1 method_kwargs.more_heads=[]",
    )
    one_line(
        again(
            f"resume_from_checkpoint={run / CHECKPOINT_FILE}",
            "max_epochs=2",
            "scheduler.name=none",
            "method_kwargs.heads=2",
        ),
        "labels of heads of 30 pseudo classes, this run has 30, 30",
    )
    one_line(again("seed=1.5"), "seed must be a whole number of at least 0, got 1.5")
    one_line(again("devices=1.5"), "devices must be a number, a list or auto, got 1.5")
    one_line(again("data.fraction=half"), "data.fraction must be a number below 1")
    one_line(
        again(f"weights={run / CHECKPOINT_FILE}", "method_kwargs.head=linear"),
        "is of another kind than this run's linear",
    )
    one_line(
        again(
            f"resume_from_checkpoint={run / CHECKPOINT_FILE}",
            "max_epochs=2",
            "scheduler.name=none",
            "method_kwargs.num_pseudo_classes=20",
        ),
        "pseudo classes",
    )


def test_labels(again, uic, run, tmp_path, digits32):
    one_line(again(f"method_kwargs.fixed_labels={tmp_path / 'no.csv'}"), "no such label file")
    done = uic("label", run, digits32 / "val", "--out", tmp_path / "other.csv")
    assert done.returncode == 0, done.stderr
    one_line(
        again(f"method_kwargs.fixed_labels={tmp_path / 'other.csv'}"),
        "are of other images: 721 of the 721 images have no label",
        "of the 178 labels have no image",
    )
    done = uic("label", run, "--out", tmp_path / "own.csv")
    assert done.returncode == 0, done.stderr
    one_line(
        again(
            f"method_kwargs.fixed_labels={tmp_path / 'own.csv'}",
            "method_kwargs.num_pseudo_classes=3",
        ),
        "this run has 3 pseudo classes: set method_kwargs.num_pseudo_classes",
    )
    one_line(again("method_kwargs.label_view=middle"), "label_view must be one of")
    one_line(
        again("method_kwargs.label_view=center", "method_kwargs.views=2"),
        "label_view=center and views=2 are two ways to the labels",
    )
    one_line(uic("label", run, "--out", tmp_path / "x.txt"), "ends in .parquet or .csv")
    one_line(uic("label", run, tmp_path / "none", "--out", tmp_path / "x.csv"), "no such folder")
    one_line(uic("label", run, "--out", tmp_path / "x.csv", "--view", "left"), "--view must be")
    one_line(uic("label", run, "--out", tmp_path / "x.csv", "--mode", "test"), "--mode must be")


def test_labels_need_pseudo_classes(uic, recipe, tmp_path):
    cfg = recipe("max_epochs=1", name="digits/simclr")
    pretrain(cfg, reporter=QUIET)
    one_line(
        uic("label", cfg.run_dir, "--out", tmp_path / "x.csv"),
        "simclr has no pseudo classes to label images with",
    )


def test_recipe_that_needs_something(uic):
    one_line(
        uic("pretrain", "--config-name", "small/alexnet_finetune"),
        "leaves weights, method_kwargs.fixed_labels open: set it",
    )


def test_unknown_networks(again):
    one_line(again("backbone.name=timm/resnet500"), "no network of timm", "timm/resnet50")
    one_line(again("backbone.name=alexnett"), "unknown backbone.name", "alexnet", "or timm/NAME")
    one_line(
        again("backbone.name=alexnet"),
        "images of 16 pixels do not go through this AlexNet",
        "backbone.kwargs.image_size=16",
    )
    one_line(
        again("backbone.name=alexnet", "backbone.kwargs.depth=3"),
        "does not take an option of the recipe",
    )
    one_line(again("scheduler.name=linear", "scheduler.warmup_epochs=9"), "warmup_epochs must be")


def test_classes_of_a_label_file(uic, run, digits, tmp_path):
    assert uic("label", run, digits / "train", "--out", tmp_path / "l.csv").returncode == 0
    done = uic("classes", tmp_path / "l.csv", digits / "train", "--out", tmp_path / "classes")
    assert done.returncode == 0, done.stderr
    for word in ("nmi_arithmetic", "nmi_geometric", "adjusted_rand", "purity", "largest class"):
        assert word in done.stdout
    names = {path.name for path in (tmp_path / "classes").iterdir()}
    figures = {"classes.csv", "class_sizes.png", "classes.png"}
    assert names == {*figures, "index.html", "files"}
    one_line(uic("classes", tmp_path / "l.csv", digits / "val"), "images of", "are not in")
    one_line(uic("classes", tmp_path / "none.csv", digits), "no such label file")


def test_weights_for_others(uic, run, tmp_path):
    done = uic("weights", run, "--out", tmp_path / "conv4.safetensors")
    assert done.returncode == 0, done.stderr
    from uic_plugin.networks.weights import load_weights

    assert not load_weights(Conv4(8), tmp_path / "conv4.safetensors").missing
    one_line(uic("weights", run, "--out", tmp_path / "x.pth", "--layout", "jax"), "layout must be")


@pytest.mark.parametrize("method", ["uic", "simclr", "mocov2plus"])
@pytest.mark.parametrize(
    ("network", "kwargs"),
    [
        ("alexnet", "{image_size: 32, width: 0.05, fc_width: 16}"),
        ("vgg16", "{image_size: 32, width: 0.05, fc_width: 16}"),
        ("timm/resnet10t", "{}"),
    ],
)
def test_every_method_takes_every_network(small, tmp_path, method, network, kwargs):
    name = "small/alexnet_3k" if method == "uic" else f"cifar10/{method}"
    cfg = compose_recipe(
        name,
        [
            *small[:-2],
            "max_epochs=1",
            f"run_dir={tmp_path / 'run'}",
            "+limit_train_batches=2",
            "optimizer.batch_size=16",
            f"backbone.name={network}",
        ],
    )
    cfg.backbone.kwargs = yaml.safe_load(kwargs)
    pretrain(cfg, reporter=QUIET)
    assert (tmp_path / "run" / CHECKPOINT_FILE).exists()


def test_numbers_that_cannot_be(again):
    one_line(again("scheduler.interval=steps"), "scheduler.interval must be epoch or step")
    one_line(
        again("backbone.name=alexnet", "backbone.kwargs.fc_width=-4"),
        "fc_width must be a whole number of at least 0, got -4",
    )
