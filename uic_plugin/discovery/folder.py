"""The folder that a discovery writes into: whose files lie there, and which may be replaced.

Nothing is replaced that another program wrote, and no finished classes, unless that is wanted; a
stopped discovery resumes without being told.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from uic_plugin.discovery.results import ABOUT_FILE, CLASSES_FILES, LABELS_FILES, MODEL_FILE
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.discovery.work import IDENTITY_FILE

WORK_FOLDER, SCORES_FILE, PAGE_FOLDER = "unfinished", "scores.csv", "page"
ASKED, SEARCH = "asked", "search"  # in discovery.json: --classes, and what the work folder is of
_FINETUNED = "finetuned"
_RESULTS = (ABOUT_FILE, MODEL_FILE, *LABELS_FILES, *CLASSES_FILES, SCORES_FILE, PAGE_FOLDER)


def search_of(out: Path) -> str | None:
    """Return what the search in a folder's work folder is of; None where there is none."""
    mark = out / WORK_FOLDER / IDENTITY_FILE
    return mark.read_text() if mark.is_file() else None


def check_folder(out: Path, classes: int | None, settings: DiscoverySettings) -> None:
    """Refuse a folder in which something lies that this discovery would replace.

    Args:
        out: the folder.
        classes: their number as asked for, None for auto.
        settings: of the search.

    Raises:
        FileExistsError: for files of something else.
        ValueError: for finished classes, if this call is not the one that wrote them and was
            stopped behind that.
    """
    search = search_of(out)
    if not (out / ABOUT_FILE).exists():
        found = next((name for name in _RESULTS if (out / name).exists()), None)
        if found is not None and search is None:
            raise FileExistsError(
                f"{out / found} is there and of no discovery (there is no {ABOUT_FILE} beside it): "
                f"give another --out, or --overwrite it"
            )
        return
    asked = {SEARCH: search, ASKED: classes, "settings": dataclasses.asdict(settings)}
    if search is None or not _agrees(out, asked):
        raise ValueError(_holds_classes(out))


def check_search(out: Path, identity: Callable[[], str]) -> None:
    """Refuse a folder with finished classes of another search than this one.

    `check_folder` does not know the features and corrections: those of a call that was stopped
    behind its results may be others now.

    Args:
        out: the folder.
        identity: returns what this search is of; called only where there are finished classes.

    Raises:
        ValueError: for finished classes of other features, corrections or settings.
    """
    if (out / ABOUT_FILE).exists() and not _agrees(out, {SEARCH: identity()}):
        raise ValueError(_holds_classes(out))


def check_corrected(out: Path, corrected: Path) -> None:
    """Refuse to start from a file that this discovery would replace or remove.

    Args:
        out: the folder.
        corrected: a label file, which need not be there.

    Raises:
        ValueError: if it is, or lies in, what a discovery writes there.
    """
    if not corrected.exists():
        return
    place = corrected.resolve()
    for name in (*_RESULTS, _FINETUNED, WORK_FOLDER):
        own = out / name
        if own.exists() and any(own.samefile(path) for path in (place, *place.parents)):
            raise ValueError(
                f"--from {corrected} is among what goes to {out}, and would be replaced: copy it "
                f"elsewhere, or give another --out"
            )


def _agrees(out: Path, asked: Mapping[str, object]) -> bool:
    """Tell whether the discovery that has finished in a folder says the same of itself."""
    try:
        about = json.loads((out / ABOUT_FILE).read_text(encoding="utf-8"))
    except ValueError:
        about = {}
    return all(about.get(name) == value for name, value in asked.items())


def _holds_classes(out: Path) -> str:
    return f"{out} holds classes: give another --out, or --overwrite them"


def free_folder(name: str) -> Path:
    """Return NAME-2, NAME-3 ..., the first without finished classes, for a next discovery."""
    number = 2
    while (out := Path(f"{name}-{number}")).joinpath(ABOUT_FILE).exists() and not search_of(out):
        number += 1
    return out


def remove_old(out: Path, kept: set[str]) -> None:
    """Remove what an earlier discovery left in a folder and this one does not write.

    Args:
        out: the folder, with this discovery's results.
        kept: names of the files and folders that this one writes beside `discovery.json`, classes
            and model.
    """
    for name in {*LABELS_FILES, SCORES_FILE, PAGE_FOLDER, _FINETUNED} - kept:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
