"""`uic pretrain`: train a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import Overrides, terminal

ConfigName = Annotated[str, typer.Option("--config-name", help="A recipe, as cifar10/uic.")]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="Your own folder of recipes.")]


def pretrain(
    config_name: ConfigName,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    page: Annotated[
        bool, typer.Option(help="End with labels.csv and a page of the classes in the run folder.")
    ] = True,
) -> None:
    """Train a recipe; the same command resumes where it was stopped."""
    from uic_plugin.recipes_path import compose_recipe
    from uic_plugin.runs.folder import HISTORY_FILE
    from uic_plugin.runs.training import pretrain as run

    cfg = compose_recipe(config_name, overrides or [], config_dir)
    result = run(cfg)
    if not result.is_main:
        return
    if result.resumed_from >= cfg.max_epochs:
        terminal().print(
            f"{result.run_dir} is finished: {result.resumed_from} epochs. "
            f"A longer schedule is another run: give it another run_dir."
        )
        return
    terminal().print(
        f"{result.seconds:.0f} s. Run folder: {result.run_dir} ({HISTORY_FILE} has every epoch)"
    )
    run_dir = shlex.quote(str(result.run_dir))
    after = f"uic knn {run_dir}   uic linear {run_dir}"
    if not result.has_annotations:  # which both need
        after = f"uic label {run_dir} MORE_IMAGES --out labels.parquet"
    terminal().print(f"Next: {after}")
    if page:
        from uic_plugin.runs.class_page import page_of_run

        try:
            written = page_of_run(result.run_dir, terminal())
        except (ValueError, OSError, ImportError) as error:
            terminal().print(f"There is no page of the classes: {error}")  # the run is whole
            return
        if written is not None:
            terminal().print(f"Look at the classes in a browser: {written.resolve()}")
