"""Lightning's loggers in `uic pretrain`: which ones, resumed into the same run, with classes.

Everything lies in the run folder: `csv/metrics.csv`, `tensorboard/`, `wandb/`, and the pictures of
the classes in `pictures/`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from uic_plugin.files import replacing
from uic_plugin.hosts.attach import centered
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.hosts.lightning import pl
from uic_plugin.report.class_pictures import ClassPictures
from uic_plugin.report.tables import read_csv

LOGGERS = ("csv", "tensorboard", "wandb")
CLASSES = "pictures"  # folder of the pictures
WANDB_RUN_FILE = "wandb_run.json"  # which run of Weights & Biases a run folder belongs to
_PROJECT = "solo-learn"  # the host's default
_FLAGS = ("enabled", "offline")
_TEXTS = ("entity", "project", "name", "group", "job_type", "notes")
_WANDB_KEYS = (*_FLAGS, *_TEXTS, "tags")
# modules that a logger needs, one of them, and what brings them
_NEEDS = {
    "tensorboard": (("tensorboard", "tensorboardX"), "uic-plugin[tensorboard]"),
    "wandb": (("wandb",), "wandb"),
}


def logger_names(cfg: DictConfig) -> tuple[str, ...]:
    """Return the loggers that a recipe asks for, each once.

    Args:
        cfg: a recipe; `logger` is a name, a list of names or null, and `wandb.enabled=true` asks
            for wandb as well.

    Raises:
        ValueError: for an unknown logger, or an unknown or wrong setting of `wandb`.
        ImportError: if a logger's own package is missing.
    """
    given = cfg.get("logger")
    if given is None or given is False:
        given = []
    names = [given] if isinstance(given, str) else given
    unknown = [name for name in names if name not in LOGGERS] if _is_list(names) else [given]
    if unknown:
        raise ValueError(
            f"unknown logger {unknown[0]!r}: logger must be one of {', '.join(LOGGERS)}, a list "
            f"of them, or null for none"
        )
    wanted = [*names, "wandb"] if _wandb_section(cfg).get("enabled") else names
    for name in wanted:
        modules, package = _NEEDS.get(name, ((), ""))
        if modules and not any(importlib.util.find_spec(module) for module in modules):
            raise ImportError(f"logger={name} needs {modules[0]}: pip install '{package}'")
    return tuple(dict.fromkeys(wanted))


def _is_list(value: Any) -> bool:
    return OmegaConf.is_list(value) or isinstance(value, list)


def _wandb_section(cfg: DictConfig) -> dict[str, Any]:
    """Return the recipe's `wandb` section, checked."""
    section: Any = cfg.get("wandb")
    if section is None:
        return {}
    if not OmegaConf.is_dict(section):
        raise ValueError(f"wandb must be a section of settings (wandb.enabled=true), got {section}")
    section = OmegaConf.to_container(section)
    for key, value in section.items():
        if key not in _WANDB_KEYS:
            raise ValueError(f"unknown setting wandb.{key}: one of {', '.join(_WANDB_KEYS)}")
        if key in _FLAGS and type(value) is not bool:
            raise ValueError(f"wandb.{key} must be true or false, got {value!r}")
        if key in _TEXTS and not (value is None or isinstance(value, str)):
            raise ValueError(f"wandb.{key} must be a text or null, got {value!r}")
    tags = section.get("tags")
    is_tags = isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
    if tags is not None and not is_tags:
        raise ValueError(f"wandb.tags must be a list of texts, got {tags!r}")
    # the host's own recipes say "entity: None", which is a text in YAML
    return {key: None if value == "None" else value for key, value in section.items()}


@contextmanager
def logging_to(
    trainer: pl.Trainer, cfg: DictConfig, run_dir: Path, checkpoint: Path | None, dataset: Any
) -> Iterator[None]:
    """Give a trainer the loggers of the recipe, and end them with the training.

    A resumed run writes to the same `metrics.csv`, TensorBoard folder and run of Weights & Biases;
    what was logged after the checkpoint was written is logged anew.

    Args:
        trainer: without loggers.
        cfg: the prepared recipe.
        run_dir: the run folder.
        checkpoint: what the run resumes from, or None for its start.
        dataset: the host's training images.

    Raises:
        ValueError: if Weights & Biases cannot start, as without a login.
    """
    names = logger_names(cfg)
    if not names:
        yield
        return
    step = int(read_checkpoint(checkpoint).get("global_step", 0)) if checkpoint else 0
    has_run = "wandb" in names and _is_wandb_running()
    ended_well = False
    try:
        trainer.loggers = [
            _MAKERS[name](cfg, run_dir, step, trainer.is_global_zero) for name in names
        ]
        for logger in trainer.loggers:
            logger.log_hyperparams(OmegaConf.to_container(cfg))
        every = int(cfg.get("log_classes_every") or 0)
        pictures = _pictures(cfg, run_dir, dataset) if every else None
        trainer.callbacks += [  # type: ignore[attr-defined]
            LoggedClasses(pictures, every),
            pl.callbacks.LearningRateMonitor(logging_interval="epoch"),
        ]
        yield
        ended_well = True
    finally:
        if "wandb" in names and not has_run:  # a run of the caller's is the caller's to end
            _finish_wandb(0 if ended_well else 1)


def _pictures(cfg: DictConfig, run_dir: Path, dataset: Any) -> ClassPictures | None:
    """Of a run's classes; None, and a warning, for images without a centered view."""
    try:
        return ClassPictures(centered(dataset), run_dir / CLASSES, cfg.seed)
    except ValueError as error:
        warnings.warn(f"no picture of the classes is logged: {error}", stacklevel=2)
        return None


