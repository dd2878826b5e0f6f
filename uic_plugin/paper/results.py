"""From finished runs to a table: measured figures and quoted ones, never in one cell."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from uic_plugin.paper.jobs import run_folder
from uic_plugin.paper.tables import NMI, TOP1, PaperTable, Row
from uic_plugin.report.tables import read_csv


def measure(row: Row, column: str, folder: Path) -> float | None:
    """A run's figure for a column, in percent; None while it is not there.

    Top-1 is of the probe after its last epoch, 10 crops averaged; NMI (arithmetic average) is of
    the labels as they stood after the last epoch of training.
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


def collect(
    table: PaperTable, scale: str, seeds: Sequence[int], root: Path
) -> list[dict[str, Any]]:
    """One record per cell: what was measured with each seed, and what the paper quotes.

    Seeds that an earlier call has measured count, too.
    """
    records = []
    for row in table.rows:
        runs = _finished(row, scale, seeds, root)
        made = [json.loads((run / "probe.done.json").read_text()) for run in runs.values()]
        for column in table.columns:
            values = {seed: measure(row, column, run) for seed, run in runs.items()}
            numbers = [value for value in values.values() if value is not None]
            records.append(
                {
                    "scale": scale,
                    "row": " | ".join(row.cells),
                    "column": column,
                    "measured_mean": _rounded(statistics.fmean(numbers)) if numbers else "",
                    "measured_std": _rounded(statistics.stdev(numbers)) if numbers[1:] else "",
                    "measured_values": " ".join(_rounded(number) for number in numbers),
                    "seeds": " ".join(str(s) for s, v in values.items() if v is not None),
                    "quoted_imagenet": row.quoted.get(column, ""),
                    "recipe": f"{row.recipe}{' + fine-tuning' * row.finetuned}" if made else "",
                    "probe": _options(made[0]["command"]) if made else "",
                    "hardware": " / ".join(sorted({m["hardware"] for m in made})),
                    "date": max((m["date"] for m in made), default=""),
                }
            )
    return records


def merged(path: Path, records: list[dict[str, Any]], scale: str) -> list[dict[str, Any]]:
    """Records with those of the other scale that a file has."""
    others = [r for r in read_csv(path) if r.get("scale") != scale] if path.exists() else []
    return [*records, *others]


def _finished(row: Row, scale: str, seeds: Sequence[int], root: Path) -> dict[int, Path]:
    """Run folders of a row by seed, those that are probed."""
    if row.recipe is None:
        return {}
    pattern = run_folder(root, scale, row, 0).name.removesuffix("0")
    present = {
        int(folder.name.removeprefix(pattern))
        for folder in (root / scale).glob(f"{pattern}*")
        if folder.name.removeprefix(pattern).isdigit()
    }
    folders = {s: run_folder(root, scale, row, s) for s in sorted({*seeds, *present})}
    return {s: f for s, f in folders.items() if (f / "probe.done.json").exists()}


def _options(command: str) -> str:
    """How a probe was trained, without its run and seed."""
    words = shlex.split(command)[3:]
    return " ".join(word for word in words if not word.startswith("--seed"))


def paper_table(table: PaperTable, records: Sequence[dict[str, Any]], scale: str) -> Table:
    """The paper's layout, with a measured and a quoted column for each of its columns."""
    where = "small scale" if scale == "small" else "ImageNet"
    out = Table(title=f"{table.title}. Measured here ({where}) | quoted from the paper (ImageNet)")
    for head in table.heads:
        out.add_column(head)
    for column in table.columns:
        out.add_column(f"{column}\nmeasured", justify="right")
        out.add_column(f"{column}\nquoted", justify="right", style="dim")
    by_cell = {(record["row"], record["column"]): record for record in records}
    for row in table.rows:
        cells = list(row.cells)
        for column in table.columns:
            record = by_cell[" | ".join(row.cells), column]
            mean, std = record["measured_mean"], record["measured_std"]
            cells.append(f"{mean} ± {std}" if std else str(mean) or "-")
            cells.append(str(record["quoted_imagenet"]) or "-")
        out.add_row(*cells)
    return out


def _rounded(value: float) -> str:
    return f"{value:.2f}"
