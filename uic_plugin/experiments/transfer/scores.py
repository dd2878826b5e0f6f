"""Rows of finished tasks: figures, commands and hardware."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uic_plugin.experiments.jobs import Job, reason_of
from uic_plugin.experiments.transfer.tasks import FEWSHOT
from uic_plugin.report.tables import read_csv

_MEAN_COLUMNS = {"AP_11point": "mAP (11-point)", "AP_area": "mAP (area)", "IoU": "mean IoU"}


def figures_of(folder: Path) -> dict[str, tuple[float, float | None]]:
    """Return figures in percent by name, each with half of its 95 % interval if it has one.

    Args:
        folder: of a task that is done.
    """
    rows = read_csv(folder / "results.csv")
    if "layer" in rows[0]:
        return {row["layer"]: (float(row["accuracy"]), float(row["interval"])) for row in rows}
    mean = rows[-1]
    return {
        name: (float(mean[column]), None)
        for column, name in _MEAN_COLUMNS.items()
        if mean.get(column)
    }


def transfer_rows(jobs: Sequence[Job], failed: dict[str, Path]) -> list[dict[str, Any]]:
    """Return a row per figure of the finished tasks, and one for each that failed."""
    rows: list[dict[str, Any]] = []
    for job in jobs:
        task = job.name.split()[0]
        network = "untrained" if task.endswith("-untrained") else "pretrained"
        row: dict[str, Any] = {"task": task.removesuffix("-untrained"), "network": network}
        if job.name in failed or not job.is_done():
            log = failed.get(job.name)
            reason = reason_of(log) if log and log.exists() else "not run"
            rows.append({**row, "figure": "", "failed": reason, "command": job.command})
            continue
        record = json.loads(job.record.read_text())
        for name, (value, interval) in figures_of(job.folder).items():
            figure = f"{name} accuracy" if task.startswith(FEWSHOT) else name
            row.update(figure=figure, percent=f"{value:.2f}")
            row["interval_95"] = "" if interval is None else f"{interval:.2f}"
            said = {key: record[key] for key in ("seconds", "hardware", "date", "command")}
            rows.append({**row, "failed": "", **said})
    return rows
