"""Run folders: what they hold, whether a recipe may resume in one, how to open one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from uic_plugin.data.folders import check_outside
from uic_plugin.data.index import read_index
from uic_plugin.hosts.checkpoint_files import damage_of, read_checkpoint
from uic_plugin.methods import CHECKPOINT_KEY, OWN_METHODS, has_pseudo_labels
from uic_plugin.recipes_path import evaluation_defaults
from uic_plugin.runs.engine import resume_engine
from uic_plugin.runs.fitting_heads import fitting_heads

CONFIG_FILE, CHECKPOINT_FILE, HISTORY_FILE = "config.yaml", "last.ckpt", "epochs.csv"
PREVIOUS_FILE = "previous.ckpt"  # the checkpoint before the last
COST_FILE, SNAPSHOTS = "cost.json", "snapshots"
IMAGES_FILE = "images.index"  # the list of images that labels belong to
# What may differ between a run and its continuation.
_FREE_KEYS = (
    "name",
    "run_dir",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "checkpoint_steps",
    "logger",
    "log_classes_every",
    "log_every_n_steps",
    "wandb",
    "rank_timeout",
    "linear",
    "knn",
    "resume_from_checkpoint",
    "data.num_workers",
    "performance.compile",
    "performance.matmul_precision",
    "performance.cudnn_benchmark",
    "performance.persistent_workers",
    "data.on_bad_image",
    "data.max_bad_images",
    "method_kwargs.on_bad_image",
    "method_kwargs.max_bad_images",
    "method_kwargs.bank_storage",
    "method_kwargs.bank_folder",
    "method_kwargs.device_scores_gb",
    "method_kwargs.settle_rounds",  # after the training
)


def find_resume(cfg: DictConfig, run_dir: Path) -> Path | None:
    """Return the checkpoint to resume from: the run folder's own, else the recipe's.

    The recipe takes over, in place, the engine of augmentation that the run was begun with.

    Raises:
        FileExistsError: for a run folder that holds something else.
        ValueError: for one that holds a run with other settings, or a new one among the images.
    """
    _check_own(run_dir)
    own = _whole_checkpoint(run_dir)
    if own is None and cfg.data.get("train_path"):
        images = Path(cfg.data.train_path).expanduser()
        check_outside(run_dir, images, "run_dir=FOLDER")
    named = cfg.get("resume_from_checkpoint")
    named = Path(named).expanduser() if named else None
    checkpoint = own or named
    if checkpoint is None:
        return None
    beside = checkpoint.parent / CONFIG_FILE
    kept = OmegaConf.load(beside) if beside.exists() else None
    if isinstance(kept, DictConfig):
        resume_engine(cfg, kept)
        _check_schedule(kept, cfg, checkpoint)
    if checkpoint == own and isinstance(kept, DictConfig):
        different = _differences(_with_recipes_heads(kept, cfg, run_dir), cfg)
        if different:
            raise ValueError(
                f"{run_dir} holds a run with other settings ({'; '.join(different[:3])}): give "
                f"another run_dir=FOLDER, or remove that folder to start anew"
            )
    return checkpoint


def _check_own(run_dir: Path) -> None:
    """Refuse a folder whose config.yaml is another program's, or a file in its place."""
    if run_dir.exists() and not run_dir.is_dir():
        raise FileExistsError(f"run_dir={run_dir} is a file: give a folder")
    file = run_dir / CONFIG_FILE
    if not file.exists():
        return
    try:
        kept: Any = OmegaConf.load(file)
    except (OSError, yaml.YAMLError, OmegaConfBaseException):
        kept = None
    if not isinstance(kept, DictConfig) or "method" not in kept:
        raise FileExistsError(
            f"{file} is there and of no run: give another run_dir=FOLDER, or move it away"
        )


