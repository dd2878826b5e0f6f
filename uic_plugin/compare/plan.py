"""Which runs a comparison needs, and the commands that make them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from uic_plugin.jobs import Job
from uic_plugin.recipes_path import TYPED_KEY, compose_recipe, list_recipes, recipes_dir
from uic_plugin.report.tables import read_csv

SNAPSHOTS = 5
_CALIBRATION_EPOCHS = 2  # the first also pays for start-up


@dataclass(frozen=True)
class Budget:
    """What all methods may spend alike.

    Attributes:
        kind: "epochs", passes over the images; "views", of images that pass through the network in
            training; "minutes", of training on this machine.
        amount: of it, for each run.
    """

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget as one types it: `epochs=20`, `views=200k`, `minutes=10`.

        Raises:
            ValueError: for anything else.
        """
        match = re.fullmatch(r"(epochs|views|minutes)=(\d+(?:\.\d+)?)([kM]?)", text)
        if not match:
            raise ValueError(
                f"--budget must be epochs=20, views=200k or minutes=10, say; got {text!r}"
            )
        kind, number, unit = match.groups()
        amount = float(number) * {"": 1, "k": 1_000, "M": 1_000_000}[unit]
        if amount <= 0 or (kind == "epochs" and amount != int(amount)):
            raise ValueError(f"--budget {text}: {kind} must be a whole number above 0")
        return cls(kind, amount)

    def __str__(self) -> str:
        return f"{self.amount:,.0f} {'image views' if self.kind == 'views' else self.kind}"


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes:
        label: its name.
        method: of the host or of this plugin.
        overrides: of its recipe.
    """

    label: str
    method: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """What all runs share.

    Attributes:
        data: a family of recipes (cifar10), or a folder with train/ and val/.
        network: "small", the recipes' own; else a `backbone.name`.
        budget: of each run.
        overrides: of every recipe.
        root: folder of the runs.
        clusters: of k-means, see `measure_run`.
        layers: to probe, none unless asked.
    """

    data: str
    network: str
    budget: Budget
    root: Path
    overrides: tuple[str, ...] = ()
    clusters: int = 100
    layers: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """Of the recipes."""
        return self.data if (recipes_dir() / self.data / "any.yaml").is_file() else "custom"

    @property
    def folder(self) -> Path:
        """Of this comparison's runs."""
        network = self.network.replace("/", "-")
        return self.root / f"{Path(self.data).name}-{network}"


@dataclass(frozen=True)
class Run:
    """One training and what is measured of it, in its own folder."""

    entry: Entry
    seed: int
    folder: Path
    jobs: tuple[Job, ...]


def entries_of(methods: Sequence[str], variants: Path | None) -> list[Entry]:
    """Lines of a comparison from names of methods and a file of variants.

    Args:
        methods: their names.
        variants: YAML, a label to `method` and a mapping `overrides`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or a label stands twice.
    """
    entries = [Entry(name, name) for name in methods]
    if variants is not None:
        try:
            content = yaml.safe_load(variants.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"{variants} is no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{variants} must map labels to `method` and `overrides`")
        for label, what in content.items():
            if not isinstance(what, dict) or set(what) - {"method", "overrides"}:
                raise ValueError(
                    f"{variants}: {label!r} must have `method` and `overrides`, got {what!r}"
                )
            given = tuple(f"{key}={_typed(v)}" for key, v in (what.get("overrides") or {}).items())
            entries.append(Entry(str(label), str(what.get("method", "uic")), given))
    labels = [entry.label for entry in entries]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not entries:
        raise ValueError(f"every line needs a label of its own, got {twice or 'no line at all'}")
    return entries


def _typed(value: Any) -> str:
    """A value of YAML as Hydra reads it on a command line."""
    return json.dumps(value).replace('"', "'") if isinstance(value, (dict, list)) else str(value)


def recipe_of(family: str, method: str) -> tuple[str, tuple[str, ...]]:
    """The recipe of a method on a family's images, and the overrides that choose it.

    Raises:
        ValueError: for a method that neither the host nor this plugin has.
    """
    from uic_plugin.hosts import load_host, register

    if f"{family}/{method}" in list_recipes():
        return f"{family}/{method}", ()
    register()
    known = sorted(set(load_host().METHODS) - {"base", "linear"})
    if method not in known:
        raise ValueError(f"unknown method {method!r}: one of {', '.join(known)}")
    if (recipes_dir() / "methods" / f"{method}.yaml").is_file():
        return f"{family}/any", (f"methods={method}",)
    return f"{family}/any", (f"method={method}",)


