"""Pretraining with any method of the installed host, from one recipe, on either line."""

from __future__ import annotations

import inspect
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from uic_plugin.data.resolve import DataSource, resolve_data
from uic_plugin.errors import Interrupted
from uic_plugin.hosts import load_host, register
from uic_plugin.hosts.datasets import eval_datasets, pretrain_loader
from uic_plugin.report.progress import EpochReporter

CONFIG_FILE, CHECKPOINT_FILE, HISTORY_FILE = "config.yaml", "last.ckpt", "epochs.csv"
# What may differ between a run and its continuation.
_FREE_KEYS = (
    "run_dir",
    "max_epochs",
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


@dataclass(frozen=True)
class PretrainResult:
    """A finished run.

    Attributes:
        run_dir: its folder, with `config.yaml`, `last.ckpt` and `epochs.csv`.
        seconds: wall time of this call.
        resumed_from: epoch at which it went on, 0 from the start.
    """

    run_dir: Path
    seconds: float
    resumed_from: int


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
    cfg.data.train_path, cfg.data.val_path = str(source.train), str(source.val or "") or None
    cfg.data.num_classes = source.num_classes
    cfg.knn_eval.enabled = bool(cfg.knn_eval.enabled and source.labelled and source.val)
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
        return PretrainResult(run_dir, 0.0, done)

    loader = pretrain_loader(cfg, source)
    method = build_method(cfg)
    val_loader = None
    if source.labelled and source.val is not None and cfg.knn_eval.enabled:
        val_loader = _val_loader(cfg, source)
    run_dir.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        part = run_dir / f"{CONFIG_FILE}.part"
        part.write_text(OmegaConf.to_yaml(cfg))
        os.replace(part, run_dir / CONFIG_FILE)

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
    try:
        fit(trainer, method, loader, val_loader, resume)
    except (KeyboardInterrupt, SystemExit) as stop:
        raise Interrupted(_how_to_go_on(run_dir, trainer.current_epoch)) from stop
    finally:
        reporter.stop()
    if getattr(trainer, "interrupted", False):
        raise Interrupted(_how_to_go_on(run_dir, trainer.current_epoch))
    return PretrainResult(run_dir, time.perf_counter() - started, done)


def make_trainer(cfg: DictConfig, *, max_epochs: int, callbacks: list[Any]) -> Any:
    """The host's Trainer, silent but for our own callbacks."""
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
    return host.pl.Trainer(**arguments)


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
    devices = cfg.devices
    if isinstance(devices, int):
        return max(1, torch.cuda.device_count()) if devices == -1 else max(1, devices)
    return int(devices) if isinstance(devices, str) and devices.isdigit() else len(devices)


def _val_loader(cfg: DictConfig, source: DataSource) -> Any:
    from uic_plugin.hosts.datasets import _loader

    return _loader(eval_datasets(cfg, source)[1], cfg, shuffle=False, drop_last=False)


def _find_resume(cfg: DictConfig, run_dir: Path) -> Path | None:
    """The checkpoint to go on from: the one named, or this run folder's own."""
    if cfg.get("resume_from_checkpoint"):
        return Path(cfg.resume_from_checkpoint)
    if not (run_dir / CHECKPOINT_FILE).exists():
        return None
    kept = OmegaConf.load(run_dir / CONFIG_FILE) if (run_dir / CONFIG_FILE).exists() else None
    if isinstance(kept, DictConfig):
        different = _differences(kept, cfg)
        if different:
            raise ValueError(
                f"{run_dir} holds a run with other settings ({'; '.join(different[:3])}): give "
                f"another run_dir=FOLDER, or remove that folder to start anew"
            )
    return run_dir / CHECKPOINT_FILE


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
    return [
        f"{key}: {old.get(key)} there, {new.get(key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in _FREE_KEYS)
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
