"""Which runs a comparison needs."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from uic_plugin.experiments.compare.budget import Budget, Length
from uic_plugin.experiments.compare.lengths import length_of_budget
from uic_plugin.experiments.compare.plan import (
    Entry,
    Setting,
    composed,
    entries_of,
    is_trained,
    plan_run,
    recipe_of,
)
from uic_plugin.hosts import find_host
from uic_plugin.recipes_path import TYPED_KEY, compose_recipe


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("epochs=20", "epochs", 20),
        ("views=200k", "views", 200_000),
        ("views=1.5M", "views", 1_500_000),
        ("views=2m", "views", 2_000_000),
        ("minutes=0.5", "minutes", 0.5),
    ],
)
def test_budget(text, kind, amount):
    assert Budget.parse(text) == Budget(kind, amount)


@pytest.mark.parametrize(
    "text", ["20", "steps=3", "epochs=", "epochs=1.5", "views=0", "views=2x", "minutes=10m"]
)
def test_impossible_budgets_are_named(text):
    with pytest.raises(ValueError, match="--budget"):
        Budget.parse(text)


@pytest.fixture
def setting(digits, tmp_path):
    def make(budget, *overrides):
        given = ("backbone.kwargs.width=8", "data.num_workers=0", *overrides)
        return Setting("digits", "small", Budget.parse(budget), tmp_path, given)

    return make


@pytest.mark.parametrize(
    ("method", "views"),
    [("uic", 1), ("deepcluster", 1), ("simclr", 2), ("byol", 2), ("rotnet", 4), ("supervised", 1)],
)
def test_all_methods_get_the_same_number_of_views(setting, method, views):
    epochs = length_of_budget(setting("views=112640"), Entry(method, method), 0).epochs
    assert epochs * views * 1408 == 112640  # 22 batches of 64 in an epoch


def test_two_views_of_uic_count_as_two(setting):
    entry = Entry("two views", "uic", ("method_kwargs.views=2",))
    assert length_of_budget(setting("views=112640"), entry, 0).epochs == 40


def test_the_same_configuration_is_one_run(setting):
    one = plan_run(setting("epochs=3"), Entry("uic", "uic"), 0, Length(3))
    base = plan_run(setting("epochs=3"), Entry("base", "uic"), 0, Length(3))
    other = plan_run(setting("epochs=3"), Entry("lr", "uic", ("optimizer.lr=0.3",)), 0, Length(3))
    assert one.folder == base.folder
    assert other.folder != base.folder
    assert plan_run(setting("epochs=3"), Entry("uic", "uic"), 1, Length(3)).folder.name == (
        one.folder.name.replace("seed0", "seed1")
    )
    assert [job.name.split()[0] for job in one.jobs] == ["train", "measure"]


def test_runs_of_the_walls_seconds_are_not_those_of_the_processors(digits, tmp_path, monkeypatch):
    def name(budget, workers, *overrides):
        given = (f"data.num_workers={workers}", *overrides)
        setting = Setting("digits", "small", Budget.parse(budget), tmp_path, given)
        length = Length(3, seconds=60 if budget.startswith("minutes") else None)
        run = plan_run(setting, Entry("simclr", "simclr"), 0, length)
        return run.folder.name, run.clock

    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)  # the training has one
    alone, with_workers = (name("minutes=1", count, "accelerator=cpu") for count in (0, 2))
    assert [alone[1], with_workers[1]] == ["cpu_", ""]
    assert alone[0] != with_workers[0]
    assert name("minutes=1", 3, "accelerator=cpu") == with_workers
    assert name("epochs=3", 0)[0] == name("epochs=3", 2)[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert name("minutes=1", 0) == name("minutes=1", 2)  # the wall's in both
    assert name("minutes=1", 0)[1] == ""


def test_runs_of_earlier_releases_keep_their_folders(digits, tmp_path):
    """The digest of what decides a training, with nothing that came later."""
    given = ("data.num_workers=0", "accelerator=cpu")
    setting = Setting("digits", "small", Budget("minutes", 1), tmp_path, given)
    entry = Entry("simclr", "simclr")
    run = plan_run(setting, entry, 0, Length(3, seconds=60))
    name, overrides, _ = composed(setting, entry, 0)
    cfg = compose_recipe(name, [*overrides, "max_epochs=3", "max_seconds=60", "snapshots=3"])
    content = OmegaConf.to_container(cfg, resolve=True)
    for key in ("name", "run_dir", "seed", "linear", "knn", "host", TYPED_KEY):
        content.pop(key)
    for key in ("num_workers", "held_out"):
        content["data"].pop(key)
    text = json.dumps(content, sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    assert run.folder.name == f"simclr-{digest}-seed0"


def test_recipes_of_methods():
    assert recipe_of("digits", "uic") == ("digits/uic", ())
    assert recipe_of("cifar10", "uic_paper") == ("cifar10/uic_paper", ())
    assert recipe_of("digits", "byol") == ("digits/any", ("methods=byol",))
    with pytest.raises(ValueError, match=r"unknown method 'bjol': one of .*byol"):
        recipe_of("digits", "bjol")
    with pytest.raises(ValueError, match="unknown method 'any'"):
        recipe_of("digits", "any")
    used = find_host().short_name
    other = "solo-learn" if used == "lightly" else "lightly"
    assert recipe_of("digits", f"{used}/byol") == recipe_of("digits", "byol")
    with pytest.raises(ValueError, match=f"^{other}/uic trains with {other}, and {used} is what"):
        recipe_of("digits", f"{other}/uic")


def test_a_folder_takes_the_recipes_of_custom(digits, tmp_path):
    setting = Setting(str(digits), "resnet18", Budget("epochs", 1), tmp_path)
    command = plan_run(setting, Entry("simclr", "simclr"), 0, Length(1)).jobs[0].command
    assert "custom/simclr" in command
    assert f"data.train_path={digits / 'train'}" in command
    assert "backbone.name=resnet18" in command
    missing = Setting(str(tmp_path / "none"), "small", Budget("epochs", 1), tmp_path)
    with pytest.raises(FileNotFoundError, match="none: no recipes of that name"):
        plan_run(missing, Entry("simclr", "simclr"), 0, Length(1))


def test_variants(tmp_path):
    file = tmp_path / "variants.yaml"
    file.write_text("K 300: {method: uic, overrides: {method_kwargs.num_pseudo_classes: 300}}\n")
    assert entries_of(["simclr"], file) == [
        Entry("simclr", "simclr"),
        Entry("K 300", "uic", ("method_kwargs.num_pseudo_classes=300",)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must map labels"),
        ("a: 3\n", "'a' must have a `method` and may have .*, got 3"),
        ("a: {methd: uic}\n", "'a' must have"),
        ("a: {overrides: {}}\n", "'a' must have"),
        ("a: {method: uic, overrides: [optimizer.lr=0.4]}\n", "mapping"),
        ("a: {method: uic, overrides: {seed: 4}}\n", "sets seed itself"),
        ("a: [\n", "is no YAML"),
        ("simclr: {method: simclr}\n", r"a label of its own, got \['simclr'\]"),
    ],
)
def test_broken_variants_are_named(tmp_path, text, message):
    file = tmp_path / "variants.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        entries_of(["simclr"], file)


def test_values_of_variants_reach_hydra(tmp_path):
    file = tmp_path / "variants.yaml"
    file.write_text(
        "a: {method: uic, overrides: {method_kwargs.fixed_labels: null, name: 'it (is), fine', "
        "method_kwargs.more_heads: [10, 20], method_kwargs.balanced_sampling: false}}\n"
    )
    (entry,) = entries_of([], file)
    cfg = compose_recipe("digits/uic", list(entry.overrides))
    assert cfg.method_kwargs.fixed_labels is None
    assert cfg.name == "it (is), fine"
    assert list(cfg.method_kwargs.more_heads) == [10, 20]
    assert cfg.method_kwargs.balanced_sampling is False


def test_views_that_whole_epochs_miss_are_told(setting):
    said = []
    entry = Entry("rotnet", "rotnet")
    length = length_of_budget(setting("views=1000"), entry, 0, said.append)
    assert length.epochs == 1
    assert said == ["rotnet: 1 whole epochs are 5,632 image views, not 1,000 image views"]


def test_budgets_are_printed_as_given():
    assert str(Budget.parse("minutes=0.5")) == "0.5 minutes"
    assert str(Budget.parse("views=200k")) == "200,000 image views"
    assert str(Budget.parse("epochs=1")) == "1 epoch"


def test_labels_are_needed():
    with pytest.raises(ValueError, match="no line at all"):
        entries_of([], None)


@pytest.mark.slow
def test_the_studys_file_is_one(setting):
    study = Path(__file__).parents[3] / "docs" / "results" / "study.yaml"
    for entry in entries_of([], study):
        plan_run(Setting("cifar10", "small", Budget("epochs", 2), Path("r")), entry, 0, Length(2))


@pytest.mark.parametrize("method", ["random", "solo-learn/random", "lightly/random"])
def test_an_untrained_network_has_no_length(method):
    assert not is_trained(Entry("anchor", method))
    assert is_trained(Entry("random views", "uic"))
