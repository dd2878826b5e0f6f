"""Pretraining with any method of the installed host, from one recipe, on either line."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from uic_plugin.data.images import path_of, relative_paths
from uic_plugin.data.index import save_index
from uic_plugin.data.packed import PackedImages
from uic_plugin.data.resolve import DataSource
from uic_plugin.errors import Interrupted, RankLostError
from uic_plugin.files import replacing
from uic_plugin.hosts import backbone_of
from uic_plugin.hosts.attach import images_of
from uic_plugin.hosts.foreign import typed_options
from uic_plugin.hosts.guards import FiniteLoss
from uic_plugin.hosts.lightning import pl
from uic_plugin.methods import has_pseudo_labels
from uic_plugin.methods.base import HostMethod
from uic_plugin.networks.layers import FEATURES, layer_shapes
from uic_plugin.ranks import is_lost_rank, launched_rank
from uic_plugin.recipes_path import TYPED_KEY
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.callbacks import AtStart, FollowOrder, History, RunCost, Snapshots
from uic_plugin.runs.checkpoints import RunCheckpoint
from uic_plugin.runs.datasets import eval_datasets, image_loader, pretrain_loader
from uic_plugin.runs.engine import note_engine
from uic_plugin.runs.fitting_heads import fit_heads
from uic_plugin.runs.folder import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    COST_FILE,
    HISTORY_FILE,
    IMAGES_FILE,
    PREVIOUS_FILE,
    SNAPSHOTS,
    epochs_of,
    find_resume,
    how_to_resume,
    open_recipe,
)
from uic_plugin.runs.loggers import logger_names, logging_to
from uic_plugin.runs.partial_training import prepare_partial_training
from uic_plugin.runs.performance import compile_network, tuned
from uic_plugin.runs.run import Run
from uic_plugin.runs.settings import (
    build_method,
    num_devices,
    prepare_config,
    unknown_options_named,
    uses_processor_clock,
    views_per_image,
)
from uic_plugin.runs.settling import is_run_settled, settle_run
from uic_plugin.runs.start_weights import start_from, start_pretrained
from uic_plugin.runs.time_budget import TimeBudget
from uic_plugin.runs.trainer import fit, make_trainer

# Sections of solo-learn's recipes that its own scripts read and `uic pretrain` does not.
_UNUSED_SECTIONS = ("checkpoint", "auto_resume", "auto_umap", "dali")


@dataclass(frozen=True)
class PretrainResult:
    """A finished run.

    Attributes:
        run_dir: its folder, with `config.yaml`, `last.ckpt` and `epochs.csv`.
        seconds: wall time of this call.
        resumed_from: epoch at which it went on, 0 from the start.
        is_main: whether this process is the one of all ranks that speaks.
        has_annotations: whether evaluations find annotated images.
    """

    run_dir: Path
    seconds: float
    resumed_from: int
    is_main: bool = True
    has_annotations: bool = True


def pretrain(
    cfg: DictConfig,
    *,
    reporter: EpochReporter | None = None,
    callbacks: tuple[pl.Callback, ...] = (),
) -> PretrainResult:
    """Train a recipe to its last epoch, resuming where an earlier call was stopped.

    Args:
        cfg: the composed recipe.
        reporter: shows the progress.
        callbacks: further Lightning callbacks.

    Raises:
        ValueError: for a recipe that cannot be, or a run folder of other settings.
        ImportError: if a logger's package is missing.
        FileNotFoundError: for data or a checkpoint that is not there.
        CheckpointError: if a checkpoint cannot be written.
        Interrupted: if the user stopped the run.
    """
    started = time.perf_counter()
    typed = typed_options(cfg.get(TYPED_KEY) or [])
    cfg, source = prepare_config(cfg)
    _check_sections(cfg)
    run_dir = Path(cfg.run_dir)
    resume = find_resume(cfg, run_dir)
    done = _epochs_done(cfg, run_dir, resume)
    if done >= cfg.max_epochs:
        _settle(cfg, run_dir, is_main=launched_rank() == 0)
        return PretrainResult(run_dir, 0.0, done)
    loader = pretrain_loader(cfg, source)
    note_engine(cfg, loader)
    if "more_heads" not in typed:
        fit_heads(cfg, len(images_of(loader)))
    method = _method_for(cfg, loader, resume)
    val_loader = _val_loader(cfg, source)
    run_dir.mkdir(parents=True, exist_ok=True)
    reporter = reporter or EpochReporter(cfg.method)
    records = _records(cfg, run_dir, loader, reporter)
    partial_training = prepare_partial_training(cfg, method)
    trainer = make_trainer(
        cfg, max_epochs=cfg.max_epochs, callbacks=[*partial_training, *records, *callbacks]
    )
    write_recipe = partial(_write_recipe, cfg, run_dir, loader, resume)
    if resume is not None:  # the images may be others than the checkpoint's: not before it is read
        trainer.callbacks.append(AtStart(write_recipe))  # type: ignore[attr-defined]
    elif trainer.is_global_zero:
        write_recipe()
    log = logging_to(trainer, cfg, run_dir, resume, images_of(loader))
    compile_network(method, cfg)
    with _told_in_one_line(cfg, run_dir, resume, trainer, reporter), log, tuned(cfg):
        fit(trainer, method, loader, val_loader, resume)
    _settle(cfg, run_dir, is_main=trainer.is_global_zero)
    return PretrainResult(
        run_dir,
        time.perf_counter() - started,
        done,
        is_main=trainer.is_global_zero,
        has_annotations=source.labelled,
    )


def _settle(cfg: DictConfig, run_dir: Path, *, is_main: bool) -> None:
    """Settle the classifiers of a finished run as the present recipe says, in one process.

    The recipe may be another than that of the run folder: it says where the images are now, and in
    how many rounds classifiers settle, which is written there. Where the training was over before,
    a kill may have come between; no trainer tells the processes of a launcher apart then.
    """
    if not is_main or cfg.method != "uic":
        return
    rounds = int(cfg.method_kwargs.get("settle_rounds") or 0)
    recipe, checkpoint = open_recipe(run_dir, [f"+method_kwargs.settle_rounds={rounds}"])
    run = replace(Run.of_recipe(recipe, run_dir, checkpoint, needs_images=False), is_settled=False)
    if not is_run_settled(run):
        recipe.data = cfg.data
        settle_run(replace(Run.of_recipe(recipe, run_dir, checkpoint), is_settled=False))
    kept = OmegaConf.load(run_dir / CONFIG_FILE)
    if rounds != int(OmegaConf.select(kept, "method_kwargs.settle_rounds") or 0):
        OmegaConf.update(kept, "method_kwargs.settle_rounds", rounds)
        with replacing(run_dir / CONFIG_FILE) as part:
            part.write_text(OmegaConf.to_yaml(kept))


def _val_loader(cfg: DictConfig, source: DataSource) -> Any:
    """Return what the host's online k-NN is tested on, if there is any."""
    if source.labelled and source.val is not None and cfg.knn_eval.enabled:
        return image_loader(eval_datasets(cfg, source)[1], cfg)
    return None


