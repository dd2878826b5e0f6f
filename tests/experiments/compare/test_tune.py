"""The settings that every method gets, who judges them, and what a budget of minutes buys."""

import csv
import dataclasses
import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from uic_plugin.experiments.compare.budget import Budget, Costs, Length, costs_of, length_within
from uic_plugin.experiments.compare.comparison import compare
from uic_plugin.experiments.compare.lengths import calibration
from uic_plugin.experiments.compare.plan import Entry, Setting, plan_run
from uic_plugin.experiments.compare.stages import plan_trials
from uic_plugin.experiments.compare.tune import draw_settings, trials_of, tuning_seed
from uic_plugin.recipes_path import recipe_grid, recipes_dir

GRID = {"lr": [0.1, 0.2, 0.4, 0.8], "batch": [64, 256], "T": [0.1, 0.2]}
OWN = {"lr": 0.1, "batch": 256, "T": 0.2}
METHODS = sorted(path.stem for path in (recipes_dir() / "methods").glob("*.yaml"))


def test_the_recipes_own_setting_is_the_first_and_few_settings_show_all_values():
    drawn = draw_settings(GRID, OWN, 4)
    assert dict(drawn[0]) == OWN
    for option, values in GRID.items():
        assert {dict(point)[option] for point in drawn} == set(values)
    assert Counter(dict(point)["batch"] for point in drawn) == {64: 2, 256: 2}


@given(count=st.integers(1, 16), own=st.sampled_from([OWN, {"lr": 0.3, "batch": 32, "T": 1.0}]))
def test_no_setting_is_drawn_twice_and_more_begin_with_the_same(count, own):
    drawn = draw_settings(GRID, own, count)
    assert len(drawn) == len(set(drawn)) == count
    assert drawn == draw_settings(GRID, own, 16)[:count]
    points = set(itertools.product(*GRID.values()))
    assert all(tuple(dict(point).values()) in points for point in drawn[1:])


def test_too_small_a_grid_is_told():
    with pytest.raises(ValueError, match=r"grid of 16 settings is smaller than --tune 17"):
        draw_settings(GRID, OWN, 17)
    with pytest.raises(ValueError, match="it has no option"):
        draw_settings({}, {}, 2)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "random"])
def test_every_method_has_a_grid_with_batches_of_64(method):
    grid = recipe_grid("cifar10/any", [f"methods={method}"])
    assert 64 in grid["optimizer.batch_size"]
    assert len(list(itertools.product(*grid.values()))) >= 8


def test_recipes_of_the_papers_uic_have_no_temperature_to_tune():
    assert sorted(recipe_grid("cifar10/uic_paper", [])) == [
        "method_kwargs.num_pseudo_classes", "optimizer.batch_size", "optimizer.lr",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["cifar10/selflabel", "imagenette/uic", "digits/simclr"])
def test_recipes_of_a_method_have_its_grid(name):
    assert "optimizer.lr" in recipe_grid(name, [])


