"""`uic voc-classify`, `voc-detect` and `voc-segment`: a run's network on PASCAL VOC."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from uic_plugin.cli.common import RunPath, Set, Untrained, terminal

VocDir = Annotated[Path, typer.Argument(help="Folder with VOCdevkit, or VOCdevkit/VOC2007.")]
Split = Annotated[str, typer.Option(help="Images to train on.")]
Test = Annotated[str, typer.Option(help="Images to test on.")]
Year = Annotated[str | None, typer.Option(help="Of the challenge, where there are several.")]
Iterations = Annotated[int, typer.Option(help="Steps.")]
Batch = Annotated[int, typer.Option(help="Images of a step.")]
Lr = Annotated[float, typer.Option(help="Learning rate at the start.")]
Policy = Annotated[str, typer.Option(help="Of the learning rate: step, poly or constant.")]
LrStep = Annotated[int, typer.Option(help="Iterations between two steps of it.")]
LrDecay = Annotated[float, typer.Option(help="Factor of a step.")]
Power = Annotated[float, typer.Option(help="Of poly.")]
Warmup = Annotated[int, typer.Option(help="Iterations over which it climbs.")]
Momentum = Annotated[float, typer.Option(help="Of the descent.")]
Decay = Annotated[float, typer.Option(help="Of the weights.")]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient; 0: any.")]
Precision = Annotated[str, typer.Option(help="Of the training: 32 or bf16.")]
Seed = Annotated[int, typer.Option(help="Of order, views, dropout and new layers.")]
Every = Annotated[int, typer.Option(help="Iterations between two checkpoints.")]
BatchNorm = Annotated[str, typer.Option(help="Its statistics: fixed, or train (of the batch).")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results; one in the run folder.")]


def voc_classify(
    run: RunPath,
    vocdir: VocDir,
    train: Annotated[str, typer.Option(help="fc6-8 (frozen convolutions) or all.")] = "all",
    keep_fc: Annotated[
        bool, typer.Option("--keep-fc", help="Start fc6 and fc7 from the pretrained weights.")
    ] = False,
    split: Split = "trainval",
    test: Test = "test",
    year: Year = None,
    iterations: Iterations = 80_000,
    batch_size: Batch = 16,
    lr: Lr = 0.003,
    policy: Policy = "step",
    lr_step: LrStep = 5000,
    lr_decay: LrDecay = 0.5,
    power: Power = 0.9,
    warmup: Warmup = 0,
    momentum: Momentum = 0.9,
    weight_decay: Decay = 1e-6,
    clip: Clip = 10.0,
    precision: Precision = "32",
    seed: Seed = 0,
    save_every: Every = 500,
    crop: Annotated[int | None, typer.Option(help="Side in pixels; the recipe's.")] = None,
    resize: Annotated[
        int | None, typer.Option(help="Shorter side before a test's crops; 256/224 of it.")
    ] = None,
    min_scale: Annotated[float, typer.Option(help="Share of the image in a view.")] = 0.1,
    max_scale: Annotated[float, typer.Option(help="The largest.")] = 0.5,
    crops: Annotated[int, typer.Option(help="10 or 1, of each test image.")] = 10,
    batch_norm: BatchNorm = "fixed",
    out: Out = None,
    untrained: Untrained = False,
    set_: Set = None,
) -> None:
    """Multi-label classification: fine-tuned, average precision of each class."""
    from uic_plugin.data.voc_folder import VocData
    from uic_plugin.evaluation.voc.classification import ClassifySettings
    from uic_plugin.runs.voc_tasks import classify

    schedule = _schedule(locals())
    network = _network(run, untrained, set_)
    settings = ClassifySettings(
        train=train,
        keep_fc=keep_fc,
        crop=crop or network.crop,
        resize=resize,
        min_scale=min_scale,
        max_scale=max_scale,
        crops=crops,
        batch_norm=batch_norm,
    )
    folder = out or _folder(network, f"voc-classify-{train}")
    data = VocData(vocdir, split, test, year)
    rows = classify(network, data, settings, schedule, folder, _counting)
    _show(rows, folder, f"{crops} crops")


def voc_detect(
    run: RunPath,
    vocdir: VocDir,
    detector: Annotated[
        str, typer.Option(help="fast-rcnn (AlexNet, VGG16) or faster-rcnn (ResNets).")
    ] = "fast-rcnn",
    neck: Annotated[str, typer.Option(help="Of faster-rcnn: c4 or fpn.")] = "c4",
    split: Split = "trainval",
    test: Test = "test",
    year: Year = None,
    iterations: Iterations = 40_000,
    batch_size: Batch = 2,
    lr: Lr = 0.001,
    policy: Policy = "step",
    lr_step: LrStep = 30_000,
    lr_decay: LrDecay = 0.1,
    power: Power = 0.9,
    warmup: Warmup = 100,
    momentum: Momentum = 0.9,
    weight_decay: Decay = 5e-4,
    clip: Clip = 10.0,
    precision: Precision = "32",
    seed: Seed = 0,
    save_every: Every = 500,
    min_size: Annotated[int, typer.Option(help="Shorter side of an image in pixels.")] = 600,
    max_size: Annotated[int, typer.Option(help="Longer side, at most.")] = 1000,
    regions: Annotated[
        int | None, typer.Option(help="Of an image in a step: 64; c4 128, fpn 512.")
    ] = None,
    test_regions: Annotated[
        int | None, typer.Option(help="Of faster-rcnn in a test: c4 300, fpn 1000.")
    ] = None,
    batch_norm: BatchNorm = "fixed",
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
) -> None:
    """Detection: all layers fine-tuned, average precision of each class at an overlap of 0.5."""
    from uic_plugin.data.voc_folder import VocData
    from uic_plugin.evaluation.voc.detectors import DetectSettings
    from uic_plugin.evaluation.voc.proposals import ProposalSettings
    from uic_plugin.runs.voc_tasks import detect

    searched = ProposalSettings(proposals, proposal_side, proposal_smallest, proposal_most)
    settings = DetectSettings(
        detector, neck, min_size, max_size, regions, test_regions, batch_norm, searched
    )
    schedule = _schedule(locals())
    network = _network(run, untrained, set_)
    name = detector if detector == "fast-rcnn" else f"{detector}-{neck}"
    folder = out or _folder(network, f"voc-detect-{name}")
    rows = detect(
        network,
        VocData(vocdir, split, test, year),
        settings,
        schedule,
        folder,
        _counting,
        cache=cache or network.run.parent / "proposals",
        processes=processes,
        say=terminal().print,
    )
    _show(rows, folder, "overlap 0.5")


def voc_segment(
    run: RunPath,
    vocdir: VocDir,
    head: Annotated[str, typer.Option(help="Of AlexNet and VGG16: 32s, 16s or 8s.")] = "32s",
    output_stride: Annotated[int, typer.Option(help="Of ResNets: 8, 16 or 32.")] = 8,
    split: Split = "train",
    test: Test = "val",
    year: Year = None,
    iterations: Iterations = 20_000,
    batch_size: Batch = 8,
    lr: Lr = 0.01,
    policy: Policy = "poly",
    lr_step: LrStep = 10_000,
    lr_decay: LrDecay = 0.1,
    power: Power = 0.9,
    warmup: Warmup = 0,
    momentum: Momentum = 0.9,
    weight_decay: Decay = 1e-4,
    clip: Clip = 10.0,
    precision: Precision = "32",
    seed: Seed = 0,
    save_every: Every = 500,
    size: Annotated[int | None, typer.Option(help="Shorter side of an image; its own.")] = None,
    crop: Annotated[int, typer.Option(help="Side of a training view; 0: whole images.")] = 480,
    min_scale: Annotated[float, typer.Option(help="Smallest random scale.")] = 0.5,
    max_scale: Annotated[float, typer.Option(help="Largest.")] = 2.0,
    batch_norm: BatchNorm = "fixed",
    out: Out = None,
    untrained: Untrained = False,
    set_: Set = None,
) -> None:
    """Segmentation: all layers fine-tuned, mean intersection over union of 21 classes."""
    from uic_plugin.data.voc_folder import VocData
    from uic_plugin.evaluation.voc.segmentation import SegmentSettings
    from uic_plugin.runs.voc_tasks import segment

    settings = SegmentSettings(size, crop, min_scale, max_scale, batch_norm)
    schedule = _schedule(locals())
    network = _network(run, untrained, set_)
    folder = out or _folder(network, "voc-segment")
    data = VocData(vocdir, split, test, year)
    rows = segment(network, data, head, output_stride, settings, schedule, folder, _counting)
    _show(rows, folder, "21 classes")


def _schedule(given: dict[str, Any]) -> Any:
    """From the options of a command."""
    from uic_plugin.evaluation.voc.fine_tuning import Schedule

    return Schedule(**{field.name: given[field.name] for field in dataclasses.fields(Schedule)})


def _network(run: Path, untrained: bool, overrides: list[str] | None) -> Any:
    from uic_plugin.runs.voc_network import pretrained_network

    return pretrained_network(run, untrained=untrained, overrides=overrides or [])


def _folder(network: Any, name: str) -> Path:
    return network.run / (f"{name}-untrained" if network.untrained else name)  # type: ignore[no-any-return]


def _counting(title: str) -> Any:
    from uic_plugin.report.progress import counting

    return counting(title, terminal())


def _show(rows: list[dict[str, Any]], folder: Path, how: str) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    terminal().print(table)
    terminal().print(f"percent, {how}; {folder} has curve, pictures and results.csv")
