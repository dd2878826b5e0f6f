"""Tables of finished runs: one row per run, per method, or per point of a curve."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from uic_plugin.experiments.compare.measure import MEASURES_FILE
from uic_plugin.experiments.compare.plan import PlannedRun, Setting
from uic_plugin.report.tables import read_csv

# column of `runs.csv`: heading, factor, format
FIGURES: dict[str, tuple[str, float, str]] = {
    "knn": ("k-NN", 1, ".1f"),
    "linear": ("linear", 1, ".1f"),
    "nmi": ("NMI, own labels", 1, ".3f"),
    "kmeans_nmi": ("NMI, k-means", 1, ".3f"),
    "views": ("views", 1, ",.0f"),
    "steps": ("steps", 1, ",.0f"),
    "seconds": ("seconds", 1, ",.0f"),
    "seconds_per_epoch": ("s / epoch", 1, ".1f"),
    "turn_seconds": ("s / boundary", 1, ".2f"),
    "views_per_second": ("views / s", 1, ",.0f"),
    "peak_host_bytes": ("host GiB", 1 / (1 << 30), ".2f"),
    "peak_gpu_bytes": ("GPU GiB", 1 / (1 << 30), ".2f"),
    "bytes_per_image": ("bytes / image", 1, ",.0f"),
    "parameters_backbone": ("backbone", 1e-6, ".2f M"),
}


def collect(
    runs: Sequence[PlannedRun],
    setting: Setting,
    failed: Mapping[str, str],
    early: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return one row per run, failed ones with their reason.

    Args:
        runs: all runs.
        setting: what they share.
        failed: name of a failed job to the reason.
        early: label of a line that could not be planned to the reason.
    """
    rows: list[dict[str, Any]] = [
        {"label": label, "method": "", "seed": "", "failed": reason}
        for label, reason in early.items()
    ]
    for run in runs:
        reasons = [failed[job.name] for job in run.jobs if job.name in failed]
        row: dict[str, Any] = {
            "label": run.entry.label,
            "method": run.entry.method,
            "seed": run.seed,
            "failed": reasons[0] if reasons else "",
            "budget": str(setting.budget),
        }
        path = run.folder / MEASURES_FILE
        if path.exists() and not any(job.name in failed for job in run.jobs[:2]):
            measures = json.loads(path.read_text())
            row.update({k: v for k, v in measures.items() if k not in (*row, "curve")})
            record = json.loads(run.jobs[0].record.read_text())
            row.update(date=record["date"], command=record["command"])
            if setting.layers and not reasons:
                row.update(_probes(run))
        rows.append(row)
    return rows


def _probes(run: PlannedRun) -> dict[str, float]:
    return {
        f"probe_{result['layer']}": float(result["top1"])
        for result in read_csv(run.folder / "probe" / "probe.csv")
        if (result["probe"], result["crops"]) == ("last", "10")
    }


def curve_rows(runs: Sequence[PlannedRun]) -> list[dict[str, Any]]:
    """Return one row per point of a curve."""
    rows = []
    for run in runs:
        path = run.folder / MEASURES_FILE
        if path.exists():
            for point in json.loads(path.read_text())["curve"]:
                rows.append({"label": run.entry.label, "seed": run.seed, **point})
    return rows


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per line: means and sample standard deviations over seeds."""
    summary = []
    for label in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]
        good = [row for row in own if "knn" in row]
        line: dict[str, Any] = {
            "label": label,
            "method": own[0]["method"],
            "seeds": " ".join(str(row["seed"]) for row in good),
            "failed": "; ".join(dict.fromkeys(row["failed"] for row in own if row["failed"])),
        }
        probes = [name for row in good for name in row if name.startswith("probe_")]
        for name in dict.fromkeys((*FIGURES, *probes)):
            values = [row[name] for row in good if row.get(name) not in (None, "")]
            line[name] = statistics.fmean(values) if values else ""
            line[f"{name}_std"] = statistics.stdev(values) if values[1:] else ""
        summary.append(line)
    return summary


def cell(line: Mapping[str, Any], name: str) -> str:
    """Return a mean and its spread, as people read it."""
    _, factor, form = FIGURES.get(name, (name, 1.0, ".1f"))
    if line.get(name, "") == "":
        return "-"
    form, _, unit = form.partition(" ")
    text = format(factor * line[name], form)
    shows_spread = name in ("knn", "linear", "nmi", "kmeans_nmi") or name.startswith("probe_")
    if shows_spread and line.get(f"{name}_std", "") != "":
        text += f" ± {format(factor * line[f'{name}_std'], form)}"
    return f"{text} {unit}".strip()


def columns_of(summary: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns that at least one line has a figure for, without a GPU's if unused."""
    found = dict.fromkeys(name for line in summary for name in line)
    probes = [name for name in found if name.startswith("probe_") and not name.endswith("_std")]
    names = [*FIGURES, *probes]
    return [n for n in names if any(line.get(n) not in ("", None, 0) for line in summary)]


def heading(name: str) -> str:
    """Return the heading of a column."""
    return FIGURES[name][0] if name in FIGURES else name.replace("probe_", "probe ")


def summary_table(setting: Setting, summary: Sequence[Mapping[str, Any]]) -> Table:
    """Return the comparison for a terminal."""
    table = Table(title=f"{setting.data}, {setting.network} network, {setting.budget} a run")
    table.add_column("method")
    table.add_column("seeds")
    columns = columns_of(summary)
    for name in columns:
        table.add_column(heading(name), justify="right")
    for line in summary:
        if not line["seeds"]:
            table.add_row(line["label"], "", "failed", *[""] * len(columns[1:]))
            continue
        table.add_row(line["label"], line["seeds"], *[cell(line, name) for name in columns])
    return table