def test_broken_grids_are_told(tmp_path, monkeypatch):
    for override, message in (
        ("++tune=3", "`tune` must map options to lists"),
        ("++tune.optimizer=3", "`tune` must have a list of values for optimizer, got 3"),
        ("++tune.max_epoch=[3]", "max_epoch of its `tune` block is no setting of it"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe_grid("digits/uic", [override])


def test_no_reported_seed_judges():
    assert tuning_seed([0, 1, 2]) == 1000
    assert tuning_seed([1000, 1001]) == 1002


def test_what_the_command_line_sets_is_not_tuned(digits, tmp_path):
    setting = Setting("digits", "small", Budget("epochs", 4), tmp_path, ("optimizer.lr=0.3",))
    trials = trials_of(setting, Entry("simclr", "simclr"), 3, 1000)
    assert trials[0].setting == "as in the recipe"
    assert all("optimizer.lr" not in trial.setting for trial in trials)
    with pytest.raises(ValueError, match="simclr: the grid of 6 settings"):
        trials_of(setting, Entry("simclr", "simclr"), 7, 1000)


def test_trials_train_and_are_judged_on_training_images(digits, tmp_path):
    setting = Setting("digits", "small", Budget("epochs", 4), tmp_path)
    setting, _ = plan_trials(setting, [Entry("uic", "uic")], 2, [0])
    assert setting.budget == Budget("epochs", 1)
    train, measure = plan_run(setting, Entry("uic", "uic"), 1000, Length(1)).jobs
    assert "data.held_out=0.1" in train.arguments
    assert "--knn-only" in measure.arguments
    assert not any(argument.startswith("snapshots") for argument in train.arguments)


def test_images_that_choose_settings_are_not_reported_on(digits, tmp_path):
    budget = Budget("epochs", 4)
    setting = Setting("digits", "small", budget, tmp_path, held_out=0.2)
    lines = [Entry("uic", "uic")]
    says = r"--tune 2 with --held-out 0\.2: .* choose the settings and judge the winner; leave out"
    with pytest.raises(ValueError, match=says):
        plan_trials(setting, lines, 2, [0])
    with pytest.raises(ValueError, match=says):
        compare(setting, lines, [0], trials=2, console=Console(), dry_run=True)


def test_a_quarter_of_a_budget():
    assert Budget.parse("epochs=20").scaled(0.25) == Budget("epochs", 5)
    assert Budget.parse("epochs=1").scaled(0.25) == Budget("epochs", 1)
    assert Budget.parse("minutes=2").scaled(0.25) == Budget("minutes", 0.5)


def test_costs_and_epochs_by_hand():
    rows = [
        {"seconds": "15", "step_seconds": "0.5", "steps": "10"},  # 10 of them the first labels
        {"seconds": "8", "step_seconds": "0.6", "steps": "10"},
        {"seconds": "7", "step_seconds": "0.5", "steps": "10"},
    ]
    costs = costs_of(rows, "")
    assert costs == Costs(once=8.0, epoch=2.0, step=0.5)
    assert costs.seconds(3, 10) == 8 + 3 * (2 + 5)
    assert costs.of_images(2) == Costs(16.0, 4.0, 0.5)
    # 60 - 8 seconds are 2.36 epochs of 40 steps; two epochs could not be cut to them
    assert length_within(60, costs, 40) == Length(3, by_step=True, seconds=60)
    assert length_within(20, costs, 40).epochs == 2
    with pytest.raises(ValueError, match="5 seconds are not enough"):
        length_within(5, costs, 40)
    with pytest.raises(ValueError, match="too few to time one"):
        costs_of([{**rows[0], "step_seconds": "0"}, rows[1]], "")


def test_settings_that_cost_the_same_are_timed_once(digits, tmp_path):
    setting = Setting("digits", "small", Budget("minutes", 1), tmp_path)

    def name(*overrides, held_out=0.0):
        used = Setting("digits", "small", Budget("minutes", 1), tmp_path, held_out=held_out)
        return calibration(used, Entry("simclr", "simclr", overrides)).name

    own = calibration(setting, Entry("simclr", "simclr")).name
    assert name("optimizer.lr=0.8", "method_kwargs.temperature=0.5", held_out=0.1) == own
    assert name("optimizer.batch_size=128") != own
    with_workers = name("data.num_workers=2")  # which change what a step takes
    assert len({own, with_workers, name("data.num_workers=3")}) == 3


def test_a_folder_without_test_images_is_timed(digits, tmp_path):
    (tmp_path / "train").symlink_to(digits / "train")
    few = ("backbone.name=conv4", "augmentations.0.crop_size=16", "data.num_workers=0")
    setting = Setting(str(tmp_path), "small", Budget("minutes", 1), tmp_path, few, held_out=0.2)
    job = calibration(setting, Entry("simclr", "simclr"))
    assert not any("held_out" in argument or "val_path" in argument for argument in job.arguments)
    with pytest.raises(FileNotFoundError, match=r"--held-out 0\.1 does without val/"):
        calibration(dataclasses.replace(setting, held_out=0.0), Entry("simclr", "simclr"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("budget", ["epochs=4", "minutes=0.3"])
def test_a_tuned_comparison_is_cached_and_tells_its_trials(uic, tmp_path, digits, budget):
    command = [
        "compare", "--data", "digits", "--methods", "uic,simclr,random", "--budget", budget,
        "--tune", "2", "--clusters", "20", "--out", "out", "linear.max_epochs=2",
        "backbone.kwargs.width=4", "data.num_workers=0", "accelerator=cpu", "precision=32",
    ]  # fmt: skip
    done = uic(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    trials = rows_of(out / "trials.csv")
    assert [(row["label"], row["trial"]) for row in trials] == [
        ("uic", "0"), ("uic", "1"), ("simclr", "0"), ("simclr", "1"),
    ]  # fmt: skip
    assert {row["seed"] for row in trials} == {"1000"}
    for label in ("uic", "simclr"):
        own = [row for row in trials if row["label"] == label]
        (chosen,) = [row for row in own if row["chosen"] == "True"]
        assert float(chosen["knn"]) == max(float(row["knn"]) for row in own)
        (run,) = [row for row in rows_of(out / "runs.csv") if row["label"] == label]
        assert run["setting"] == ("" if chosen["trial"] == "0" else chosen["setting"])
    assert "Settings that were tried" in (out / "index.html").read_text()
    epochs = [row for row in rows_of(out / "epochs.csv") if row["label"] == "uic"]
    assert all(0 < float(row["coverage"]) <= 1 for row in epochs)
    assert all(0 <= float(row["changed"]) <= 1 for row in epochs)
    if budget.startswith("minutes"):
        (steady,) = rows_of(out / "steadiness.csv")
        assert float(steady["views_per_second_ratio"]) > 0
        assert "views a second" in (out / "index.html").read_text()
    before = json.loads(next((tmp_path / "runs").glob("*/*/simclr-*/train.done.json")).read_text())
    again = uic(*command)
    assert again.returncode == 0
    assert "[1/" not in again.stdout  # nothing ran
    files = (tmp_path / "runs").glob("*/*/simclr-*/train.done.json")
    assert before in [json.loads(path.read_text()) for path in files]


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
