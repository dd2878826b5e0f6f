"""Every packaged recipe composes, builds its method, and says in its header what it is."""

import re
from pathlib import Path

import pytest
import torch
from host_lines import answers

from uic_plugin.hosts import load_host, register
from uic_plugin.recipes_path import compose_recipe, list_recipes, path_override, recipes_dir

RECIPES = list_recipes()
NEEDED = {"alexnet_finetune": ["weights=run/last.ckpt", "method_kwargs.fixed_labels=labels.csv"]}


def test_all_datasets_and_methods_have_one():
    for dataset in ("digits", "cifar10", "imagenet100", "imagenet"):
        for method in ("uic", "simclr", "mocov2plus"):
            assert f"{dataset}/{method}" in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name):
    from uic_plugin.hosts.foreign import set_views
    from uic_plugin.runs.settings import build_method

    register()
    cfg = compose_recipe(name, NEEDED.get(name.partition("/")[2], []))
    assert cfg.method in load_host().METHODS
    cfg.data.num_classes = 10
    if cfg.method == "uic":
        set_views(cfg.augmentations, 1)
    method = build_method(cfg)
    size = cfg.augmentations[0].crop_size
    with torch.no_grad():
        features, logits = answers(method.eval(), torch.zeros(1, 3, size, size))
    assert features.shape[0] == 1
    if cfg.method == "uic":
        sizes = [cfg.method_kwargs.num_pseudo_classes, *cfg.method_kwargs.more_heads]
        assert logits.shape == (1, sum(sizes))


@pytest.mark.parametrize("name", RECIPES)
def test_header_says_what_to_expect(name):
    text = (recipes_dir() / f"{name}.yaml").read_text()
    header = text[: text.index("defaults:")]
    assert f"uic pretrain --config-name {name}" in header
    for word in ("Reproduces:", "Hardware:", "Expect:"):
        assert word in header, word


@pytest.mark.parametrize("folder", ["läufe", "a (1)", "x=y", "two words", "it's", "plain"])
def test_paths_are_read_as_they_are_typed(tmp_path, folder):
    assert compose_recipe("digits/uic", [f"run_dir={folder}/one"]).run_dir == f"{folder}/one"
    path = Path(folder, "a,b")
    assert compose_recipe("digits/uic", [path_override("run_dir", path)]).run_dir == str(path)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "mine.yaml").write_text("defaults:\n  - /digits/uic\nname: mine\n")
    assert compose_recipe("mine", [], tmp_path / folder).method == "uic"


def test_own_folder_of_recipes(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - /digits/uic\n  - _self_\nname: mine\noptimizer:\n  lr: 0.7\n"
    )
    cfg = compose_recipe("mine", ["max_epochs=3"], tmp_path)
    assert (cfg.name, cfg.optimizer.lr, cfg.max_epochs) == ("mine", 0.7, 3)
    assert cfg.method == "uic"
    assert compose_recipe("digits/uic", [], tmp_path).name == "digits-uic"


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_as_in_another_recipe_is_so(name):
    """A comment `key: value  # as in RECIPE` holds."""
    path = recipes_dir() / f"{name}.yaml"
    for line in path.read_text().splitlines():
        match = re.fullmatch(r"\s+(\w+): (\S+)\s+# as in ([\w/]+)", line)
        if match and match[3] in RECIPES:
            other = (recipes_dir() / f"{match[3]}.yaml").read_text()
            assert re.search(rf"^\s+{match[1]}: {match[2]}\s", other, re.M), line


def test_the_released_setting_has_what_the_released_code_has():
    cfg = compose_recipe("imagenet/resnet50_released", [])
    assert (cfg.precision, cfg.sync_batchnorm) == (32, False)
