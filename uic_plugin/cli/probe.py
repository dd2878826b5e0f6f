"""`uic probe`: the paper's linear probes."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import (
    Layers,
    RunPath,
    Set,
    Stores,
    Untrained,
    names_of,
    terminal,
)
from uic_plugin.cli.options import options_of
from uic_plugin.evaluation.probe_settings import ProbeSettings


@options_of(ProbeSettings, leave_out=("on_bad_image",))
def probe(
    run: RunPath,
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with train/ and val/, a subfolder per class; the run's own."),
    ] = None,
    layers: Layers = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; 'probe' in the run folder.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Crop in pixels; the recipe's.")] = None,
    resize: Annotated[
        int | None, typer.Option(help="Shorter side before the crop; 256/224 of it by default.")
    ] = None,
    processes: Annotated[
        int, typer.Option(help="On this machine; torchrun starts more machines.")
    ] = 1,
    untrained: Untrained = False,
    features: Stores = None,
    set_: Set = None,
    *,
    settings: ProbeSettings,
) -> None:
    """The paper's linear probes: a linear layer on each layer of the frozen network."""
    from uic_plugin.ranks import run_processes
    from uic_plugin.report.tables import probe_table
    from uic_plugin.runs.folder import read_run
    from uic_plugin.runs.probing import RESULTS_FILE, default_layers, probe_run
    from uic_plugin.runs.run import Run

    overrides = list(set_ or [])
    if data is not None:
        # as JSON, which YAML reads as one text whatever is in it
        parts = {"data.train_path": data / "train", "data.val_path": data / "val"}
        overrides += [f"{key}={json.dumps(str(path))}" for key, path in parts.items()]
        overrides += ["data.fraction=-1", "data.no_labels=false"]
    if processes < 1:
        raise ValueError(f"--processes must be at least 1, got {processes}")
    own = read_run(run)[0].data.train_path
    opened = Run.open(run, overrides, untrained=untrained, needs_images=True)
    images = opened.config.data
    is_own = own is not None and Path(own).resolve() == Path(images.train_path).resolve()
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        raise typer.Exit(run_processes(["-m", "uic_plugin.cli", *sys.argv[1:]], processes))
    folder = out or opened.folder / ("probe-untrained" if untrained else "probe")
    results = probe_run(
        opened,
        names_of(layers) or ([] if features else default_layers(opened)),
        dataclasses.replace(settings, on_bad_image=images.on_bad_image),
        folder,
        image_size=image_size,
        resize=resize,
        # those that the run was trained on it has seen enlarged
        enlarge=resize is not None or (is_own and image_size is None),
        stores=features or [],
        say=terminal().print,
    )
    if results:
        terminal().print(probe_table(results))
        terminal().print(f"top-1/top-5 in percent; {folder / RESULTS_FILE}")
