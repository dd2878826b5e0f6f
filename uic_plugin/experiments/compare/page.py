"""The comparison as one HTML file: curves over views and over time, table, failures."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uic_plugin.experiments.compare.plan import Setting
from uic_plugin.experiments.compare.records import cell, columns_of, heading
from uic_plugin.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_page(
    path: Path,
    setting: Setting,
    summary: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> Path:
    """Write the self-contained page, and its curves beside it as `curves.png`.

    Args:
        path: of the HTML file.
        setting: what all runs share.
        summary: one row per line of the comparison.
        curves: one row per point.
        rows: one row per run.
    """
    from jinja2 import Environment

    source = Path(__file__).with_name("page.html").read_text()
    levels = {s["label"]: s["knn"] for s in summary if s["method"] == "random" and s["knn"] != ""}
    svg = ""
    if curves:
        figure = _figure(curves, levels)
        with replacing(path.with_name("curves.png")) as part:
            figure.savefig(part, format="png", dpi=80)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    template = Environment(autoescape=True, trim_blocks=True).from_string(source)
    good = [row for row in rows if "knn" in row]
    text = template.render(
        title=f"{setting.title}, {setting.network} network",
        budget=str(setting.budget),
        clusters=setting.clusters,
        figure=svg,
        summary=summary,
        columns=columns_of(summary),
        heading=heading,
        cell=cell,
        failures=[row for row in rows if row["failed"]],
        commands=[row["command"] for row in good],
        hardware=" / ".join(sorted({str(row["hardware"]) for row in good})),
        date=max((str(row["date"]) for row in good), default=""),
    )
    with replacing(path) as part:
        part.write_text(text)
    return path


def _figure(curves: Sequence[Mapping[str, Any]], levels: Mapping[str, float]) -> Figure:
    """Plot k-NN over views and over seconds: means, and bands of one standard deviation."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for label in dict.fromkeys(row["label"] for row in curves):
        points: dict[int, list[Mapping[str, Any]]] = {}
        for row in curves:
            if row["label"] == label:
                points.setdefault(row["epoch"], []).append(row)
        mean = [statistics.fmean(p["knn"] for p in group) for group in points.values()]
        spread = [
            statistics.stdev(p["knn"] for p in group) if group[1:] else 0.0
            for group in points.values()
        ]
        low = [m - s for m, s in zip(mean, spread, strict=True)]
        high = [m + s for m, s in zip(mean, spread, strict=True)]
        for axis, name in zip(axes, ("views", "seconds"), strict=True):
            at = [statistics.fmean(p[name] for p in group) for group in points.values()]
            (line,) = axis.plot(at, mean, marker="o", markersize=3, label=label)
            axis.fill_between(at, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    for label, level in levels.items():
        for axis in axes:
            axis.axhline(level, color="grey", linestyle=":", label=f"{label} (untrained)")
    axes[0].set_xlabel("image views")
    axes[1].set_xlabel("seconds of training")
    axes[0].set_ylabel("k-NN top-1, %")
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