def _check_sections(cfg: DictConfig) -> None:
    """Refuse a wrong logger, and warn of sections that nothing reads.

    Raises:
        ValueError: for an unknown logger.
        ImportError: if a logger's package is missing.
    """
    logger_names(cfg)
    unused = [name for name in _UNUSED_SECTIONS if name in cfg]
    if unused:
        warnings.warn(f"uic pretrain does not use {', '.join(unused)} of the recipe", stacklevel=3)


def _epochs_done(cfg: DictConfig, run_dir: Path, resume: Path | None) -> int:
    """Return the epochs behind the checkpoint to resume from.

    Raises:
        ValueError: for another run's checkpoint that leaves nothing to train.
    """
    done = epochs_of(resume, cfg) if resume else 0
    if done >= cfg.max_epochs and resume != run_dir / CHECKPOINT_FILE:
        raise ValueError(
            f"{resume} has {done} epochs behind it, max_epochs={cfg.max_epochs} is not more"
        )
    return done


def _method_for(cfg: DictConfig, loader: DataLoader[Any], resume: Path | None) -> HostMethod:
    """Return the method with its first weights, which knows the names of its images.

    Raises:
        ValueError: before anything is written, for images that the network does not take.
    """
    method = build_method(cfg)
    method.image_name = partial(path_of, images_of(loader))
    method.bad_images = loader.dataset.bad_images  # type: ignore[attr-defined]
    for pipeline in cfg.augmentations:
        if pipeline.num_crops:
            _check_network(backbone_of(method), pipeline.crop_size)
    if cfg.get("weights") and not resume:
        start_from(method, Path(cfg.weights).expanduser(), cfg.get("weights_allow_missing") or ())
    if cfg.get("pretrained") and not resume:
        start_pretrained(method, cfg)
    return method


