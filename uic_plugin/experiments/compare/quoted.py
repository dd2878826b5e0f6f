"""Figures quoted from papers, of methods that are not run here: `uic compare --quoted`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from uic_plugin.report.tables import read_csv


def quoted_tables() -> list[Table]:
    """Return one table for each of the paper's, with protocol and source in its title.

    `quoted.csv` has one row per figure: table, method, architecture, column, value, protocol,
    source.
    """
    rows = read_csv(Path(__file__).with_name("quoted.csv"))
    tables = []
    for number in dict.fromkeys(row["table"] for row in rows):
        own = [row for row in rows if row["table"] == number]
        columns = [name for name in dict.fromkeys(row["column"] for row in own) if name]
        by_source = number == "beyond"
        title = "Not in the paper's tables" if by_source else f"Table {number}"
        notes = "" if by_source else f" ({own[0]['protocol']})"
        table = Table(title=f"{title}, quoted, not measured here{notes}")
        for head in ("method", "architecture", *columns):
            table.add_column(head, justify="right" if head in columns else "left")
        if by_source:
            table.add_column("protocol and source")
        for method, architecture in dict.fromkeys((r["method"], r["architecture"]) for r in own):
            same = [r for r in own if (r["method"], r["architecture"]) == (method, architecture)]
            values = {row["column"]: row["value"] for row in same}
            cells = [values.get(column, "-") for column in columns]
            if by_source:
                cells.append(f"{same[0]['protocol']} ({same[0]['source']})")
            table.add_row(method, architecture, *cells)
        tables.append(table)
    return tables
