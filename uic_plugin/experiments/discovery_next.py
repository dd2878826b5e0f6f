"""What `uic discover` ends with: where the page is, or why there is none, and what comes next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from uic_plugin.data.folders import ImageList
from uic_plugin.discovery.folder import PAGE_FOLDER
from uic_plugin.networks.layers import AUTO_LAYER
from uic_plugin.report.page import describe_map

if TYPE_CHECKING:  # which imports this
    from uic_plugin.experiments.discovery import Request


def say_next(
    request: Request, images: ImageList, labels: Path, page: Path | None, console: Console
) -> None:
    """Print where the page is, or why there is none, and the commands that come next.

    Args:
        request: the options.
        images: which the classes are of.
        labels: the label file that was written.
        page: the page that was written, or None.
        console: to print to.
    """
    more = _command("label", request.out, "MORE_IMAGES", "--out", "labels.parquet")
    if page is None:
        console.print(_without_page(request, images, labels), soft_wrap=True)
        console.print(f"Next: {more}", soft_wrap=True)
        return
    console.print(f"Look at the classes (map by {describe_map('auto')}): {page}", soft_wrap=True)
    apply = _command("labels", "apply", "edits.json", labels, "--out", "NEW")
    console.print(
        f"Next: correct them on the page, then {apply} and {_again(request)}   or: {more}",
        soft_wrap=True,
    )


def _without_page(request: Request, images: ImageList, labels: Path) -> str:
    """Say why there is no page, and which command makes one."""
    out = ("--out", request.out / PAGE_FOLDER)
    if images.originals.is_dir():
        made = _command("classes", labels, request.folder, "--features", request.features, *out)
        return f"There is no page of the classes (--no-page); this makes it: {made}"
    made = _command("classes", labels, "IMAGES", *out)
    return (
        f"There is no page of the classes: {images.originals}, which {images.root} was packed "
        f"from, is gone. Where these images are now, this makes it: {made}"
    )


def _again(request: Request) -> str:
    """Return the command that begins with corrected classes, on the same features."""
    parts: list[str | Path] = ["discover", request.folder, "--from", "NEW"]
    parts += ["--features", request.features] if request.features_given else []
    parts += ["--backbone", request.backbone] if request.backbone != "lite0" else []
    parts += ["--weights", request.weights] if request.weights else []
    parts += ["--layer", request.layer] if request.layer != AUTO_LAYER else []
    parts += ["--size", str(request.size)] if request.size else []
    return _command(*parts)


def _command(*words: str | Path) -> str:
    """Return a command of `uic` as a shell reads it, whatever is in the names of files."""
    return shlex.join(("uic", *map(str, words)))