def _whole_checkpoint(run_dir: Path) -> Path | None:
    """Return the newest of a run's own checkpoints that is whole.

    Raises:
        ValueError: if there are some, and none is.
    """
    damages: list[str] = []
    for path in (run_dir / CHECKPOINT_FILE, run_dir / PREVIOUS_FILE):
        if not path.exists():
            continue
        damage = damage_of(path)
        if damage is None:
            if damages:
                warnings.warn(f"{damages[0]}; resuming from {path}", stacklevel=2)
            return path
        damages.append(f"{path} is damaged: {damage}")
    if damages:
        raise ValueError(f"{damages[0]}: remove it to start anew, or give another run_dir=FOLDER")
    return None


def epochs_of(path: Path, cfg: DictConfig) -> int:
    """Return the epochs behind a checkpoint; refuse one of another method."""
    content = read_checkpoint(path)
    wrote = content.get(CHECKPOINT_KEY, {}).get("method", "uic")
    if CHECKPOINT_KEY not in content:
        wrote = "another method" if has_pseudo_labels(cfg.method) else cfg.method
    if wrote != cfg.method:
        raise ValueError(
            f"{path} was written by {wrote}, this run is of {cfg.method}: resume it with the "
            f"method that wrote it, or start in another run_dir"
        )
    epochs = content.get("epoch", -1) + 1
    if CHECKPOINT_KEY in content:
        epochs = content[CHECKPOINT_KEY]["bank"].get("epoch")
    if type(epochs) is not int:
        raise ValueError(f"{path} does not say how many epochs are behind it")
    return epochs


def how_to_resume(run_dir: Path, epoch: int) -> str:
    """Return what to tell a user who stopped a run in `epoch`, counted from 0."""
    if (run_dir / CHECKPOINT_FILE).exists():
        return (
            f"stopped in epoch {epoch + 1}; {run_dir / CHECKPOINT_FILE} holds what was done until "
            f"the last save: the same command resumes from there"
        )
    return "stopped before the first epoch was over: the same command starts anew"


