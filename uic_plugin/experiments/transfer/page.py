"""The results of `uic transfer` as one HTML file with embedded pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uic_plugin.experiments.jobs import Job
from uic_plugin.experiments.transfer.tasks import FEWSHOT
from uic_plugin.files import replacing
from uic_plugin.report.tables import read_csv


def write_page(
    path: Path, run: Path, rows: Sequence[Mapping[str, Any]], jobs: Sequence[Job], note: str
) -> Path:
    """Write the self-contained page.

    Args:
        path: of the HTML file.
        run: the run folder or checkpoint of the network.
        rows: see `transfer_rows`.
        jobs: the tasks, with pictures in their folders.
        note: about the images and the meaning of the figures.
    """
    from jinja2 import Environment

    source = Path(__file__).with_name("page.html").read_text()
    template = Environment(autoescape=True, trim_blocks=True).from_string(source)
    done = [row for row in rows if not row["failed"]]
    text = template.render(
        run=run,
        note=note,
        rows=rows,
        sections=[
            {"name": job.name.split()[0], "pictures": _pictures(job)}
            for job in jobs
            if job.is_done()
        ],
        commands=list(dict.fromkeys(row["command"] for row in rows)),
        hardware=" / ".join(sorted({row["hardware"] for row in done})),
        date=max((row["date"] for row in done), default=""),
    )
    with replacing(path) as part:
        part.write_text(text)
    return path


def _pictures(job: Job) -> list[str]:
    """Return the pictures of a task as data URIs."""
    if job.name.startswith(FEWSHOT):
        return [_as_uri(_bars(job.product))]
    files = (job.folder / name for name in ("curve.png", "pictures.png"))
    return [_as_uri(file.read_bytes()) for file in files if file.exists()]


def _bars(results: Path) -> bytes:
    """Plot the accuracy of each layer with its interval, as PNG."""
    from matplotlib.figure import Figure

    rows = read_csv(results)
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axis = figure.subplots()
    axis.bar(
        [row["layer"] for row in rows],
        [float(row["accuracy"]) for row in rows],
        yerr=[float(row["interval"]) for row in rows],
        capsize=4,
    )
    axis.axhline(100 / int(rows[0]["ways"]), color="grey", linestyle=":")
    axis.set_ylabel("accuracy, % (dotted: guessing)")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    return drawn.getvalue()


def _as_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
