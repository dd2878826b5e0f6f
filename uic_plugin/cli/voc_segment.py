"""`uic voc-segment`: semantic segmentation on PASCAL VOC."""

from __future__ import annotations

from typing import Annotated

import typer

from uic_plugin.cli.common import RunPath, Set, Untrained
from uic_plugin.cli.options import options_of
from uic_plugin.cli.voc import Out, Split, Test, VocDir, Year, folder_of, network_of, progress, show
from uic_plugin.evaluation.voc.settings import Schedule, SegmentSettings

_SCHEDULE = {
    "iterations": 20_000,
    "batch_size": 8,
    "lr": 0.01,
    "policy": "poly",
    "lr_step": 10_000,
    "lr_decay": 0.1,
    "weight_decay": 1e-4,
}


@options_of(Schedule, "schedule", defaults=_SCHEDULE)
@options_of(SegmentSettings)
def voc_segment(
    run: RunPath,
    vocdir: VocDir,
    head: Annotated[str, typer.Option(help="Of AlexNet and VGG16: 32s, 16s or 8s.")] = "32s",
    output_stride: Annotated[int, typer.Option(help="Of ResNets: 8, 16 or 32.")] = 8,
    split: Split = "train",
    test: Test = "val",
    year: Year = None,
    out: Out = None,
    untrained: Untrained = False,
    set_: Set = None,
    *,
    settings: SegmentSettings,
    schedule: Schedule,
) -> None:
    """Segmentation: all layers fine-tuned, mean intersection over union of 21 classes."""
    from uic_plugin.data.voc_folder import VocData
    from uic_plugin.runs.voc_tasks import segment

    network = network_of(run, untrained, set_)
    folder = out or folder_of(network, "voc-segment")
    data = VocData(vocdir, split, test, year)
    rows = segment(network, data, head, output_stride, settings, schedule, folder, progress)
    show(rows, folder, "21 classes")
