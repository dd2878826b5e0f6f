"""`uic voc-detect`: detection on PASCAL VOC."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, Set, Untrained, terminal
from uic_plugin.cli.options import options_of
from uic_plugin.cli.voc import Out, Split, Test, VocDir, Year, folder_of, network_of, progress, show
from uic_plugin.evaluation.voc.settings import DetectSettings, ProposalSettings, Schedule

_SCHEDULE = {
    "iterations": 40_000,
    "batch_size": 2,
    "lr": 0.001,
    "lr_step": 30_000,
    "lr_decay": 0.1,
    "warmup": 100,
    "weight_decay": 5e-4,
}


@options_of(Schedule, "schedule", defaults=_SCHEDULE)
@options_of(DetectSettings, leave_out=("proposals",), defaults={"detector": "fast-rcnn"})
def voc_detect(
    run: RunPath,
    vocdir: VocDir,
    split: Split = "trainval",
    test: Test = "test",
    year: Year = None,
    proposals: Annotated[str, typer.Option(help="Selective search: fast or quality.")] = "fast",
    proposal_side: Annotated[
        int | None, typer.Option(help="Shorter side it searches at; the image's own.")
    ] = None,
    proposal_smallest: Annotated[int, typer.Option(help="Sides of a proposal in pixels.")] = 16,
    proposal_most: Annotated[int, typer.Option(help="Proposals of an image.")] = 2000,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the proposals; 'proposals' beside the run.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="That search; one a core.")] = None,
    out: Out = None,
    untrained: Untrained = False,
    set_: Set = None,
    *,
    settings: DetectSettings,
    schedule: Schedule,
) -> None:
    """Detection: all layers fine-tuned, average precision of each class at an overlap of 0.5."""
    from uic_plugin.data.voc_folder import VocData
    from uic_plugin.runs.voc_tasks import detect

    searched = ProposalSettings(proposals, proposal_side, proposal_smallest, proposal_most)
    network = network_of(run, untrained, set_)
    neck = "" if settings.detector == "fast-rcnn" else f"-{settings.neck}"
    folder = out or folder_of(network, f"voc-detect-{settings.detector}{neck}")
    rows = detect(
        network,
        VocData(vocdir, split, test, year),
        dataclasses.replace(settings, proposals=searched),
        schedule,
        folder,
        progress,
        cache=cache or network.run.parent / "proposals",
        processes=processes,
        say=terminal().print,
    )
    show(rows, folder, "overlap 0.5")
