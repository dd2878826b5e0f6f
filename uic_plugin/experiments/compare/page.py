"""The comparison as one HTML file: curves over views and over time, table, failures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uic_plugin.experiments.compare.curves import curve_figure
from uic_plugin.experiments.compare.plan import Setting
from uic_plugin.experiments.compare.records import cell, columns_of, heading
from uic_plugin.files import replacing


def write_page(
    path: Path,
    setting: Setting,
    summary: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    *,
    curves: Sequence[Mapping[str, Any]],
    epochs: Sequence[Mapping[str, Any]],
    trials: Sequence[Mapping[str, Any]],
    steady: Sequence[Mapping[str, Any]],
) -> Path:
    """Write the self-contained page, and its curves beside it as `curves.png`.

    Args:
        path: of the HTML file.
        setting: what all runs share.
        summary: one row per line of the comparison.
        rows: one row per run.
        curves: one row per point.
        epochs: one row per epoch of a run.
        trials: one row per setting that was tried.
        steady: one row, how steady the machine was; none where that was not measured.
    """
    from jinja2 import Environment

    source = Path(__file__).with_name("page.html").read_text()
    levels = {s["label"]: s["knn"] for s in summary if s["method"] == "random" and s["knn"] != ""}
    svg = ""
    if curves:
        figure = curve_figure(curves, epochs, levels)
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
        judges=setting.judges,
        clusters=setting.clusters,
        figure=svg,
        trials=trials,
        steady=steady,
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
