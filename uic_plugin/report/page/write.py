"""Write the page: thumbnails, data, scripts and `index.html`, completely or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from uic_plugin.data.folders import check_outside
from uic_plugin.data.labels import LabelTable
from uic_plugin.files import replacing, replacing_folder
from uic_plugin.report.page.contents import (
    Shown,
    core_data,
    features_data,
    heads_data,
    relative_folder,
    script,
)
from uic_plugin.report.page.history import History
from uic_plugin.report.page.order import sample_images, thumbnail_order
from uic_plugin.report.page.projection import Projection, project
from uic_plugin.report.page.sprites import write_sprites

PAGE_FILE, FILES = "index.html", "files"
_GENERATOR = '<meta name="generator" content="uic classes">'
_STATIC = Path(__file__).with_name("static")
SCRIPTS = (
    "store.js",
    "edits.js",
    "numbers.js",
    "dom.js",
    "dialogs.js",
    "overview.js",
    "classview.js",
    "imageview.js",
    "points.js",
    "map.js",
    "folders.js",
    "actions.js",
    "keyboard.js",
    "main.js",
)


@dataclass(frozen=True)
class PageOptions:
    """Options of the page.

    Attributes:
        title: heading; the label file's name by default.
        map: see `projection.project`.
        max_images: maximum number of images; of more, the page shows a sample of each class.
        thumbnail: pixels of a thumbnail's side; by default it depends on the images.
        seed: of the sample and the map.
    """

    title: str | None = None
    map: str = "auto"
    max_images: int = 100_000
    thumbnail: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_images < 1:
            raise ValueError(f"--max-images must be at least 1, got {self.max_images}")
        if self.thumbnail is not None and not 16 <= self.thumbnail <= 512:
            raise ValueError(f"--thumbnail must lie in [16, 512], got {self.thumbnail}")


def write_class_page(
    table: LabelTable,
    source: Path,
    data: Path,
    out: Path,
    *,
    features: np.ndarray | None = None,
    history: History | None = None,
    options: PageOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write `index.html` and its folder `files`, and replace those of an earlier call.

    Args:
        table: N images with their classes.
        source: the label file, which edits will belong to.
        data: the folder that the images lie in.
        out: folder to write to.
        features: (N, D) in the order of the table, for map, similar images and splits.
        history: of the classes over a run's epochs.
        options: how the page is made.
        progress: called with the number of thumbnails done, and of all.

    Returns:
        The page's path.

    Raises:
        ValueError: for features of another number of images, or a bad option.
        FileExistsError: if `out` holds an `index.html` or `files` that this did not write.
        OSError: if the page cannot be written; an earlier one is left unchanged.
    """
    options = options or PageOptions()
    if features is not None and len(features) != len(table):
        raise ValueError(f"there are features of {len(features)} images, {source} has {len(table)}")
    _refuse_foreign(out)
    shown = _shown(table, options)
    projection = _projected(shown, features, options)
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f".{FILES}.*"):  # by a call that was killed
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f".{FILES}.", dir=out))
    with replacing_folder(part, out / PAGE_FILE):
        part.chmod(0o755)
        paths = [data / path for path in shown.paths()]
        sprites = write_sprites(paths, part / "sprites", tile=options.thumbnail, progress=progress)
        core = core_data(
            shown,
            sprites,
            title=options.title or source.stem,
            source=source.name,
            folder=relative_folder(out, data),
            projection=projection,
            history=history,
        )
        _write_scripts(part, shown, core, projection)
        _exchange(part, out, _html(str(core["title"])))
    return out / PAGE_FILE


def _projected(
    shown: Shown, features: np.ndarray | None, options: PageOptions
) -> Projection | None:
    """Return the map of the images that are shown; None without features."""
    if features is None:
        return None
    return project(features[shown.rows], kind=options.map, seed=options.seed)


def _shown(table: LabelTable, options: PageOptions) -> Shown:
    """Choose the images of the page, in the order of their thumbnails."""
    chosen = sample_images(table.labels, table.confidence, options.max_images, seed=options.seed)
    order = thumbnail_order(table.labels[chosen], table.confidence[chosen])
    return Shown(table, chosen[order])


def check_folder(out: Path, labels: Path, data: Path) -> None:
    """Refuse a folder among the images, or with files that page, table and pictures would replace.

    Args:
        out: folder of the page.
        labels: the label file, which may be one of them.
        data: the folder of the images.

    Raises:
        FileExistsError: if there are any.
        ValueError: if it lies in the folder of the images.
    """
    check_outside(out, data)
    table = out / "classes.csv"
    if table.exists() and (table.samefile(labels) or (out / "discovery.json").exists()):
        raise FileExistsError(
            f"{table} would be replaced by a table of the classes: give another folder with --out"
        )
    _refuse_foreign(out)
    if (out / PAGE_FILE).is_file():
        return
    for name in ("classes.csv", "classes.png", "class_sizes.png"):
        if (out / name).exists() and not _is_own_table(table):
            raise FileExistsError(
                f"{out / name} is of something else and would be replaced: give another folder "
                f"with --out"
            )


def _is_own_table(path: Path) -> bool:
    """Tell whether a file is a table of classes as `report_classes` writes it."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().startswith("class,size,")


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder with a page of something else."""
    page, files = out / PAGE_FILE, out / FILES
    foreign = files.exists() and any(files.iterdir()) and not (files / "core.js").is_file()
    if page.is_file():
        foreign = foreign or _GENERATOR not in page.read_text(encoding="utf-8", errors="replace")
    if foreign:
        raise FileExistsError(
            f"{out} holds {PAGE_FILE} or {FILES}/ of something else: give another folder with --out"
        )


def _write_scripts(folder: Path, shown: Shown, core: object, projection: Projection | None) -> None:
    for name in (*SCRIPTS, "page.css"):
        shutil.copyfile(_STATIC / name, folder / name)
    (folder / "core.js").write_text(script("core", core))
    (folder / "paths.js").write_text(script("paths", shown.paths()))
    if projection is not None:
        (folder / "features.js").write_text(script("features", features_data(projection)))
    (folder / "heads.js").write_text(script("heads", heads_data(shown)))


def _html(title: str) -> str:
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (_STATIC / "index.html.j2").read_text(encoding="utf-8")
    )
    title = os.fsencode(title).decode(errors="replace")  # a folder's name need not be UTF-8
    return template.render(title=title, files=FILES, scripts=SCRIPTS, date=date.today().isoformat())


def _exchange(part: Path, out: Path, html: str) -> None:
    """Replace the old files by the new ones, `index.html` last."""
    files = out / FILES
    old = None
    with replacing(out / PAGE_FILE) as page:
        page.write_text(html, encoding="utf-8")
        if files.exists():
            old = part.with_name(part.name + ".old")
            files.rename(old)
        part.rename(files)
    if old is not None:
        shutil.rmtree(old)
