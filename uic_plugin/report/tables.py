"""Tables as CSV files and for a terminal."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from uic_plugin.files import replacing

if TYPE_CHECKING:
    from uic_plugin.evaluation.probe_settings import ProbeResult


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the union of their columns, through a temporary file."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (
        replacing(path) as part,
        open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table; values are text."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def probe_table(results: Sequence[ProbeResult]) -> Table:
    """Return results of probes for a terminal, one row per layer, cells "top-1/top-5"."""
    kinds = [
        (crops, probe)
        for crops in sorted({result.crops for result in results}, reverse=True)
        for probe in ("last", "best")
    ]
    table = Table("layer", "values")
    for crops, probe in kinds:
        table.add_column(f"{crops} crop{'s' * (crops > 1)},\n{probe} epoch", justify="right")
    for layer in dict.fromkeys(result.layer for result in results):
        rows = {(r.crops, r.probe): r for r in results if r.layer == layer}
        cells = [f"{rows[kind].top1:.2f}/{rows[kind].top5:.2f}" for kind in kinds]
        table.add_row(layer, str(rows[kinds[0]].features), *cells)
    return table
