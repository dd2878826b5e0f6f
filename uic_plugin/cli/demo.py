"""`uic demo`: classes of handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import terminal


def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of all three networks.")] = 0,
) -> None:
    """Learn classes of handwritten digits, beside SimCLR and an untrained network."""
    from uic_plugin.experiments.demo import run_demo

    run_demo(out_dir, seed=seed, console=terminal())
