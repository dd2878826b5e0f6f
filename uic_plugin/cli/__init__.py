"""The `uic` command: thin, each subcommand one call."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import typer

from uic_plugin.cli import (
    classes,
    compare,
    costs,
    data,
    demo,
    discover,
    doctor,
    embed,
    export,
    fewshot,
    knn,
    label,
    labels,
    linear,
    measure,
    paper,
    pretrain,
    probe,
    recipes,
    transfer,
    voc_classify,
    voc_detect,
    voc_segment,
    weights,
)
from uic_plugin.threads import wait_passively

app = typer.Typer(
    help="Learn classes and features from images without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    pretrain.pretrain,
    knn.knn,
    linear.linear,
    probe.probe,
    fewshot.fewshot,
    transfer.transfer,
    voc_classify.voc_classify,
    voc_detect.voc_detect,
    voc_segment.voc_segment,
    embed.embed,
    discover.discover,
    label.label,
    classes.classes,
    weights.weights,
    export.export,
    paper.paper,
    compare.compare,
    measure.measure,
    costs.costs,
    doctor.doctor,
    recipes.recipes,
    demo.demo,
):
    app.command()(command)
app.add_typer(data.data_app, name="data")
app.add_typer(labels.labels_app, name="labels")


def main() -> None:
    """Run the command; a user's mistake is one line and exit code 1, not a stack trace."""
    wait_passively()  # nothing above has imported torch: the subcommands do
    debug = "--debug" in sys.argv or bool(os.environ.get("UIC_DEBUG"))
    sys.argv = _joined_layers([argument for argument in sys.argv if argument != "--debug"])
    if not debug:
        _show_own_warnings()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, SystemExit) as end:
        if not _is_interrupt(end):
            raise
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        from uic_plugin.errors import Interrupted

        if debug or not isinstance(error, Interrupted):
            raise
        print(str(error), file=sys.stderr)
        raise SystemExit(130) from None


def _is_interrupt(end: BaseException | None) -> bool:
    """Tell whether Ctrl-C ended a command; typer may have made an exit of it."""
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__cause__ or end.__context__
    return end is not None


def _joined_layers(arguments: list[str]) -> list[str]:
    """`--layers conv1 conv2` as `--layers conv1,conv2`: an option of typer takes one value.

    In commands that take several layers alone: in others a word behind it is something else, as a
    folder that was mistyped.
    """
    if arguments[1:2] not in (["probe"], ["fewshot"]):
        return arguments
    joined: list[str] = []
    for argument in arguments:
        takes_names = len(joined) > 1 and joined[-2] in ("--layers", "-l")
        is_name = (
            re.fullmatch(r"[A-Za-z]\w*(\.\w+)*(\+(mp|mean))?", argument)
            and not Path(argument).exists()
        )
        if takes_names and is_name:
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _show_own_warnings() -> None:
    """Warnings of this package as one line; those of the host's old dependencies not at all."""

    def show(message: Any, category: Any, filename: str, *_: Any, **__: Any) -> None:
        if f"{os.sep}uic_plugin{os.sep}" in filename and issubclass(category, UserWarning):
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    warnings.simplefilter("default")
    logging.captureWarnings(False)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
