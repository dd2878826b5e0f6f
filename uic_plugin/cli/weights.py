"""`uic weights`: a run's network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, terminal


def weights(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="File to write, .pth or .safetensors.")],
    layout: Annotated[
        str, typer.Option(help="torchvision or timm: whose names; solo-learn: a checkpoint.")
    ] = "torchvision",
) -> None:
    """Write the network of a run without its heads, for torchvision, timm and others."""
    from uic_plugin.networks.weights import save_weights
    from uic_plugin.runs.run import Run

    opened = Run.open(run)
    save_weights(opened.backbone, out, layout=layout)
    name = opened.config.backbone.name
    terminal().print(f"{out}: {name} of {opened.checkpoint}, layout of {layout}")
