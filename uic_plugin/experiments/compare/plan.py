"""Plan the runs of a comparison and their commands."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from uic_plugin.experiments.compare.budget import Budget, Length, costs_of, length_within
from uic_plugin.experiments.jobs import Job
from uic_plugin.recipes_path import TYPED_KEY, compose_recipe, list_recipes, recipes_dir
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.folder import COST_FILE, HISTORY_FILE

if TYPE_CHECKING:
    from uic_plugin.data.resolve import DataSource

SNAPSHOTS = 5
MEASURES_FILE = "measures.json"  # what `uic measure` writes
_CALIBRATION_EPOCHS = 3  # the first also pays for start-up
_CALIBRATION_IMAGES = 2560  # of each of them
# settings that a comparison makes itself
_OURS = ("seed", "max_epochs", "run_dir", "snapshots", "max_seconds", "data.held_out")
# settings that change nothing of what a step takes: their calibration is the same
_COSTS_NOTHING = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "momentum.base_tau",
    "method_kwargs.temperature",
    "method_kwargs.lamb",
)
_EVALUATION = ("linear.", "knn.")  # settings of `uic measure`, not of a training


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes:
        label: its name.
        method: name of a method of the host or of this plugin, or of a recipe in the family.
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
        layers: to probe, by default none.
        parallel: number of parallel commands, each with its share of the cores.
        held_out: share of the training images that is kept apart and judges in place of the test
            images, see `uic_plugin.data.validation`; 0 for none.
        by_step: whether learning rates change after every step, see `Length`.

    Raises:
        ValueError: for numbers out of range, or overrides of what a comparison sets itself.
    """

    data: str
    network: str
    budget: Budget
    root: Path
    overrides: tuple[str, ...] = ()
    clusters: int = 100
    layers: tuple[str, ...] = ()
    parallel: int = 1
    held_out: float = 0.0
    by_step: bool = False

    def __post_init__(self) -> None:
        check_overrides(self.overrides)
        if self.clusters < 2:
            raise ValueError(f"--clusters must be at least 2, got {self.clusters}")
        if self.parallel < 1:
            raise ValueError(f"--jobs must be at least 1, got {self.parallel}")

    @property
    def one_core(self) -> bool:
        """Whether every command gets one thread on a core of its own."""
        return self.budget.kind == "minutes"

    @property
    def family(self) -> str:
        """Family of the recipes."""
        return self.data if (recipes_dir() / self.data / "any.yaml").is_file() else "custom"

    @property
    def folder(self) -> Path:
        """Folder of this comparison's runs."""
        network = self.network.replace("/", "-")
        return self.root / f"{self.title}-{network}"

    @property
    def title(self) -> str:
        """The family, or the name of the folder."""
        return self.data if self.family == self.data else Path(self.data).resolve().name


@dataclass(frozen=True)
class PlannedRun:
    """One training and its measurements, in its own folder.

    Attributes:
        entry: the line of the comparison.
        seed: of the run.
        folder: of the run.
        jobs: the training, the figures, and the probes if there are any.
        clock: of its budget of minutes: "cpu_" for the processor's seconds, "" for the wall's.
    """

    entry: Entry
    seed: int
    folder: Path
    jobs: tuple[Job, ...]
    clock: str = ""


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides of what a comparison sets itself.

    Raises:
        ValueError: naming the first.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in _OURS:
            raise ValueError(
                f"{override}: uic compare sets {key} itself; --seeds and --budget say which"
            )


def entries_of(methods: Sequence[str], variants: Path | None) -> list[Entry]:
    """Return the lines of a comparison from names of methods and a file of variants.

    Args:
        methods: their names.
        variants: YAML, a label to `method` and a mapping `overrides`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or a label occurs twice.
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
            given = what.get("overrides") or {} if isinstance(what, dict) else None
            if (
                not isinstance(what, dict)
                or not isinstance(given, dict)
                or set(what) - {"method", "overrides"}
                or not isinstance(what.get("method"), str)
            ):
                raise ValueError(
                    f"{variants}: {label!r} must have a `method` and may have a mapping "
                    f"`overrides`, got {what!r}"
                )
            overrides = tuple(f"{key}={typed_value(value)}" for key, value in given.items())
            check_overrides(overrides)
            entries.append(Entry(str(label), what["method"], overrides))
    labels = [entry.label for entry in entries]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not entries:
        raise ValueError(f"every line needs a label of its own, got {twice or 'no line at all'}")
    return entries


def typed_value(value: Any) -> str:
    """Return a YAML value as Hydra reads it on a command line."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(map(typed_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{typed_value(part)}" for key, part in value.items()) + "}"
    return "null" if value is None else str(value)