def _composed(setting: Setting, entry: Entry, seed: int) -> tuple[str, list[str], Any]:
    """Recipe, overrides without the length, and what they compose to."""
    name, choice = recipe_of(setting.family, entry.method)
    overrides = [*choice, f"seed={seed}"]
    if setting.family == "custom":
        root = Path(setting.data)
        for part in ("train", "val"):
            if not (root / part).is_dir():
                raise FileNotFoundError(
                    f"--data {setting.data}: no recipes of that name, and no folder with train/ "
                    f"and val/, one subfolder per class in both"
                )
            overrides.append(f"data.{part}_path={root / part}")
    if setting.network != "small":
        overrides.append(f"backbone.name={setting.network}")
    overrides += [*setting.overrides, *entry.overrides]
    return name, overrides, compose_recipe(name, overrides)


def epochs_of_budget(setting: Setting, entry: Entry, seed: int) -> int | None:
    """Epochs that a budget of epochs or views buys; None for a budget of minutes."""
    from uic_plugin.hosts.datasets import pretrain_loader
    from uic_plugin.hosts.settings import prepare_config, views_per_image

    budget = setting.budget
    if budget.kind == "epochs":
        return int(budget.amount)
    if budget.kind == "minutes":
        return None
    cfg, source = prepare_config(_composed(setting, entry, seed)[2])
    batches = len(pretrain_loader(cfg, source))
    per_epoch = batches * cfg.optimizer.batch_size * views_per_image(cfg)
    return max(1, round(budget.amount / per_epoch))


def calibration(setting: Setting, entry: Entry) -> Job:
    """The short run that a budget of minutes is turned into epochs with."""
    name, overrides, cfg = _composed(setting, entry, 0)
    folder = setting.folder / f"calibration-{entry.method}-{_digest(cfg)}"
    given = (*overrides, f"max_epochs={_CALIBRATION_EPOCHS}", f"run_dir={folder}")
    return _training(name, given, folder)


def epochs_of_minutes(setting: Setting, entry: Entry) -> int:
    """Epochs that fit into the minutes, by the last epoch of the calibration."""
    rows = read_csv(calibration(setting, entry).folder / "epochs.csv")
    return max(1, int(60 * setting.budget.amount / float(rows[-1]["seconds"])))


def plan_run(setting: Setting, entry: Entry, seed: int, epochs: int) -> Run:
    """Commands of one run, in a folder that is named after everything that decides it."""
    name, overrides, _ = _composed(setting, entry, seed)
    if entry.method != "random":
        overrides.append(f"max_epochs={epochs}")
    overrides.append(f"snapshots={min(SNAPSHOTS, epochs)}")
    digest = _digest(compose_recipe(name, overrides))
    folder = setting.folder / f"{entry.method}-{digest}-seed{seed}"
    train = _training(name, (*overrides, f"run_dir={folder}"), folder)
    jobs = [train]
    options: tuple[str, ...] = (f"--clusters={setting.clusters}",)
    jobs.append(_evaluation("measure", (str(folder), *options), folder, "measures.json", train))
    if setting.layers:
        layers = (str(folder), f"--layers={','.join(setting.layers)}", f"--seed={seed}")
        jobs.append(_evaluation("probe", layers, folder, "probe/probe.csv", train))
    return Run(entry, seed, folder, tuple(jobs))


def _training(name: str, overrides: Sequence[str], folder: Path) -> Job:
    arguments = ("pretrain", f"--config-name={name}", *overrides)
    product = folder / "last.ckpt"
    return Job(f"train {folder.name}", arguments, folder, product, (), name, tuple(overrides))


def _evaluation(
    kind: str, arguments: tuple[str, ...], folder: Path, product: str, train: Job
) -> Job:
    return Job(f"{kind} {folder.name}", (kind, *arguments), folder, folder / product, (train.name,))


def _digest(cfg: Any) -> str:
    """Of a composed recipe, where it runs and what it is called left out."""
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    for key in ("name", "run_dir", "seed", TYPED_KEY):
        content.pop(key, None)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
