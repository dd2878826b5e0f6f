"""What a user types after a recipe's name: names that there are not, numbers that cannot be."""

import pytest
from omegaconf import OmegaConf

from uic_plugin.recipes_path import compose_recipe
from uic_plugin.runs.augmentation_checks import check_augmentations
from uic_plugin.runs.folder import find_resume
from uic_plugin.runs.settings import prepare_config
from uic_plugin.runs.unread import unread_settings


def composed(digits, *overrides, name="digits/demo"):
    return compose_recipe(name, [f"data.train_path={digits / 'train'}", *overrides])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("lr=0.1", r"no setting lr; did you mean optimizer.lr or linear.lr\?"),
        ("optimizer.momentum=0.9", r"did you mean optimizer.kwargs.momentum\?"),
        ("optimizer.batchsize=8", r"did you mean optimizer.kwargs.batchsize\?"),
        ("max_epoch=3", r"no setting max_epoch; did you mean max_epochs\?"),
    ],
)
def test_a_name_that_there_is_not(digits, override, says):
    with pytest.raises(ValueError, match=says):
        composed(digits, override)


def test_an_added_setting_that_nothing_reads():
    read = ["+gradient_clip_val=1", "+scheduler.lr_decay_steps=[3]", "++method_kwargs.typo=1"]
    read += ["momentum.base_tau=0.9", "max_epochs=3", "+optimizer.kwargs.nesterov=true"]
    assert unread_settings(read) == []
    typed = ["+bogus=3", "+scheduler.min_lrr=0.5", "+optimizer.momentum=0.5", "+bogus.more=1"]
    assert unread_settings(typed) == [
        "bogus",
        "scheduler.min_lrr",
        "optimizer.momentum",
        "bogus.more",
    ]


def test_an_added_setting_without_effect_is_said(digits):
    with pytest.warns(UserWarning, match="nothing reads bogus: it has no effect"):
        prepare_config(composed(digits, "+bogus=3"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("augmentations.0.mean=[0.5]", "augmentations.0.mean must be three numbers"),
        ("augmentations.0.std=[0.5,0,0.5]", "augmentations.0.std must be three numbers"),
        ("augmentations.0.crop_size=abc", "crop_size must be a whole number of at least 1"),
        ("augmentations.0.color_jitter.prob=7", "color_jitter.prob must be a number from 0 to 1"),
        ("augmentations.0.rrc.crop_min_scale=3", "crop_min_scale and crop_max_scale are shares"),
        ("augmentations.0.rrc.crop_min_scale=0", "above 0 and at most 1"),
        ("scheduler.name=step", r"add '\+scheduler.lr_decay_steps=\[60,80\]'"),
        ("data.no_labels=maybe", "data.no_labels must be true or false, got 'maybe'"),
        ("augmentations.0.grayscale=0.2", r"section of settings, got 0\.2: give .*\.prob="),
        ("augmentations.0.rrc=true", r"section of settings, got True: give .*\.crop_min_scale="),
        ("augmentations.0.num_crops=0", "num_crops must be a whole number of at least 1, got 0"),
        ("knn_eval=true", "knn_eval is a section of settings, got True"),
        ("optimizer.kwargs=null", r"optimizer\.kwargs is a section of settings, got None"),
        ("data=my/images", "data is a section of settings, got 'my/images'"),
        ("backbone.name=50", r"backbone\.name must be a network's name, .* got 50"),
        ("scheduler.warmup_epochs=ten", "warmup_epochs must be a number of at least 0, got 'ten'"),
        ("+scheduler.min_lr=low", "min_lr must be a number of at least 0, got 'low'"),
        ("+gradient_clip_val=abc", "gradient_clip_val must be a number of at least 0, got 'abc'"),
        ("rank_timeout=30m", "rank_timeout must be a number of at least 0, got '30m'"),
        ("+accumulate_grad_batches=0.5", "must be a whole number of at least 1, got 0.5"),
        ("+accumulate_grad_batches=0", "must be a whole number of at least 1, got 0"),
        ("+scheduler.lr_decay_steps=60", r"must be a list of epochs, as \[60,80\], got 60"),
    ],
)
def test_a_value_that_cannot_be(digits, override, says):
    with pytest.raises(ValueError, match=says):
        prepare_config(composed(digits, override))


@pytest.mark.parametrize("fraction", [0, 1, 2, -0.5])
def test_a_fraction_that_cannot_be(recipe, fraction):
    from uic_plugin.runs.datasets import pretrain_dataset

    cfg, source = prepare_config(recipe(f"data.fraction={fraction}"))
    with pytest.raises(ValueError, match="above 0 and below 1, or -1 for all"):
        pretrain_dataset(cfg, source)


def test_a_network_with_arguments(digits):
    cfg = composed(digits, "backbone=timm/resnet18", "backbone.kwargs.drop_path_rate=0.1")
    assert cfg.backbone == {"name": "timm/resnet18", "kwargs": {"drop_path_rate": 0.1}}
    assert composed(digits, "backbone=resnet18").backbone == {"name": "resnet18", "kwargs": {}}
    before = composed(digits, "backbone.kwargs.width=4", "backbone=resnet18")
    assert before.backbone.kwargs == {}
    kept = composed(digits, "backbone.name=conv4").backbone.kwargs
    assert kept == composed(digits).backbone.kwargs  # of the recipe


def test_labels_that_would_end_in_one_class(digits):
    with pytest.warns(UserWarning, match="end in one class for all images: set both to true"):
        prepare_config(composed(digits, "method_kwargs.label_source=bank"))


def test_a_run_folder_of_something_else_is_kept(digits, tmp_path):
    (tmp_path / "config.yaml").write_text("mine: true\n")
    cfg = composed(digits, f"run_dir={tmp_path}")
    with pytest.raises(FileExistsError, match=r"config\.yaml is there and of no run"):
        find_resume(cfg, tmp_path)
    (tmp_path / "config.yaml").write_text("hi")
    with pytest.raises(FileExistsError, match=r"config\.yaml is there and of no run"):
        find_resume(cfg, tmp_path)
    with pytest.raises(FileExistsError, match="is a file: give a folder"):
        find_resume(cfg, tmp_path / "config.yaml")


@pytest.mark.parametrize("labelled", [True, False])
def test_what_comes_next_is_possible(uic, digits, tmp_path, labelled):
    folder = digits / "train" if labelled else digits / "train" / "3"
    given = ("max_epochs=1", "data.num_workers=0", "optimizer.batch_size=16", "run_dir=run")
    done = uic(
        *("pretrain", "--no-page", "--config-name", "digits/uic", f"data.train_path={folder}"),
        *(*given, "method_kwargs.num_pseudo_classes=5", "data.val_path=null"),
    )
    assert done.returncode == 0, done.stderr
    assert ("Next: uic knn run" in done.stdout) == labelled
    assert ("Next: uic label run" in done.stdout) != labelled


def test_a_run_whose_second_pipeline_makes_nothing_opens_again():
    """`pretrain` writes `num_crops: 0` where a method has no use for a pipeline."""
    counts = (1, 0, 0)
    pipelines = OmegaConf.create([{"crop_size": 8, "num_crops": count} for count in counts])
    check_augmentations(pipelines)
    pipelines[2].num_crops = -1
    with pytest.raises(ValueError, match=r"augmentations\.2\.num_crops .* at least 0, got -1"):
        check_augmentations(pipelines)
