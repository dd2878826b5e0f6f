"""`uic voc-classify`: multi-label classification on PASCAL VOC."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, Set, Untrained
from uic_plugin.cli.options import options_of
from uic_plugin.cli.voc import Out, Split, Test, VocDir, Year, folder_of, network_of, progress, show
from uic_plugin.evaluation.voc.settings import ClassifySettings, Schedule

_SCHEDULE = {"iterations": 80_000, "batch_size": 16, "lr": 0.003}


@options_of(Schedule, "schedule", defaults=_SCHEDULE)
@options_of(ClassifySettings, leave_out=("crop",))
def voc_classify(
    run: RunPath,
    vocdir: VocDir,
    split: Split = "trainval",
    test: Test = "test",
    year: Year = None,
    crop: Annotated[int | None, typer.Option(help="Side in pixels; the recipe's.")] = None,
    out: Out = None,
    untrained: Untrained = False,
    set_: Set = None,
    *,
    settings: ClassifySettings,
    schedule: Schedule,
) -> None:
    """Multi-label classification: fine-tuned, average precision of each class."""
    from uic_plugin.data.voc_folder import VocData
    from uic_plugin.runs.voc_tasks import classify

    network = network_of(run, untrained, set_)
    settings = dataclasses.replace(settings, crop=crop or network.crop)
    folder = out or folder_of(network, f"voc-classify-{settings.train}")
    data = VocData(vocdir, split, test, year)
    rows = classify(network, data, settings, schedule, folder, progress)
    show(rows, folder, f"{settings.crops} crops")
