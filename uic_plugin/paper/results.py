"""From finished runs to a table: measured figures and quoted ones, never in one cell."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from datetime import date
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
    table: PaperTable, scale: str, seeds: Sequence[int], root: Path, command: str
) -> list[dict[str, Any]]:
    """One record per cell: what was measured with each seed, and what the paper quotes."""
    records = []
    for row in table.rows:
        for column in table.columns:
            values = {}
            if row.recipe is not None:
                for seed in seeds:
                    value = measure(row, column, run_folder(root, scale, row, seed))
                    if value is not None:
                        values[seed] = value
            numbers = list(values.values())
            records.append(
                {
                    "row": " | ".join(row.cells),
                    "column": column,
                    "measured_mean": _rounded(statistics.fmean(numbers)) if numbers else "",
                    "measured_std": _rounded(statistics.stdev(numbers)) if numbers[1:] else "",
                    "measured_values": " ".join(_rounded(number) for number in numbers),
                    "seeds": " ".join(map(str, values)),
                    "quoted_imagenet": row.quoted.get(column, ""),
                    "scale": scale if numbers else "",
                    "command": command if numbers else "",
                    "hardware": hardware() if numbers else "",
                    "date": _day(row, scale, values, root),
                }
            )
    return records


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


def hardware() -> str:
    """What this machine computes with."""
    import os

    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{os.cpu_count()} cores, {model}"


def _day(row: Row, scale: str, values: dict[int, float], root: Path) -> str:
    """The day on which the last of a row's runs was finished."""
    files = [run_folder(root, scale, row, seed) / "probe" / "probe.csv" for seed in values]
    times = [file.stat().st_mtime for file in files if file.exists()]
    return date.fromtimestamp(max(times)).isoformat() if times else ""


def _rounded(value: float) -> str:
    return f"{value:.2f}"
