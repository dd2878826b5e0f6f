"""Pretraining with any method of the installed host, from one recipe, on either line."""

from __future__ import annotations

import inspect
import logging
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from uic_plugin.data.resolve import DataSource, resolve_data
from uic_plugin.errors import Interrupted
from uic_plugin.hosts import load_host, register
from uic_plugin.hosts.datasets import eval_datasets, image_loader, pretrain_loader
from uic_plugin.hosts.foreign import HOST_OPTIONS, own_options
from uic_plugin.methods import UICOptions
from uic_plugin.recipes_path import TYPED_KEY
from uic_plugin.report.progress import EpochReporter

CONFIG_FILE, CHECKPOINT_FILE, HISTORY_FILE = "config.yaml", "last.ckpt", "epochs.csv"
# What may differ between a run and its continuation.
_FREE_KEYS = (
    "run_dir",
    "accelerator",
    "devices",
    "strategy",
    "linear",
    "knn",
    "resume_from_checkpoint",
    "data.num_workers",
    "data.on_bad_image",
    "method_kwargs.on_bad_image",
)
# Sections of solo-learn's recipes that its own scripts read and `uic pretrain` does not.
_UNUSED_SECTIONS = ("wandb", "checkpoint", "auto_resume", "auto_umap", "dali")
# Settings that go to Lightning's Trainer as they are.
_TRAINER_KEYS = (
    "accumulate_grad_batches",
    "gradient_clip_val",
    "num_nodes",
    "limit_train_batches",
    "limit_val_batches",
    "check_val_every_n_epoch",
    "log_every_n_steps",
    "deterministic",
)


@dataclass(frozen=True)
class PretrainResult:
    """A finished run.

    Attributes:
        run_dir: its folder, with `config.yaml`, `last.ckpt` and `epochs.csv`.
        seconds: wall time of this call.
        resumed_from: epoch at which it went on, 0 from the start.
        is_main: whether this process is the one of all ranks that speaks.
    """

    run_dir: Path
    seconds: float
    resumed_from: int
    is_main: bool = True


def prepare_config(cfg: DictConfig) -> tuple[DictConfig, DataSource]:
    """A recipe with everything that follows from data and hardware filled in.

    Raises:
        ValueError: for a method, network or number that cannot be.
        FileNotFoundError: for data that is not there.
    """
    host = load_host()
    register()
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    typed = cfg.pop(TYPED_KEY, [])
    if cfg.method not in host.METHODS or cfg.method in ("base", "linear"):
        known = sorted(set(host.METHODS) - {"base", "linear"})
        raise ValueError(f"unknown method {cfg.method!r}: one of {', '.join(known)}")
    if cfg.backbone.name not in host.backbone_names():
        raise ValueError(
            f"unknown backbone.name {cfg.backbone.name!r}: one of "
            f"{', '.join(host.backbone_names())}"
        )
    for key, lowest in (("max_epochs", 1), ("optimizer.batch_size", 1), ("data.num_workers", 0)):
        value = OmegaConf.select(cfg, key)
        if type(value) is not int or value < lowest:
            raise ValueError(f"{key} must be a whole number of at least {lowest}, got {value!r}")
    source = resolve_data(cfg.data)
    cfg.data.train_path = str(source.train.resolve())
    cfg.data.val_path = str(source.val.resolve()) if source.val else None
    cfg.data.num_classes = source.num_classes
    cfg.knn_eval.enabled = bool(cfg.knn_eval.enabled and source.labelled and source.val)
    _check_method_options(cfg, typed)
    unused = [name for name in _UNUSED_SECTIONS if name in cfg]
    if unused:
        warnings.warn(f"uic pretrain does not use {', '.join(unused)} of the recipe", stacklevel=2)
    # said for the data it holds for every method; said for uic it is what the host's scripts take
    policy = cfg.data.get("on_bad_image") or cfg.method_kwargs.get("on_bad_image") or "stop"
    if policy not in ("stop", "skip"):
        raise ValueError(f"data.on_bad_image must be stop or skip, got {policy!r}")
    cfg.data.on_bad_image = policy
    if cfg.method == "uic":
        cfg.method_kwargs.on_bad_image = policy
    return cfg, source


def build_method(cfg: DictConfig) -> Any:
    """The method of a prepared recipe, its weights seeded, its learning rates scaled.

    As in solo-learn, `optimizer.lr` is meant for 256 images and scaled to the images of a step.
    """
    host = load_host()
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    crops = [p.num_crops for p in cfg.augmentations]
    cfg.data.num_large_crops, cfg.data.num_small_crops = sum(crops), 0
    scale = cfg.optimizer.batch_size * _num_devices(cfg) / 256
    cfg.optimizer.lr *= scale
    cfg.optimizer.classifier_lr *= scale
    if cfg.optimizer.name in ("sgd", "lars"):  # what the host's own scripts fill in
        cfg.optimizer.kwargs.setdefault("momentum", 0.9)
    host.pl.seed_everything(cfg.seed)
    try:
        method = host.build_method(cfg)
    except TypeError as error:  # the host hands kwargs on as they are
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(
            f"{cfg.method} with {cfg.backbone.name} does not take an option of the recipe: "
            f"{error}; look at method_kwargs and backbone.kwargs"
        ) from error
    if not cfg.performance.disable_channel_last:  # the host's scripts do this outside the method
        method = method.to(memory_format=torch.channels_last)
    return method