def _tensorboard(cfg: DictConfig, run_dir: Path, step: int, is_main: bool) -> Any:
    # readers drop what an earlier part logged at this step and later
    return pl.loggers.TensorBoardLogger(
        run_dir, name="", version="tensorboard", default_hp_metric=False, purge_step=step
    )


def _csv(cfg: DictConfig, run_dir: Path, step: int, is_main: bool) -> Any:
    """Lightning's, which would begin an existing file anew, with the rows before `step` in it."""
    logger = pl.loggers.CSVLogger(run_dir, name="", version="csv")
    if not is_main:
        return logger
    path = run_dir / "csv" / "metrics.csv"
    kept = path.with_name("metrics.csv.kept")
    if path.exists() and not kept.exists():  # else an earlier start was killed just below
        os.replace(path, kept)
    rows: list[dict[str, Any]] = []
    if kept.exists():
        rows = [dict(row) for row in read_csv(kept) if (row["step"] or "").isdigit()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the folder that is not empty
        writer = logger.experiment
    before = [row for row in rows if int(row["step"]) < step]
    writer.metrics.extend(before)
    if before:
        logger.save()
    kept.unlink(missing_ok=True)
    return logger


def _wandb(cfg: DictConfig, run_dir: Path, step: int, is_main: bool) -> Any:
    import wandb

    section = _wandb_section(cfg)
    settings = {key: section[key] for key in ("entity", *_TEXTS[3:], "tags") if section.get(key)}
    if section.get("offline"):
        # Lightning's own `offline` would set it for all later runs of this process
        settings["mode"] = "offline"
    file = run_dir / WANDB_RUN_FILE
    kept = _kept_id(file) if step else None  # a run from its start is another one
    try:
        logger = pl.loggers.WandbLogger(
            name=section.get("name") or cfg.name,
            project=section.get("project") or _PROJECT,
            save_dir=str(run_dir),
            id=kept,
            **settings,
        )
        _ = logger.experiment  # starts the run
    except (wandb.errors.Error, ValueError) as error:
        raise ValueError(
            f"wandb cannot start ({' '.join(str(error).split())}): look at the recipe's wandb "
            f"section; without an account or a network, set wandb.offline=true"
        ) from error
    if is_main and logger.version != kept:
        with replacing(file) as part:
            part.write_text(json.dumps({"id": logger.version}) + "\n")
    return logger


_MAKERS = {"csv": _csv, "tensorboard": _tensorboard, "wandb": _wandb}


def _kept_id(path: Path) -> str | None:
    """Return which run of Weights & Biases a run folder belongs to, if it belongs to one."""
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text())["id"]
    except (ValueError, KeyError, TypeError):
        kept = None
    if not isinstance(kept, str):
        raise ValueError(f"{path} names no run of wandb: remove it to log to a new one")
    return kept


def _is_wandb_running() -> bool:
    import wandb

    return wandb.run is not None


def _finish_wandb(exit_code: int) -> None:
    import wandb

    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)


class LoggedClasses(pl.Callback):
    """Logs the histogram of class sizes every epoch, and a picture of the classes now and then.

    Methods without pseudo labels have neither, those that keep no labels have no picture.

    Args:
        pictures: draws the classes; None: no picture.
        every: epochs between two pictures, the last epoch has one as well; 0: none.
    """

    def __init__(self, pictures: ClassPictures | None, every: int) -> None:
        self.pictures, self.every = pictures, every
        self._has_begun = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Have Lightning 1.9 log at the step at which a run resumes within an epoch.

        It saves the number of steps before it counts the one that is done; later versions fix it.
        """
        loop = trainer.fit_loop.epoch_loop
        if not self._has_begun and len(trainer.optimizers) == 1:
            loop._batches_that_stepped = trainer.global_step
        self._has_begun = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the classes that the epoch has found, on the first rank."""
        sizes = getattr(getattr(pl_module, "telemetry", None), "class_sizes", None)
        if sizes is None or not trainer.is_global_zero:
            return
        step, epoch = trainer.global_step - 1, trainer.current_epoch + 1  # as Lightning's metrics
        for logger in trainer.loggers:
            _log_histogram(logger, sizes, step)
        is_due = self.every and (epoch % self.every == 0 or epoch == trainer.max_epochs)
        if self.pictures is None or not is_due:
            return
        files = {"uic_class_sizes_picture": self.pictures.draw_sizes(sizes, epoch)}
        bank = getattr(pl_module, "bank", None)
        if bank is not None:
            labels = bank.labels.cpu().numpy()
            classes = self.pictures.draw(labels, sizes, epoch)
            if classes is not None:
                files["uic_classes"] = classes
        for logger in trainer.loggers:
            _log_pictures(logger, files, step)


def _log_histogram(logger: Any, sizes: np.ndarray, step: int) -> None:
    if isinstance(logger, pl.loggers.TensorBoardLogger):
        logger.experiment.add_histogram("uic_class_sizes", sizes, step)
    elif isinstance(logger, pl.loggers.WandbLogger):
        import wandb

        bins = wandb.Histogram(np_histogram=np.histogram(sizes, bins=64))
        logger.log_metrics({"uic_class_sizes": bins}, step)


def _log_pictures(logger: Any, files: Mapping[str, Path], step: int) -> None:
    """Leave pictures in the run folder where a logger takes text alone."""
    for name, path in files.items():
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")
        elif isinstance(logger, pl.loggers.WandbLogger):
            logger.log_image(name, [str(path)], step)
