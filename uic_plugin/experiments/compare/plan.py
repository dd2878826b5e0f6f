"""Plan the runs of a comparison and their commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf import DictConfig

from uic_plugin.experiments.compare.budget import Budget, Length
from uic_plugin.experiments.compare.digest import clock_of, settings_digest
from uic_plugin.experiments.jobs import Job
from uic_plugin.recipes_path import (
    compose_recipe,
    list_recipes,
    path_override,
    recipes_dir,
    typed_value,
)

SNAPSHOTS = 5
MEASURES_FILE = "measures.json"  # what `uic measure` writes
# settings that a comparison makes itself
_OURS = ("seed", "max_epochs", "run_dir", "snapshots", "max_seconds", "data.held_out")
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
        is_brief: measure k-NN alone, without a curve: enough to choose among trials.

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
    is_brief: bool = False

    def __post_init__(self) -> None:
        check_overrides(self.overrides)
        if not 0 <= self.held_out < 1:
            raise ValueError(
                f"--held-out must be a share of the training images, at least 0 and below 1, got "
                f"{self.held_out}"
            )
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

    @property
    def judges(self) -> str:
        """The images that accuracies are of, as tables and pages say it."""
        if not self.held_out:
            return "the test images"
        return f"{self.held_out:.3g} of the training images, held out of training"


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
                f"{override}: uic compare sets {key} itself, by --seeds, --budget, --runs, --tune "
                f"and --held-out: leave it out"
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
        if not variants.is_file():
            raise FileNotFoundError(f"--variants {variants}: there is no such file")
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
            if any(override.startswith(_EVALUATION) for override in overrides):
                raise ValueError(
                    f"{variants}: {label!r} has a setting of linear or knn, and all lines are "
                    f"evaluated alike: give it behind the command"
                )
            entries.append(Entry(str(label), what["method"], overrides))
    labels = [entry.label for entry in entries]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not entries:
        raise ValueError(f"every line needs a label of its own, got {twice or 'no line at all'}")
    return entries


def recipe_of(family: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the recipe of a method on a family's images, and the overrides that choose it.

    Args:
        family: of the recipes.
        name: of a method, or of a recipe in the family; after `lightly/` or `solo-learn/` of that
            host.

    Raises:
        ValueError: for a name that is neither, or of a host that is not the one that is used.
    """
    from uic_plugin.hosts import find_host, load_host, register

    host, _, name = name.rpartition("/")
    used = find_host().short_name
    if host and host != used:
        raise ValueError(
            f"{host}/{name} trains with {host}, and {used} is what is used here: install {host}, "
            f"or where both are installed set the environment's UIC_HOST={host}"
        )
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


def is_trained(entry: Entry) -> bool:
    """Return whether there is anything to tune or to time."""
    return entry.method.rpartition("/")[2] != "random"


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
                if part == "val" and setting.held_out:
                    continue
                raise FileNotFoundError(
                    f"--data {setting.data}: no recipes of that name, and no folder with train/ "
                    f"and val/, one subfolder per class in both; --held-out 0.1 does without val/"
                )
            overrides.append(path_override(f"data.{part}_path", root / part))
    if setting.network != "small":
        overrides.append(f"backbone.name={setting.network}")
    if setting.budget.kind == "minutes":  # one thread does all the work; one's own value counts
        overrides.append("data.num_workers=0")
    if setting.held_out:
        overrides.append(f"data.held_out={setting.held_out}")
    given = [*setting.overrides, *entry.overrides]
    overrides += [override for override in given if not override.startswith(_EVALUATION)]
    return name, overrides, compose_recipe(name, overrides)


def plan_run(setting: Setting, entry: Entry, seed: int, length: Length) -> PlannedRun:
    """Return the commands of one run, in a folder named after everything that decides it."""
    name, overrides, cfg = composed(setting, entry, seed)
    if is_trained(entry):
        overrides += length.overrides
    if not setting.is_brief:
        overrides.append(f"snapshots={min(SNAPSHOTS, length.epochs)}")
    cfg = compose_recipe(name, overrides)
    folder = setting.folder / f"{cfg.method}-{settings_digest(cfg)}-seed{seed}"
    train = training_job(name, (*overrides, path_override("run_dir", folder)), folder)
    given = [*setting.overrides, *entry.overrides]
    options = [f"--clusters={setting.clusters}"]
    if setting.is_brief:
        options = ["--knn-only"]
    options += [f"--set={override}" for override in given if override.startswith(_EVALUATION)]
    jobs = [train, _evaluation("measure", (str(folder), *options), folder, MEASURES_FILE, train)]
    if setting.layers and not setting.is_brief:
        layers = (str(folder), f"--layers={','.join(setting.layers)}", f"--seed={seed}")
        jobs.append(_evaluation("probe", layers, folder, "probe/probe.csv", train))
    return PlannedRun(entry, seed, folder, tuple(jobs), clock_of(cfg))


def repetition(run: PlannedRun, name: str) -> Job:
    """Return a run's training once more, in a folder of its own, see `records.steadiness`."""
    train = run.jobs[0]
    folder = run.folder.with_name(f"repetition-{name}")
    overrides = (*train.overrides[:-1], path_override("run_dir", folder))
    return training_job(str(train.recipe), overrides, folder)


def training_job(name: str, overrides: Sequence[str], folder: Path) -> Job:
    """Return the command that trains a recipe in a folder."""
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