def recipe_of(family: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the recipe of a method on a family's images, and the overrides that choose it.

    Args:
        family: of the recipes.
        name: of a method, or of a recipe in the family.

    Raises:
        ValueError: for a name that is neither.
    """
    from uic_plugin.hosts import load_host, register

    own = [recipe.partition("/")[2] for recipe in list_recipes() if recipe.startswith(f"{family}/")]
    own.remove("any")
    if name in own:
        return f"{family}/{name}", ()
    register()
    methods = set(load_host().METHODS) - {"base", "linear"}
    if name not in methods:
        raise ValueError(f"unknown method {name!r}: one of {', '.join(sorted({*methods, *own}))}")
    if (recipes_dir() / "methods" / f"{name}.yaml").is_file():
        return f"{family}/any", (f"methods={name}",)
    return f"{family}/any", (f"method={name}",)


def composed(setting: Setting, entry: Entry, seed: int) -> tuple[str, list[str], DictConfig]:
    """Return the recipe, the overrides without the length, and what they compose to.

    Raises:
        FileNotFoundError: if there is neither a family of recipes nor a folder of that name.
        ValueError: for an unknown method, or overrides that Hydra rejects.
    """
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
            overrides.append(f"data.{part}_path={typed_value(str(root / part))}")
    if setting.network != "small":
        overrides.append(f"backbone.name={setting.network}")
    if setting.budget.kind == "minutes":  # one thread does all the work; one's own value counts
        overrides.append("data.num_workers=0")
    if setting.held_out:
        overrides.append(f"data.held_out={setting.held_out}")
    given = [*setting.overrides, *entry.overrides]
    overrides += [override for override in given if not override.startswith(_EVALUATION)]
    return name, overrides, compose_recipe(name, overrides)


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

    name, overrides, cfg = composed(dataclasses.replace(setting, held_out=0.0), entry, 0)
    digest = _digest(cfg, without=_COSTS_NOTHING)
    folder = setting.folder / f"calibration-{cfg.method}-{digest}-jobs{setting.parallel}"
    few = max(6, -(-_CALIBRATION_IMAGES // cfg.optimizer.batch_size))
    batches = min(few, _batches(*prepare_config(cfg))[0])
    length = Length(_CALIBRATION_EPOCHS, batches, by_step=True)
    return _training(name, (*overrides, *length.overrides, f"run_dir={folder}"), folder)


def length_of_minutes(setting: Setting, entry: Entry) -> Length:
    """Return the epochs that fit into the minutes, by the calibration.

    Raises:
        ValueError: if not even two short epochs fit.
    """
    from uic_plugin.runs.settings import prepare_config, uses_processor_clock

    cfg, source = prepare_config(composed(setting, entry, 0)[2])
    folder = calibration(setting, entry).folder
    cost = json.loads((folder / COST_FILE).read_text())
    clock = "cpu_" if uses_processor_clock(cfg) else ""
    batches, images = _batches(cfg, source)
    try:
        costs = costs_of(read_csv(folder / HISTORY_FILE), clock).of_images(images / cost["images"])
        return length_within(60 * setting.budget.amount, costs, batches)
    except ValueError as error:
        raise ValueError(f"{entry.label}, {setting.budget}: {error}") from error


def plan_run(setting: Setting, entry: Entry, seed: int, length: Length) -> PlannedRun:
    """Return the commands of one run, in a folder named after everything that decides it."""
    from uic_plugin.runs.settings import uses_processor_clock

    name, overrides, cfg = composed(setting, entry, seed)
    if entry.method != "random":
        overrides += length.overrides
    if not setting.held_out:
        overrides.append(f"snapshots={min(SNAPSHOTS, length.epochs)}")
    cfg = compose_recipe(name, overrides)
    folder = setting.folder / f"{cfg.method}-{_digest(cfg)}-seed{seed}"
    train = _training(name, (*overrides, f"run_dir={folder}"), folder)
    given = [*setting.overrides, *entry.overrides]
    options = [f"--clusters={setting.clusters}"]
    if setting.held_out:
        options = ["--knn-only"]
    options += [f"--set={override}" for override in given if override.startswith(_EVALUATION)]
    jobs = [train, _evaluation("measure", (str(folder), *options), folder, MEASURES_FILE, train)]
    if setting.layers and not setting.held_out:
        layers = (str(folder), f"--layers={','.join(setting.layers)}", f"--seed={seed}")
        jobs.append(_evaluation("probe", layers, folder, "probe/probe.csv", train))
    clock = "cpu_" if uses_processor_clock(cfg) else ""
    return PlannedRun(entry, seed, folder, tuple(jobs), clock)


def repetition(run: PlannedRun, name: str) -> Job:
    """Return a run's training once more, in a folder of its own, see `records.steadiness`."""
    train = run.jobs[0]
    folder = run.folder.with_name(f"repetition-{name}")
    overrides = (*train.overrides[:-1], f"run_dir={folder}")
    return _training(str(train.recipe), overrides, folder)


def _training(name: str, overrides: Sequence[str], folder: Path) -> Job:
    arguments = ("pretrain", f"--config-name={name}", *overrides, "--no-page")
    product = folder / "last.ckpt"
    # the folder is named after the settings, whatever recipe and overrides make them
    return Job(
        f"train {folder.name}",
        arguments,
        folder,
        product,
        recipe=name,
        overrides=tuple(overrides),
        identity=folder.name,
    )


def _evaluation(
    kind: str, arguments: tuple[str, ...], folder: Path, product: str, train: Job
) -> Job:
    return Job(f"{kind} {folder.name}", (kind, *arguments), folder, folder / product, (train.name,))


def _digest(cfg: DictConfig, without: Sequence[str] = ()) -> str:
    """Return a hash of what decides a training, not of where it runs or how it is evaluated.

    Args:
        cfg: the composed recipe.
        without: further settings that are left out.
    """
    cfg = cfg.copy()
    for key in without:
        if OmegaConf.select(cfg, key) is not None:
            OmegaConf.update(cfg, key, None)
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    for key in ("name", "run_dir", "seed", "linear", "knn", TYPED_KEY):
        content.pop(key, None)
    content["data"].pop("num_workers", None)
    if not content["data"].get("held_out"):  # came later: earlier runs keep their names
        content["data"].pop("held_out", None)
    if content.get("max_seconds") is None:
        content.pop("max_seconds", None)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