def _write_recipe(
    cfg: DictConfig, run_dir: Path, loader: DataLoader[Any], resume: Path | None
) -> None:
    """Write the recipe and the list of images; set a damaged checkpoint aside."""
    with replacing(run_dir / CONFIG_FILE) as part:
        part.write_text(OmegaConf.to_yaml(cfg))
    if resume is None or not (run_dir / IMAGES_FILE).exists():
        _keep_list(run_dir / IMAGES_FILE, cfg, images_of(loader))
    if resume == run_dir / PREVIOUS_FILE and (run_dir / CHECKPOINT_FILE).exists():
        # or the next save would put it in the place of the one that is whole
        os.replace(run_dir / CHECKPOINT_FILE, run_dir / f"{CHECKPOINT_FILE}.damaged")


@contextmanager
def _told_in_one_line(
    cfg: DictConfig,
    run_dir: Path,
    resume: Path | None,
    trainer: pl.Trainer,
    reporter: EpochReporter,
) -> Iterator[None]:
    """Turn what ends a training before its time into errors that say how to resume it."""
    try:
        with unknown_options_named(cfg):
            yield
    except RuntimeError as error:
        if is_lost_rank(error):
            raise RankLostError(
                "another rank of this job has ended, or did not answer within rank_timeout="
                f"{cfg.get('rank_timeout')} seconds; its own message says why. "
                f"{how_to_resume(run_dir, trainer.current_epoch)}"
            ) from error
        if "loading state_dict" not in str(error):
            raise
        raise ValueError(
            f"the weights in {resume} are of another network or method than this recipe's "
            f"{cfg.method} with {cfg.backbone.name}: {str(error).splitlines()[-1].strip()}"
        ) from error
    except (KeyboardInterrupt, SystemExit) as stop:
        raise Interrupted(how_to_resume(run_dir, trainer.current_epoch)) from stop
    finally:
        reporter.stop()
    if getattr(trainer, "interrupted", False):
        raise Interrupted(how_to_resume(run_dir, trainer.current_epoch))


def _keep_list(path: Path, cfg: DictConfig, dataset: Any) -> None:
    """Write down which images labels will belong to."""
    if not has_pseudo_labels(cfg.method):
        return
    index = None if cfg.data.get("held_out") else cfg.data.get("index")
    if isinstance(dataset, PackedImages) and dataset.rows is None:
        index = dataset.store.index.path
    if index:
        path.unlink(missing_ok=True)
        try:
            os.link(index, path)  # keeps the content, also when the file is made anew
        except OSError:
            shutil.copyfile(index, path)
        return
    names = relative_paths(dataset)
    if names is not None:
        save_index(path, [("", names)])


def _records(
    cfg: DictConfig, run_dir: Path, loader: DataLoader[Any], reporter: EpochReporter
) -> list[pl.Callback]:
    """Return the callbacks that write a run's history, cost, checkpoints and snapshots."""
    batch = cfg.optimizer.batch_size * num_devices(cfg)
    num_images = len(loader.dataset)  # type: ignore[arg-type]
    records: list[pl.Callback] = [
        FollowOrder(loader.sampler),
        History(run_dir / HISTORY_FILE, reporter),
        RunCost(run_dir / COST_FILE, num_images, views_per_image(cfg), batch),
        RunCheckpoint(
            run_dir / CHECKPOINT_FILE, run_dir / PREVIOUS_FILE, cfg.get("checkpoint_steps", 0)
        ),
        FiniteLoss(),
    ]
    if cfg.get("max_seconds"):
        on_processor = uses_processor_clock(cfg)
        history = run_dir / HISTORY_FILE
        records.insert(0, TimeBudget(cfg.max_seconds, on_processor=on_processor, history=history))
    if cfg.get("snapshots"):
        records.insert(-2, Snapshots(run_dir / SNAPSHOTS, cfg.snapshots))
    return records


def _check_network(network: Any, crop_size: int) -> None:
    """Refuse, before anything is written, images that the network does not take."""
    shape = layer_shapes(network, [FEATURES], crop_size)[FEATURES]
    width = getattr(network, "num_features", None) or getattr(network, "inplanes", None)
    if width is not None and shape != (width,):
        raise ValueError(
            f"this {type(network).__name__} puts out {shape} where {width} features are expected: "
            f"choose another backbone.name or backbone.kwargs"
        )