def one_view(cfg: DictConfig) -> None:
    """Let a recipe's augmentation make the number of views that UIC was asked for."""
    if cfg.method == "uic":
        cfg.augmentations = [cfg.augmentations[0]]
        cfg.augmentations[0].num_crops = cfg.method_kwargs.get("views", 1)


def pretrain(
    cfg: DictConfig, *, reporter: EpochReporter | None = None, callbacks: tuple[Any, ...] = ()
) -> PretrainResult:
    """Train a recipe to its last epoch, going on where an earlier call was stopped.

    Args:
        cfg: the composed recipe.
        reporter: shows the progress.
        callbacks: further Lightning callbacks.

    Raises:
        ValueError: for a recipe that cannot be, or a run folder of other settings.
        FileNotFoundError: for data or a checkpoint that is not there.
        CheckpointError: if a checkpoint cannot be written.
        Interrupted: if the user stopped the run.
    """
    from uic_plugin.hosts.callbacks import EpochCheckpoint, History

    started = time.perf_counter()
    cfg, source = prepare_config(cfg)
    one_view(cfg)
    run_dir = Path(cfg.run_dir)
    resume = _find_resume(cfg, run_dir)
    done = _epochs_of(resume, cfg) if resume else 0
    if resume and done >= cfg.max_epochs:
        if resume != run_dir / CHECKPOINT_FILE:
            raise ValueError(
                f"{resume} has {done} epochs behind it, max_epochs={cfg.max_epochs} is not more"
            )
        return PretrainResult(run_dir, 0.0, done)

    loader = pretrain_loader(cfg, source)
    method = build_method(cfg)
    val_loader = None
    if source.labelled and source.val is not None and cfg.knn_eval.enabled:
        val_loader = image_loader(eval_datasets(cfg, source)[1], cfg)
    run_dir.mkdir(parents=True, exist_ok=True)
    reporter = reporter or EpochReporter(cfg.method)
    trainer = make_trainer(
        cfg,
        max_epochs=cfg.max_epochs,
        callbacks=[
            History(run_dir / HISTORY_FILE, reporter),
            EpochCheckpoint(run_dir / CHECKPOINT_FILE),
            *callbacks,
        ],
    )
    if trainer.is_global_zero:
        part = run_dir / f"{CONFIG_FILE}.part"
        part.write_text(OmegaConf.to_yaml(cfg))
        os.replace(part, run_dir / CONFIG_FILE)
    try:
        fit(trainer, method, loader, val_loader, resume)
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise ValueError(
            f"the weights in {resume} are of another network or method than this recipe's "
            f"{cfg.method} with {cfg.backbone.name}: {str(error).splitlines()[-1].strip()}"
        ) from error
    except (KeyboardInterrupt, SystemExit) as stop:
        raise Interrupted(_how_to_go_on(run_dir, trainer.current_epoch)) from stop
    finally:
        reporter.stop()
    if getattr(trainer, "interrupted", False):
        raise Interrupted(_how_to_go_on(run_dir, trainer.current_epoch))
    return PretrainResult(
        run_dir, time.perf_counter() - started, done, is_main=trainer.is_global_zero
    )


def make_trainer(cfg: DictConfig, *, max_epochs: int, callbacks: list[Any]) -> Any:
    """The host's Trainer, silent but for our own callbacks.

    Raises:
        ValueError: for hardware that is not there, or numbers that Lightning does not take.
    """
    host = load_host()
    arguments: dict[str, Any] = {
        "max_epochs": max_epochs,
        "accelerator": cfg.accelerator,
        "devices": cfg.devices,
        "precision": _precision(cfg.precision),
        "logger": False,
        "callbacks": callbacks,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "sync_batchnorm": cfg.get("sync_batchnorm", False) and torch.cuda.is_available(),
    }
    if _num_devices(cfg) > 1:
        arguments["strategy"] = cfg.get("strategy") or "ddp"
    arguments.update({name: cfg[name] for name in _TRAINER_KEYS if cfg.get(name) is not None})
    try:
        return host.pl.Trainer(**arguments)
    except Exception as error:  # Lightning has an exception of its own for each line
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise ValueError(
            f"accelerator={cfg.accelerator} devices={cfg.devices} precision={cfg.precision} "
            f"cannot be had here ({' '.join(str(error).split())}): set accelerator=cpu devices=1 "
            f"precision=32, say"
        ) from error


def fit(
    trainer: Any, module: Any, train: Any, val: Any = None, checkpoint: Path | None = None
) -> None:
    """`Trainer.fit` on either line; checkpoints are read as tensors and plain values."""
    arguments: dict[str, Any] = {"ckpt_path": str(checkpoint) if checkpoint else None}
    if "weights_only" in inspect.signature(trainer.fit).parameters:
        arguments["weights_only"] = True
    trainer.fit(module, train, val, **arguments)


