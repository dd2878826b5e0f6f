"""`uic labels`: carry labels over, apply corrections."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, terminal

labels_app = typer.Typer(help="What becomes of a run's labels.", no_args_is_help=True)


@labels_app.callback()
def _labels() -> None:
    """What becomes of a run's labels."""


@labels_app.command("migrate")
def migrate(
    run: RunPath,
    data: Annotated[Path, typer.Option(help="The folder of images as it is now.")],
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write; migrated.ckpt beside the old one.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="List of the images as they were, if not the run's own.")
    ] = None,
) -> None:
    """Carry labels over to a folder where images were added or removed."""
    from uic_plugin.report.progress import counting
    from uic_plugin.runs.migrate import migrate_labels

    out = out or (run if run.is_dir() else run.parent) / "migrated.ckpt"
    with counting("new images labelled", terminal()) as progress:
        done = migrate_labels(run, data, out, index=index, progress=progress)
    terminal().print(
        f"{out}: {done.kept} images keep their label, {done.added} new ones have one now, "
        f"{done.removed} are gone; {done.splits} empty classes filled"
    )
    terminal().print(
        f"Next: the run's own command with data.train_path={data} data.index=null "
        f"data.fraction=-1 resume_from_checkpoint={out} run_dir=ANOTHER (a finished run has no "
        f"epochs left: only schedulers none and step take a higher max_epochs)"
    )


@labels_app.command("apply")
def apply(
    edits: Annotated[Path, typer.Argument(help="edits.json, as the page of classes saves it.")],
    labels: Annotated[Path, typer.Argument(help="The label file that the page was made of.")],
    out: Annotated[Path, typer.Option(help="Label file to write, .parquet or .csv.")],
    wrong: Annotated[
        str, typer.Option(help="Images marked as wrong: keep, second (best class) or drop.")
    ] = "keep",
    keep_numbers: Annotated[
        bool, typer.Option("--keep-numbers", help="Leave gaps where classes are gone.")
    ] = False,
) -> None:
    """Apply names, merges, splits and moves to a label file."""
    from uic_plugin.data.edits import apply_edits
    from uic_plugin.data.edits_file import read_edits
    from uic_plugin.data.labels import (
        TRAIN_LABELLED,
        check_label_file,
        export_labelled,
        read_labels,
        write_labels,
    )
    from uic_plugin.recipes_path import path_override

    check_label_file(out)
    table = read_labels(labels)
    if out.exists() and out.samefile(labels):
        raise ValueError(f"--out {out} is the label file itself, which the edits belong to")
    done = apply_edits(table, read_edits(edits), wrong=wrong, renumber=not keep_numbers)
    write_labels(out, done.table)
    highest = int(done.table.labels.max(initial=-1)) + 1
    terminal().print(
        f"{out}: {len(done.table)} images in {done.classes} classes, {len(done.table.names)} of "
        f"them named; {done.moved} images changed class, {done.dropped} were left out"
    )
    if done.wrong:
        terminal().print(
            f"{done.wrong} images marked as wrong keep their class: --wrong second gives them the "
            f"second-best, --wrong drop leaves them out"
        )
    recipe = ("uic", "pretrain", "--config-name", "custom/uic_paper", "data.train_path=FOLDER")
    labelled = path_override("method_kwargs.fixed_labels", out)
    train = shlex.join((*recipe, labelled, f"method_kwargs.num_pseudo_classes={highest}"))
    if not done.dropped:
        terminal().print(f"Next: {train}")
        return
    terminal().print(
        f"Next: {export_labelled(str(out))}\nthen: {TRAIN_LABELLED}\n"
        f"or, with the {done.dropped} that were left out moved out of the folder: {train}"
    )
