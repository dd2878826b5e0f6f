"""The curves of a comparison: accuracy and labels over image views, seconds and epochs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
_LABELS = (("coverage", "images drawn in an epoch"), ("changed", "labels changed in an epoch"))


def curve_figure(curves: Rows, epochs: Rows, levels: Mapping[str, float]) -> Figure:
    """Plot means over seeds with bands of one standard deviation.

    Above k-NN over views and over seconds; below, over epochs and over seconds, what share of the
    images an epoch draws and what share of the labels it changes.

    Args:
        curves: one row per snapshot of a run.
        epochs: one row per epoch of a run.
        levels: accuracy of lines that are not trained, by label.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 10), layout="constrained")
    axes = figure.subplots(3, 2, sharey="row")
    seconds = "cpu_seconds" if all(row.get("cpu_seconds") for row in curves) else "seconds"
    clock = "CPU seconds of training" if seconds == "cpu_seconds" else "seconds of training"
    labels = dict.fromkeys(row["label"] for row in epochs)
    colors = {label: f"C{number % 10}" for number, label in enumerate(labels)}
    for axis, name in zip(axes[0], ("views", seconds), strict=True):
        _lines(axis, curves, name, "knn", colors)
        for label, level in levels.items():
            axis.axhline(level, color="grey", linestyle=":", label=f"{label} (untrained)")
    axes[0][0].set_ylabel("k-NN top-1, %")
    for (name, text), pair in zip(_LABELS, axes[1:], strict=True):
        known = [row for row in epochs if row.get(name) not in ("", None)]
        pair[0].set_ylabel(f"share of {text}")
        for axis, over in zip(pair, ("epoch", seconds), strict=True):
            _lines(axis, known, over, name, colors)
    for row, first in zip(axes, ("image views", "epoch", "epoch"), strict=True):
        row[0].set_xlabel(first)
        row[1].set_xlabel(clock)
    _finish(axes)
    return figure


def _lines(axis: Axes, rows: Rows, over: str, name: str, colors: Mapping[str, str]) -> None:
    """Draw a line for each label."""
    for label in dict.fromkeys(row["label"] for row in rows):
        points: dict[int, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["label"] == label:
                points.setdefault(row["epoch"], []).append(row)
        groups = list(points.values())
        at = [statistics.fmean(p[over] for p in group) for group in groups]
        mean = [statistics.fmean(p[name] for p in group) for group in groups]
        spread = [statistics.stdev(p[name] for p in g) if g[1:] else 0.0 for g in groups]
        low = [m - s for m, s in zip(mean, spread, strict=True)]
        high = [m + s for m, s in zip(mean, spread, strict=True)]
        axis.plot(at, mean, marker="o", markersize=3, label=label, color=colors[label])
        axis.fill_between(at, low, high, alpha=0.15, color=colors[label], linewidth=0)


def _finish(axes: Any) -> None:
    """Give every plot its grid, ticks and legend."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for row in axes:
        for axis in row:
            axis.xaxis.set_major_locator(MaxNLocator(6))
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.grid(alpha=0.3)
        if row[1].get_legend_handles_labels()[0]:
            row[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
