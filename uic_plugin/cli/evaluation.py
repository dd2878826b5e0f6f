"""`uic knn`, `linear` and `probe`: a run's frozen network."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from uic_plugin.cli.common import Overrides, Run, Set, Untrained, terminal


def knn(run: Run, overrides: Overrides = None, untrained: Untrained = False) -> None:
    """The host's weighted k-NN accuracy on the frozen features of a run."""
    from uic_plugin.runs.evaluation import extract_features, knn_accuracy

    method, cfg, source, weights = _load(run, overrides, untrained)
    accuracy = knn_accuracy(extract_features(method, cfg, source), **cfg.knn)
    terminal().print(f"k-NN top-1 {accuracy:.2f} %  (k={cfg.knn.k}, {cfg.knn.distance}) {weights}")


def linear(run: Run, overrides: Overrides = None, untrained: Untrained = False) -> None:
    """The host's linear evaluation on the frozen features of a run."""
    from uic_plugin.runs.evaluation import linear_accuracy

    method, cfg, source, weights = _load(run, overrides, untrained)
    accuracy = linear_accuracy(method, cfg, source)
    terminal().print(f"linear top-1 {accuracy:.2f} %  ({cfg.linear.max_epochs} epochs) {weights}")


def _load(run: Path, overrides: list[str] | None, untrained: bool) -> tuple[Any, Any, Any, str]:
    """Method, recipe, images, and what its weights are."""
    from uic_plugin.runs.evaluation import load_method
    from uic_plugin.runs.folder import open_run

    cfg, checkpoint = open_run(run, overrides or [])
    method, cfg, source = load_method(cfg, None if untrained else checkpoint)
    weights = f"random weights of seed {cfg.seed}" if untrained else str(checkpoint)
    return method, cfg, source, weights


def probe(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with train/ and val/, a subfolder per class; the run's own."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", "-l", help="Names, with commas or repeated; conv1,...,conv5."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; 'probe' in the run folder.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate of a batch; not scaled.")] = 0.1,
    lr_decay_epochs: Annotated[
        str, typer.Option(help="Epochs after which it is multiplied by --lr-decay.")
    ] = "10,20,30",
    lr_decay: Annotated[float, typer.Option()] = 0.1,
    momentum: Annotated[float, typer.Option()] = 0.9,
    weight_decay: Annotated[float, typer.Option()] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Images a step, over all processes.")] = 256,
    features: Annotated[
        int, typer.Option(help="Max-pool every layer to about so many values.")
    ] = 9200,
    crops: Annotated[int, typer.Option(help="10 or 1, of each test image.")] = 10,
    image_size: Annotated[
        int | None, typer.Option(help="Crop in pixels; the recipe's unless told.")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Shorter side before the crop; 256/224 of it unless told.")
    ] = None,
    store_features: Annotated[
        bool, typer.Option("--store-features", help="One centred view, computed once, in memory.")
    ] = False,
    precision: Annotated[str, typer.Option(help="32 or bf16, of the frozen network.")] = "32",
    seed: Annotated[int, typer.Option(help="Of the probes, the order and the crops.")] = 0,
    processes: Annotated[
        int, typer.Option(help="On this machine; torchrun starts more machines.")
    ] = 1,
    untrained: Untrained = False,
    set_: Set = None,
) -> None:
    """The paper's linear probes: a linear layer on each layer of the frozen network."""
    from uic_plugin.evaluation.probe_settings import ProbeSettings
    from uic_plugin.ranks import run_processes
    from uic_plugin.report.tables import probe_table
    from uic_plugin.runs.evaluation import load_method
    from uic_plugin.runs.folder import open_run
    from uic_plugin.runs.probing import RESULTS_FILE, default_layers, probe_run

    overrides = list(set_ or [])
    if data is not None:
        overrides += [f"data.train_path={data / 'train'}", f"data.val_path={data / 'val'}"]
        overrides += ["data.fraction=-1", "data.no_labels=false"]
    settings = ProbeSettings(
        epochs=epochs,
        lr=lr,
        lr_decay_epochs=_numbers("--lr-decay-epochs", lr_decay_epochs),
        lr_decay=lr_decay,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        features=features,
        crops=crops,
        store_features=store_features,
        precision=precision,
        seed=seed,
    )
    if processes < 1:
        raise ValueError(f"--processes must be at least 1, got {processes}")
    own = open_run(run)[0].data.train_path
    cfg, checkpoint = open_run(run, overrides)
    method, cfg, source = load_method(cfg, None if untrained else checkpoint)
    settings = dataclasses.replace(settings, on_bad_image=cfg.data.on_bad_image)
    is_own = own is not None and Path(own).resolve() == Path(cfg.data.train_path).resolve()
    names = [name for part in layers or [] for name in part.split(",")]
    folder = checkpoint.parent / ("probe-untrained" if untrained else "probe")
    folder = out if out is not None else folder
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        raise typer.Exit(run_processes(["-m", "uic_plugin.cli", *sys.argv[1:]], processes))
    results = probe_run(
        method,
        cfg,
        source,
        names or default_layers(method),
        settings,
        folder,
        image_size=image_size,
        resize=resize,
        # those that the run was trained on it has seen enlarged
        enlarge=resize is not None or (is_own and image_size is None),
        say=terminal().print,
    )
    if results:
        terminal().print(probe_table(results))
        terminal().print(f"top-1/top-5 in percent; {folder / RESULTS_FILE}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{option} must be whole numbers with commas, got {text!r}") from None