def load_run(path: Path) -> tuple[DictConfig, Path]:
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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is no checkpoint of a training run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise ValueError(f"{path} is not a checkpoint, or is damaged") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} is not a checkpoint of a training run: it has no weights")
    return content


def _precision(name: Any) -> Any:
    """Lightning 2's names on Lightning 1, where "bf16" and 16 mean mixed precision."""
    if int(load_host().pl.__version__.split(".")[0]) >= 2:
        return name
    return {"bf16-mixed": "bf16", "16-mixed": 16}.get(str(name), name)


def _num_devices(cfg: DictConfig) -> int:
    """How many processes share a step.

    Raises:
        ValueError: for a value that is no number or list of devices.
    """
    devices = cfg.devices
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        parts = devices.split(",")
        if not all(part.strip().isdigit() for part in parts):
            raise ValueError(f"devices must be a number, a list or auto, got {devices!r}")
        devices = int(devices) if len(parts) == 1 else parts
    if devices in ("auto", "-1", -1):
        on_cpu = cfg.accelerator == "cpu" or not torch.cuda.is_available()
        devices = 1 if on_cpu else torch.cuda.device_count()
    count = devices if isinstance(devices, int) else len(devices)
    if count < 1:
        raise ValueError(f"devices must be at least 1, got {cfg.devices!r}")
    return count * int(cfg.get("num_nodes") or 1)


def _find_resume(cfg: DictConfig, run_dir: Path) -> Path | None:
    """The checkpoint to go on from: this run folder's own, else the one that the recipe names."""
    own = run_dir / CHECKPOINT_FILE
    named = Path(cfg.resume_from_checkpoint) if cfg.get("resume_from_checkpoint") else None
    checkpoint = own if own.exists() else named
    if checkpoint is None:
        return None
    beside = checkpoint.parent / CONFIG_FILE
    kept = OmegaConf.load(beside) if beside.exists() else None
    if isinstance(kept, DictConfig):
        _check_schedule(kept, cfg, checkpoint)
    if checkpoint == own and isinstance(kept, DictConfig):
        different = _differences(kept, cfg)
        if different:
            raise ValueError(
                f"{run_dir} holds a run with other settings ({'; '.join(different[:3])}): give "
                f"another run_dir=FOLDER, or remove that folder to start anew"
            )
    return checkpoint


def _check_schedule(kept: DictConfig, cfg: DictConfig, checkpoint: Path) -> None:
    """Refuse another length for a schedule that has a length: it would not be followed."""
    if kept.max_epochs != cfg.max_epochs and cfg.scheduler.name not in ("none", "step"):
        raise ValueError(
            f"{checkpoint} was trained on a {cfg.scheduler.name} schedule of {kept.max_epochs} "
            f"epochs, max_epochs is {cfg.max_epochs} now: a schedule of another length is another "
            f"run, give it another run_dir=FOLDER (schedulers none and step can be prolonged)"
        )


def _check_method_options(cfg: DictConfig, typed: list[str]) -> None:
    """Resolve UIC's options; for the host's methods, refuse names that none of them knows."""
    given: Any = OmegaConf.to_container(cfg.method_kwargs)
    if cfg.method == "uic":
        cfg.method_kwargs = UICOptions.from_mapping(own_options(given, typed)).as_dict()
        return
    unknown = [name for name in cfg.method_kwargs if name not in HOST_OPTIONS]
    if unknown:
        raise ValueError(
            f"unknown option method_kwargs.{unknown[0]}: no method of the host has it; the recipe "
            f"has {', '.join(n for n in cfg.method_kwargs if n not in unknown)}"
        )


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
    free = [*_FREE_KEYS, "max_epochs"]  # the schedule has been looked at
    if cfg.method == "uic":  # whose labels carry a fingerprint of the images: the folder may move
        free += ["data.train_path", "data.val_path"]
    return [
        f"{key}: {old.get(key)} there, {new.get(key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in free)
    ]


def _epochs_of(path: Path, cfg: DictConfig) -> int:
    """Epochs behind a checkpoint; refuses one of another method."""
    from uic_plugin.methods import CHECKPOINT_KEY

    content = read_checkpoint(path)
    if (cfg.method == "uic") != (CHECKPOINT_KEY in content):
        wrote = "uic" if CHECKPOINT_KEY in content else "another method"
        raise ValueError(
            f"{path} was written by {wrote}, this run is of {cfg.method}: resume it with the "
            f"method that wrote it, or start in another run_dir"
        )
    if CHECKPOINT_KEY in content:
        return int(content[CHECKPOINT_KEY]["bank"]["epoch"])
    return int(content["epoch"]) + 1


def _how_to_go_on(run_dir: Path, epoch: int) -> str:
    if (run_dir / CHECKPOINT_FILE).exists():
        return (
            f"stopped in epoch {epoch + 1}; {run_dir / CHECKPOINT_FILE} holds the epochs before "
            f"it: the same command goes on from there"
        )
    return "stopped before the first epoch was over: the same command starts anew"
