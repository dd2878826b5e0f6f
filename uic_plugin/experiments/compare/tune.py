"""`uic compare --tune N`: the same number of settings for every method, and which of them is best.

A recipe's `tune` block says which options a method is tuned in, and their values. N settings are
drawn of this grid: the recipe's own first, then those whose values were used least so far, so that
a few settings already show every value; ties are broken by a seeded order. More settings begin with
the same ones, so that what is trained stays of use.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from uic_plugin.experiments.compare.plan import Entry, PlannedRun, Setting, composed
from uic_plugin.recipes_path import recipe_grid, typed_value
from uic_plugin.seeding import derive_seed

SHARE = 0.25  # of the budget that a trial gets
HELD_OUT = 0.1  # share of the training images that judges it
_FIRST_SEED = 1000

Grid = Mapping[str, Sequence[Any]]
Drawn = tuple[tuple[str, Any], ...]  # option and value


@dataclass(frozen=True)
class Trial:
    """One setting of one line of a comparison.

    Attributes:
        line: the line that it belongs to.
        number: 0 for the recipe's own setting.
        entry: the line with this setting.
    """

    line: Entry
    number: int
    entry: Entry

    @property
    def setting(self) -> str:
        """Return the overrides that make it, with spaces; those that differ from the recipe's."""
        return " ".join(self.entry.overrides[len(self.line.overrides) :]) or "as in the recipe"


def tuning_seed(seeds: Sequence[int]) -> int:
    """Return the seed of the trials: none of those that are reported."""
    return next(seed for seed in itertools.count(_FIRST_SEED) if seed not in seeds)


def draw_settings(grid: Grid, own: Mapping[str, Any], count: int) -> list[Drawn]:
    """Return different settings of a grid, the recipe's own first.

    Args:
        grid: option to its values.
        own: option to the recipe's own value, which need not be in the grid.
        count: how many.

    Returns:
        `count` settings: each has a value for every option.

    Raises:
        ValueError: if the grid has fewer points.
    """
    options = list(grid)
    first: Drawn = tuple((option, own[option]) for option in options)
    points = [
        tuple(zip(options, values, strict=True))
        for values in itertools.product(*(grid[option] for option in options))
    ]
    rest = [point for point in points if _key(point) != _key(first)]
    if len(rest) + 1 < count:
        raise ValueError(
            f"the grid of {len(points)} settings is smaller than --tune {count}: add values to the "
            f"recipe's `tune` block ({', '.join(options) or 'it has no option'}), or lower --tune"
        )
    generator = np.random.default_rng(derive_seed(0, "settings to tune", len(options)))
    rest = [rest[number] for number in generator.permutation(len(rest))]
    drawn, used = [first], Counter(map(_key, first))
    while len(drawn) < count:
        best = min(rest, key=lambda point: sum(used[_key(part)] for part in point))
        rest.remove(best)
        drawn.append(best)
        used.update(map(_key, best))
    return drawn


def _key(part: Any) -> str:
    """Return a value that is equal for equal settings: 1 and 1.0 are."""
    return json.dumps(part, sort_keys=True, default=str).replace(".0]", "]")


def trials_of(setting: Setting, entry: Entry, count: int, seed: int) -> list[Trial]:
    """Return the settings of one line that are tried.

    Options that the command line or the line's own overrides set are not tuned.

    Raises:
        ValueError: for a method without a grid, a wrong grid, or one of too few settings.
    """
    name, overrides, cfg = composed(setting, entry, seed)
    given = {o.lstrip("+~").partition("=")[0] for o in (*setting.overrides, *entry.overrides)}
    grid = recipe_grid(name, overrides)
    free = {option: values for option, values in grid.items() if option not in given}
    own = {option: OmegaConf.select(cfg, option) for option in free}
    plain = {
        option: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for option, value in own.items()
    }
    try:
        drawn = draw_settings(free, plain, count)
    except ValueError as error:
        raise ValueError(f"{entry.label}: {error}") from error
    trials = []
    for number, point in enumerate(drawn):
        changed = tuple(f"{option}={typed_value(value)}" for option, value in point if number)
        tried = Entry(entry.label, entry.method, (*entry.overrides, *changed))
        trials.append(Trial(entry, number, tried))
    return trials


def judged(run: PlannedRun) -> float | None:
    """Return the k-NN accuracy of a trial on the held-out images, None if it has failed."""
    path: Path = run.folder / "measures.json"
    if not path.exists() or not run.jobs[1].is_done():
        return None
    return float(json.loads(path.read_text())["knn"])


def best_trial(trials: Sequence[Trial], runs: Mapping[Trial, PlannedRun]) -> Trial | None:
    """Return the trial of the highest accuracy, the first of equals; None if all have failed."""
    found = {t: judged(runs[t]) for t in trials if t in runs}
    good = {trial: value for trial, value in found.items() if value is not None}
    return max(good, key=lambda trial: (good[trial], -trial.number)) if good else None
