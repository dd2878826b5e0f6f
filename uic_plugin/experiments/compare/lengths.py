"""How long the runs of a comparison are: what a budget buys each of them.

A budget of minutes needs to know what a step and an epoch of the very setting cost on this machine:
a calibration, a run of a few short epochs, says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from uic_plugin.experiments.compare.budget import Length, costs_of, length_within
from uic_plugin.experiments.compare.digest import clock_of, settings_digest
from uic_plugin.experiments.compare.plan import (
    Entry,
    Setting,
    composed,
    training_job,
)
from uic_plugin.experiments.jobs import Job
from uic_plugin.recipes_path import compose_recipe, path_override
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.folder import COST_FILE, HISTORY_FILE

if TYPE_CHECKING:
    from uic_plugin.data.resolve import DataSource

_CALIBRATION_EPOCHS = 2  # the first also pays for start-up and first labels
_CALIBRATION_IMAGES = 640  # of each of them; a run ends with its seconds, so that is enough
# settings that change nothing of what a step takes: their calibration is the same
_COSTS_NOTHING = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "momentum.base_tau",
    "method_kwargs.temperature",
    "method_kwargs.lamb",
)


def length_of_budget(
    setting: Setting, entry: Entry, seed: int, say: Callable[[str], None] = lambda text: None
) -> Length | None:
    """Return the length that a budget of epochs or views buys; None for a budget of minutes.

    Args:
        setting: with the budget.
        entry: of the comparison.
        seed: of the run.
        say: called with a message if whole epochs miss a budget of views by more than a tenth.
    """
    from uic_plugin.runs.settings import prepare_config, views_per_image

    budget = setting.budget
    if budget.kind == "epochs":
        return Length(int(budget.amount), by_step=setting.by_step)
    if budget.kind == "minutes":
        return None
    cfg, source = prepare_config(composed(setting, entry, seed)[2])
    per_epoch = _batches(cfg, source)[0] * cfg.optimizer.batch_size * views_per_image(cfg)
    epochs = max(1, round(budget.amount / per_epoch))
    if not 0.9 <= epochs * per_epoch / budget.amount <= 1.1:
        say(
            f"{entry.label}: {epochs} whole epochs are {epochs * per_epoch:,} image views, not "
            f"{budget}"
        )
    return Length(epochs, by_step=setting.by_step)


def _batches(cfg: DictConfig, source: DataSource) -> tuple[int, int]:
    """Return the batches of an epoch of a prepared recipe, and the number of its images."""
    from uic_plugin.runs.datasets import pretrain_loader

    loader = pretrain_loader(cfg, source)
    return len(loader), len(loader.dataset)  # type: ignore[arg-type]


def calibration(setting: Setting, entry: Entry) -> Job:
    """Return the short run that says what a step and an epoch of this setting cost.

    Settings that differ only in numbers that cost no time share one, and trials have that of all
    training images.
    """
    from uic_plugin.runs.settings import prepare_config

    name, overrides, _ = composed(setting, entry, 0)
    overrides = [o for o in overrides if not o.startswith("data.held_out=")]
    cfg = compose_recipe(name, overrides)
    digest = settings_digest(cfg, without=_COSTS_NOTHING)
    folder = setting.folder / f"calibration-{cfg.method}-{digest}-jobs{setting.parallel}"
    if cfg.data.num_workers:  # no part of the digest, and they change what a step takes
        folder = folder.with_name(f"{folder.name}-workers{cfg.data.num_workers}")
    few = max(6, -(-_CALIBRATION_IMAGES // cfg.optimizer.batch_size))
    batches = min(few, _batches(*prepare_config(cfg))[0])
    length = Length(_CALIBRATION_EPOCHS, batches, by_step=True)
    return training_job(
        name, (*overrides, *length.overrides, path_override("run_dir", folder)), folder
    )


def length_of_minutes(setting: Setting, entry: Entry) -> Length:
    """Return the epochs that fit into the minutes, by the calibration.

    Raises:
        ValueError: if not even two short epochs fit.
    """
    from uic_plugin.runs.settings import prepare_config

    cfg, source = prepare_config(composed(setting, entry, 0)[2])
    folder = calibration(setting, entry).folder
    cost = json.loads((folder / COST_FILE).read_text())
    batches, images = _batches(cfg, source)
    try:
        costs = costs_of(read_csv(folder / HISTORY_FILE), clock_of(cfg))
        costs = costs.of_images(images / cost["images"])
        return length_within(60 * setting.budget.amount, costs, batches)
    except ValueError as error:
        raise ValueError(f"{entry.label}, {setting.budget}: {error}") from error
