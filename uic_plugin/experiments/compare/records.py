"""Tables of finished runs: one row per run, per method, or per point of a curve."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from uic_plugin.experiments.compare.measure import images_of_epoch
from uic_plugin.experiments.compare.plan import MEASURES_FILE, PlannedRun, Setting, is_trained
from uic_plugin.experiments.compare.stages import Tuned, reason_of_trial
from uic_plugin.experiments.compare.tune import judged
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.folder import COST_FILE, HISTORY_FILE

OFF = 0.05  # share of a budget of minutes that a run may miss it by before that is said

# column of `runs.csv`: heading, factor, format
FIGURES: dict[str, tuple[str, float, str]] = {
    "knn": ("k-NN", 1, ".1f"),
    "linear": ("linear", 1, ".1f"),
    "nmi": ("NMI, own labels", 1, ".3f"),
    "kmeans_nmi": ("NMI, k-means", 1, ".3f"),
    "own_nmi": ("NMI, own classes", 1, ".3f"),
    "own_nmi_annotated": ("NMI, own, K annotated", 1, ".3f"),
    "own_accuracy_annotated": ("accuracy, own, K annotated", 100, ".1f"),
    "kmeans_nmi_annotated": ("NMI, k-means, K annotated", 1, ".3f"),
    "kmeans_accuracy_annotated": ("accuracy, k-means, K annotated", 100, ".1f"),
    "views": ("views", 1, ",.0f"),
    "steps": ("steps", 1, ",.0f"),
    "seconds": ("seconds", 1, ",.0f"),
    "cpu_seconds": ("CPU seconds", 1, ",.0f"),
    "seconds_per_epoch": ("s / epoch", 1, ".1f"),
    "turn_seconds": ("s / boundary", 1, ".2f"),
    "views_per_second": ("views / s", 1, ",.0f"),
    "peak_host_bytes": ("memory, GiB", 1 / (1 << 30), ".2f"),
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
            "setting": " ".join(run.entry.overrides),
            **({"held_out": setting.held_out} if setting.held_out else {}),
        }
        path = run.folder / MEASURES_FILE
        if path.exists() and not any(job.name in failed for job in run.jobs[:2]):
            measures = json.loads(path.read_text())
            row.update({k: v for k, v in measures.items() if k not in (*row, "curve")})
            record = json.loads(run.jobs[0].record.read_text())
            row.update(date=record["date"], command=record["command"])
            if setting.budget.kind == "minutes" and is_trained(run.entry):
                used = float(row[f"{run.clock}seconds"]) / (60 * setting.budget.amount)
                row.update(budget_used=round(used, 4), budget_clock=run.clock or "wall")
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
            for point in json.loads(path.read_text()).get("curve", []):
                rows.append({"label": run.entry.label, "seed": run.seed, **point})
    return rows


def epoch_rows(runs: Sequence[PlannedRun]) -> list[dict[str, Any]]:
    """Return one row per epoch: views and seconds until its end, and what became of the labels.

    `coverage` is the share of the images that the epoch drew, `changed` the share whose label it
    changed, `nmi` and `nmi_previous` the agreement of its labels with annotations and with those of
    the epoch before; the last three of methods that keep labels only.
    """
    rows = []
    for run in runs:
        cost_file, history = run.folder / COST_FILE, run.folder / HISTORY_FILE
        if not (cost_file.exists() and history.exists() and is_trained(run.entry)):
            continue
        cost = json.loads(cost_file.read_text())
        clocks = {"seconds": 0.0, "cpu_seconds": 0.0}
        views = 0
        for record in read_csv(history):
            epoch = int(record["epoch"])
            images = images_of_epoch(record, cost)
            views += images * cost["views_per_image"]
            for name in clocks:
                clocks[name] += float(record.get(name) or 0)
            row = {"label": run.entry.label, "seed": run.seed, "epoch": epoch}
            row.update(views=views, **{k: round(v, 3) for k, v in clocks.items()})
            drawn = min(1.0, images / cost["images"])
            # 0 in runs of versions that counted labels of the epoch's steps, where there are none
            row["coverage"] = float(record.get("uic_coverage") or 0) or drawn
            for name in ("changed", "nmi", "nmi_previous"):
                row[name] = float(v) if (v := record.get(f"uic_{name}")) else ""
            rows.append(row)
    return rows


def trial_rows(tuned: Tuned) -> list[dict[str, Any]]:
    """Return one row per trial; `knn` is on held-out training images."""
    rows = []
    for trial in tuned.trials:
        run = tuned.runs.get(trial)
        row: dict[str, Any] = {
            "label": trial.line.label,
            "trial": trial.number,
            "setting": trial.setting,
            "chosen": tuned.best.get(trial.line.label) == trial,
            "failed": reason_of_trial(tuned, trial),
        }
        accuracy = judged(run) if run else None
        if run and accuracy is not None:
            measures = json.loads((run.folder / MEASURES_FILE).read_text())
            row.update(knn=accuracy, seed=run.seed)
            names = ("epochs", "views", "steps", "seconds", "cpu_seconds", "hardware")
            row.update({name: measures.get(name) for name in names})
            row["command"] = json.loads(run.jobs[0].record.read_text())["command"]
        rows.append(row)
    return rows


def steadiness(first: PlannedRun, again: Path) -> dict[str, Any]:
    """Return how fast a run was, and how fast its repetition after all the others.

    Args:
        first: the run.
        again: folder of the repetition.

    Returns:
        Views a second, by the wall's clock and by the processor's, and the ratio of the two.
    """
    found: dict[str, Any] = {"run": first.folder.name}
    cost = json.loads((first.folder / COST_FILE).read_text())
    for name, column in (("", "seconds"), ("cpu_", "cpu_seconds")):
        rates = []
        for folder in (first.folder, again):
            epochs = read_csv(folder / HISTORY_FILE)
            views = cost["views_per_image"] * sum(images_of_epoch(row, cost) for row in epochs)
            rates.append(views / max(sum(float(row[column]) for row in epochs), 1e-9))
        found[f"views_per_{name}second_first"] = round(rates[0], 1)
        found[f"views_per_{name}second_again"] = round(rates[1], 1)
        found[f"views_per_{name}second_ratio"] = round(rates[1] / rates[0], 4)
    return found


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
            "setting": own[0].get("setting", ""),
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
    shows_spread = name in ("knn", "linear") or "nmi" in name or name.startswith("probe_")
    shows_spread = shows_spread or "accuracy" in name
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
    title = f"{setting.data}, {setting.network} network, {setting.budget} a run"
    table = Table(title=title + f"; accuracy on {setting.judges}" * bool(setting.held_out))
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