def read_run(path: Path) -> tuple[DictConfig, Path]:
    """Recipe and checkpoint of a run, from its folder or from a checkpoint in it.

    Raises:
        FileNotFoundError: if there is no such run, or no recipe beside the checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such run folder or checkpoint")
    folder = path if path.is_dir() else path.parent
    checkpoint = path
    if path.is_dir():
        found = sorted(path.glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise FileNotFoundError(f"{path}: no checkpoint there; a run keeps {CHECKPOINT_FILE}")
        last = path / CHECKPOINT_FILE
        checkpoint = last if last in found else found[-1]
    for name in (CONFIG_FILE, "args.json"):  # ours, and what solo-learn main writes
        if (folder / name).is_file():
            cfg = OmegaConf.load(folder / name)
            if isinstance(cfg, DictConfig) and "method" in cfg:
                return cfg, checkpoint
    raise FileNotFoundError(
        f"{folder}: neither {CONFIG_FILE} nor args.json lies beside the checkpoint, so its "
        f"network is not known"
    )


def open_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[DictConfig, Path]:
    """Recipe and checkpoint of a run for its evaluation, on this machine's own hardware.

    Args:
        path: a run folder, or a checkpoint in it.
        overrides: as `knn.k=10`; `+key=value` adds a setting that the run does not have.

    Raises:
        FileNotFoundError: if there is no such run.
        ValueError: for an override of something that the run does not have.
    """
    recipe, checkpoint = read_run(path)
    cfg = DictConfig(OmegaConf.merge(evaluation_defaults(), recipe))
    cfg.accelerator, cfg.devices, cfg.strategy, cfg.precision = "auto", 1, None, 32
    for override in overrides:
        key, separator, value = override.lstrip("+").partition("=")
        if not separator:
            raise ValueError(f"{override!r} is no override: write key=value")
        try:
            if not override.startswith("+") and OmegaConf.select(cfg, key, default=...) is ...:
                raise ValueError(f"{key!r} is no setting of this run; +{override} would add it")
            # read as in a recipe: 1e-1 is a number there, and text in plain YAML
            OmegaConf.update(cfg, key, OmegaConf.create(f"value: {value}").value)
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ValueError(f"override {override}: {' '.join(str(error).split())}") from error
    return cfg, checkpoint


def _check_schedule(kept: DictConfig, cfg: DictConfig, checkpoint: Path) -> None:
    """Refuse another length for a schedule that has a length: it would not be followed."""
    if kept.max_epochs != cfg.max_epochs and cfg.scheduler.name not in ("none", "step"):
        raise ValueError(
            f"{checkpoint} was trained on a {cfg.scheduler.name} schedule of {kept.max_epochs} "
            f"epochs, max_epochs is {cfg.max_epochs} now: a schedule of another length is another "
            f"run, give it another run_dir=FOLDER (schedulers none and step can be prolonged)"
        )
    if kept.max_epochs != cfg.max_epochs and cfg.method == "selflabel":
        raise ValueError(
            f"{checkpoint} spreads its label updates over {kept.max_epochs} epochs, max_epochs is "
            f"{cfg.max_epochs} now: that is another run, give it another run_dir=FOLDER"
        )
    every = (cfg.get("method_kwargs") or {}).get("label_every", 1)
    if kept.max_epochs != cfg.max_epochs and every > 1:
        raise ValueError(
            f"{checkpoint} labels every {every} epochs and after the last of {kept.max_epochs}, "
            f"max_epochs is {cfg.max_epochs} now: that is another run, give it another "
            f"run_dir=FOLDER (method_kwargs.label_every=1 can be prolonged)"
        )


def _images_of_a_step(cfg: DictConfig) -> int | None:
    """Of all ranks together, where a number of ranks is given."""
    if type(cfg.devices) is not int:
        return None
    return int(cfg.optimizer.batch_size) * cfg.devices * int(cfg.get("num_nodes") or 1)


def _with_recipes_heads(kept: DictConfig, cfg: DictConfig, run_dir: Path) -> DictConfig:
    """Return a run's recipe with the classifiers of the present one if it has what fits of them."""
    asked = (cfg.get("method_kwargs") or {}).get("more_heads")
    images = run_dir / IMAGES_FILE
    if not asked or not images.exists():
        return kept
    begun = (kept.get("method_kwargs") or {}).get("more_heads")
    if begun is None or [*begun] != fitting_heads(asked, len(read_index(images))):
        return kept
    kept = DictConfig(OmegaConf.to_container(kept))
    kept.method_kwargs.more_heads = asked
    return kept


def _differences(kept: DictConfig, cfg: DictConfig) -> list[str]:
    def flat(node: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(node, (dict, list)):
            return {prefix: node}
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {
            k: v
            for name, child in items
            for k, v in flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
        }

    old, new = flat(OmegaConf.to_container(kept)), flat(OmegaConf.to_container(cfg))
    together = _images_of_a_step(kept)
    if together is not None and together == _images_of_a_step(cfg):  # on more ranks, or fewer
        old["optimizer.batch_size"] = new["optimizer.batch_size"]
    # settings that came after the run was made stand at their defaults in it
    defaults: dict[str, Any] = {
        "host": "solo-learn",
        "snapshots": 0,
        "data.index": None,
        "data.held_out": 0,
        "max_seconds": None,
        "pretrained": False,
        "freeze": "none",
        "layer_decay": 1,
        "augmentation.engine": "host",
    }
    if cfg.method in OWN_METHODS:
        options = OWN_METHODS[cfg.method].options_class()
        defaults.update(flat({"method_kwargs": options.as_dict()}))
        idle = flat({"method_kwargs": dict(options.removed)})
        old = {key: value for key, value in old.items() if key not in idle or value != idle[key]}
    old = {**{key: value for key, value in defaults.items() if key in new}, **old}
    free = [*_FREE_KEYS, "max_epochs"]  # the schedule has been looked at
    # labels carry a fingerprint of the images: the folder may move
    if has_pseudo_labels(cfg.method):
        free += ["data.train_path", "data.val_path", "data.index", "data.format"]
    return [
        f"{key}: {old.get(key)} there, {new.get(key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in free)
    ]
