"""Tables of finished runs: measured figures and quoted ones, in separate cells."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from uic_plugin.experiments.paper.table_jobs import run_folder
from uic_plugin.experiments.paper.tables import (
    FEWSHOT,
    NMI,
    PROBE,
    TOP1,
    VOC_COLUMNS,
    PaperTable,
    Row,
)
from uic_plugin.experiments.transfer.scores import figures_of
from uic_plugin.report.tables import read_csv

_VOC_FOLDERS = ("voc-classify-fc6-8", "voc-classify-all", "voc-detect", "voc-segment")


def measure(row: Row, column: str, folder: Path) -> float | None:
    """Return a run's figure for a column, in percent; None if it does not exist yet.

    Top-1 is that of the probe after its last epoch, averaged over 10 crops; NMI (arithmetic
    average) is that of the labels after the last epoch of training.
    """
    if column == NMI:
        history = folder / "epochs.csv"
        rows = read_csv(history) if history.exists() else []
        value = rows[-1].get("uic_nmi") if rows else None
        return 100 * float(value) if value else None
    results = folder / "probe" / "probe.csv"
    layer = row.layer if column == TOP1 else column
    if results.exists():
        for result in read_csv(results):
            if (result["layer"], result["probe"], result["crops"]) == (layer, "last", "10"):
                return float(result["top1"])
    return None


def measure_transfer(
    table: PaperTable, row: Row, column: str, run: Path
) -> tuple[float, float | None] | None:
    """Return a network's figure for a column of Table 5 or 6, and half of its 95 % interval."""
    folder = run / _task_folder(table, row, column)
    if not (folder / f"{folder.name}.done.json").exists():
        return None
    figures = list(figures_of(folder).values())
    return figures[table.columns.index(column)] if table.task == FEWSHOT else figures[0]


def collect(
    table: PaperTable, scale: str, seeds: Sequence[int], root: Path
) -> list[dict[str, Any]]:
    """Return one record per cell: what was measured with each seed, and what the paper quotes.

    Seeds that an earlier call has measured are included.
    """
    records = []
    for row in table.rows_at(scale):
        for column in table.columns:
            runs = _finished(table, row, column, scale, seeds, root)
            made = [json.loads(record.read_text()) for _, record in runs.values()]
            values: dict[int, float] = {}
            intervals: list[float] = []
            for seed, (run, _) in runs.items():
                if table.task == PROBE:
                    value, interval = measure(row, column, run), None
                else:
                    value, interval = measure_transfer(table, row, column, run) or (None, None)
                if value is not None:
                    values[seed] = value
                if interval is not None:
                    intervals.append(interval)
            numbers = list(values.values())
            record = {
                "scale": scale,
                "row": " | ".join(row.cells),
                "column": column,
                "measured_mean": _rounded(statistics.fmean(numbers)) if numbers else "",
                "measured_std": _rounded(statistics.stdev(numbers)) if numbers[1:] else "",
                "measured_values": " ".join(_rounded(number) for number in numbers),
                "seeds": " ".join(map(str, values)),
                "quoted_imagenet": row.quoted.get(column, ""),
                "recipe": _recipe(row, scale) if made else "",
                "probe" if table.task == PROBE else "task": (
                    _options(made[0]["command"]) if made else ""
                ),
                "hardware": " / ".join(sorted({m["hardware"] for m in made})),
                "date": max((m["date"] for m in made), default=""),
            }
            if table.task == FEWSHOT:
                record["interval_95"] = " ".join(_rounded(i) for i in intervals)
            records.append(record)
    return records


def merged(path: Path, records: list[dict[str, Any]], scale: str) -> list[dict[str, Any]]:
    """Return records together with those of the other scale in a file.

    A record of a row that was not measured does not replace one that was.
    """
    before = read_csv(path) if path.exists() else []
    known = {_cell(record): record for record in before if record.get("seeds")}
    kept = [record if record["seeds"] else known.get(_cell(record), record) for record in records]
    return [*kept, *(record for record in before if record.get("scale") != scale)]


def _cell(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(record.get(name)) for name in ("scale", "row", "column"))


def _finished(
    table: PaperTable, row: Row, column: str, scale: str, seeds: Sequence[int], root: Path
) -> dict[int, tuple[Path, Path]]:
    """Return run folder and record of a cell by seed, of those that are measured."""
    if row.recipe_at(scale) is None:
        return {}
    pattern = run_folder(root, scale, row, 0).name.removesuffix("0")
    present = {
        int(folder.name.removeprefix(pattern))
        for folder in (root / scale).glob(f"{pattern}*")
        if folder.name.removeprefix(pattern).isdigit()
    }
    folders = {s: run_folder(root, scale, row, s) for s in sorted({*seeds, *present})}
    task = "" if table.task == PROBE else _task_folder(table, row, column)
    records = {s: f / task / f"{task or 'probe'}.done.json" for s, f in folders.items()}
    return {s: (folders[s], record) for s, record in records.items() if record.exists()}


def _task_folder(table: PaperTable, row: Row, column: str) -> str:
    """Return the name of a task's folder in a run folder, see `TransferPlan`."""
    names = dict(zip(VOC_COLUMNS, _VOC_FOLDERS, strict=True))
    name = f"fewshot-{row.resolution}" if table.task == FEWSHOT else names[column]
    return f"{name}-untrained" if row.untrained else name


def _recipe(row: Row, scale: str) -> str:
    name = str(row.recipe_at(scale))
    name = name.removeprefix("small/").removeprefix("imagenet/")
    return f"{name}{' + fine-tuning' * row.finetuned}{', untrained' * row.untrained}"


def _options(command: str) -> str:
    """Return how a probe was trained, without its run and seed."""
    words = shlex.split(command)[3:]
    words = [word for word in words if not word.startswith("--out=")]
    return " ".join(word for word in words if not word.startswith("--seed"))


def paper_table(table: PaperTable, records: Sequence[dict[str, Any]], scale: str) -> Table:
    """Return the paper's layout, with a measured and a quoted column for each of its columns."""
    where = "small scale" if scale == "small" else "full scale"
    out = Table(title=f"{table.title}. Measured here ({where}) | quoted from the paper")
    for head in table.heads:
        out.add_column(head)
    for column in table.columns:
        out.add_column(f"{column}\nmeasured", justify="right")
        out.add_column(f"{column}\nquoted", justify="right", style="dim")
    by_cell = {(record["row"], record["column"]): record for record in records}
    for row in table.rows_at(scale):
        cells = list(row.cells)
        for column in table.columns:
            record = by_cell[" | ".join(row.cells), column]
            mean = record["measured_mean"]
            std = record["measured_std"] or record.get("interval_95")
            cells.append(f"{mean} ± {std}" if std else str(mean) or "-")
            cells.append(str(record["quoted_imagenet"]) or "-")
        out.add_row(*cells)
    return out


def _rounded(value: float) -> str:
    return f"{value:.2f}"
