"""The tasks of PASCAL VOC on a run's network: train, test, write results and pictures.

Each writes into its folder `results.csv` (a row per class and one of the mean, in percent),
`curve.csv` and `curve.png`, `pictures.png`, and keeps `finetune.ckpt` to resume from.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uic_plugin.data.voc_folder import VocData
from uic_plugin.evaluation.voc.classification import (
    ClassifiedImages,
    ClassifySettings,
    MultiLabelNetwork,
    classification_losses,
    evaluate_classifier,
    evaluation_view,
    training_view,
)
from uic_plugin.evaluation.voc.coco import coco_precision
from uic_plugin.evaluation.voc.detection import (
    DetectionImages,
    as_lists,
    detection_losses,
    evaluate_detector,
    precision_of,
)
from uic_plugin.evaluation.voc.detectors import make_detector
from uic_plugin.evaluation.voc.fcn import StagedFCN, resnet_fcn
from uic_plugin.evaluation.voc.fine_tuning import fine_tune
from uic_plugin.evaluation.voc.network import seeded, with_mode
from uic_plugin.evaluation.voc.outputs import (
    iou_rows,
    percent,
    precision_rows,
    write_detections,
)
from uic_plugin.evaluation.voc.proposals import ProposalCache
from uic_plugin.evaluation.voc.segmentation import (
    NUM_CLASSES,
    SegmentedImages,
    SegmentSettings,
    evaluate_segmenter,
    segmentation_losses,
)
from uic_plugin.evaluation.voc.settings import DetectSettings, Schedule
from uic_plugin.networks.staged import StagedNetwork
from uic_plugin.report.tables import write_csv
from uic_plugin.report.voc_pictures import (
    draw_detections,
    draw_masks,
    draw_scores,
    plot_curve,
    save_mask,
)
from uic_plugin.runs.voc_network import PretrainedNetwork

RESULTS_FILE = "results.csv"
# What shows progress: its name to a context that takes what is done and the whole.
Counting = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class _Training:
    """What the tasks train in one way: see `fine_tune`."""

    model: nn.Module
    dataset: Any
    losses: Callable[[nn.Module, Any], dict[str, torch.Tensor]]
    set_mode: Callable[[], None]
    identity: dict[str, Any]
    collate: Callable[[list[Any]], Any] | None = None

    def run(
        self, network: PretrainedNetwork, schedule: Schedule, folder: Path, counting: Counting
    ) -> list[dict[str, Any]]:
        """Draw the curve."""
        with counting("iterations") as progress:
            return fine_tune(
                self.model,
                self.dataset,
                lambda batch: self.losses(self.model, batch),
                schedule,
                folder,
                set_mode=self.set_mode,
                identity=self.identity,
                num_workers=network.num_workers,
                collate=self.collate,
                progress=progress,
            )


def classify(
    network: PretrainedNetwork,
    data: VocData,
    settings: ClassifySettings,
    schedule: Schedule,
    folder: Path,
    counting: Counting,
) -> list[dict[str, Any]]:
    """Multi-label classification; see `fine_tune` for what is raised."""
    images, tested = data.images()
    network.use_statistics_of(images)
    identity = _identity("voc-classify", network, images.fingerprint, settings)
    width = network.num_features
    model = MultiLabelNetwork(network.backbone, width, settings, schedule.seed).to(network.device)
    dataset = ClassifiedImages(images, training_view(settings, network.normalize))
    set_mode = with_mode(model, settings.batch_norm, model.frozen)
    training = _Training(model, dataset, classification_losses, set_mode, identity)
    curve = training.run(network, schedule, folder, counting)
    with counting("test images") as progress:
        views = ClassifiedImages(tested, evaluation_view(settings, network.normalize))
        precision, scores = evaluate_classifier(
            model, views, num_workers=network.num_workers, progress=progress
        )
    draw_scores(tested, scores, folder / "pictures.png")
    return _write(folder, curve, precision_rows(precision))


def detect(
    network: PretrainedNetwork,
    data: VocData,
    settings: DetectSettings,
    schedule: Schedule,
    folder: Path,
    counting: Counting,
    *,
    cache: Path,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Detection; see `fine_tune` for what is raised.

    Args:
        network, data, settings, schedule, folder, counting: as of the other tasks.
        cache: folder of the proposals of Fast R-CNN.
        processes: that search for them; by default one per core.
        say: takes a line.
    """
    images, tested = data.images()
    network.use_statistics_of(images)
    identity = _identity("voc-detect", network, images.fingerprint, settings)
    model = seeded(
        lambda: make_detector(network.backbone, settings, network.mean, network.std), schedule.seed
    ).to(network.device)
    proposals = None
    if settings.detector == "fast-rcnn":
        proposals = ProposalCache(cache, settings.proposals)
        paths = list(dict.fromkeys([*images.reader.images, *tested.reader.images]))
        with counting("images searched") as progress:
            proposals.compute(paths, processes or os.cpu_count() or 1, progress)
    dataset = DetectionImages(images, proposals, mirror=True)
    set_mode = with_mode(model, settings.batch_norm)
    training = _Training(model, dataset, detection_losses, set_mode, identity, as_lists)
    curve = training.run(network, schedule, folder, counting)
    with counting("test images") as progress:
        found = evaluate_detector(
            model, tested, proposals, num_workers=network.num_workers, progress=progress
        )
    write_detections(folder / "detections.json", tested, found)
    draw_detections(tested, found, folder / "pictures.png")
    try:
        coco = coco_precision(found, tested)
        figures = {name: percent(value) if value >= 0 else "" for name, value in coco.items()}
        write_csv(folder / "coco.csv", [figures])
    except ImportError as error:
        say(f"coco.csv is not written: {error}")
    return _write(folder, curve, precision_rows(precision_of(found, tested)))


def segment(
    network: PretrainedNetwork,
    data: VocData,
    head: str,
    output_stride: int,
    settings: SegmentSettings,
    schedule: Schedule,
    folder: Path,
    counting: Counting,
) -> list[dict[str, Any]]:
    """Segmentation; see `fine_tune` for what is raised.

    Args:
        network, data, settings, schedule, folder, counting: as of the other tasks.
        head: of AlexNet and VGG16, see `StagedFCN`.
        output_stride: of a ResNet, see `resnet_fcn`.
    """
    if not settings.crop and schedule.batch_size > 1:
        raise ValueError(
            f"--crop 0 trains on whole images, whose sizes differ: set --batch-size 1 "
            f"(it is {schedule.batch_size})"
        )
    images, tested = data.masks()
    network.use_statistics_of(images)
    identity = _identity("voc-segment", network, images.fingerprint, settings)
    is_staged = isinstance(network.backbone, StagedNetwork)
    identity["head"] = head if is_staged else f"stride {output_stride}"

    def build() -> nn.Module:
        if is_staged:
            return StagedFCN(network.backbone, NUM_CLASSES, head)
        return resnet_fcn(network.backbone, NUM_CLASSES, output_stride)

    model = seeded(build, schedule.seed).to(network.device)
    dataset = SegmentedImages(images, settings, network.normalize, train=True)
    set_mode = with_mode(model, settings.batch_norm)
    training = _Training(model, dataset, segmentation_losses, set_mode, identity)
    curve = training.run(network, schedule, folder, counting)
    with counting("test images") as progress:
        views = SegmentedImages(tested, settings, network.normalize, train=False)
        matrix, masks = evaluate_segmenter(
            model, views, num_workers=network.num_workers, progress=progress
        )
    for name, mask in zip(tested.names, masks, strict=True):
        save_mask(mask, folder / "masks" / f"{name}.png")
    draw_masks(tested, masks, folder / "pictures.png")
    return _write(folder, curve, iou_rows(matrix))


def _identity(task: str, network: PretrainedNetwork, images: str, settings: Any) -> dict[str, Any]:
    """Return what a resumed run must share with the one that was stopped."""
    kept = dataclasses.asdict(settings)
    for name in ("crops", "resize", "test_regions"):  # of tests alone
        kept.pop(name, None)
    return {"task": task, "network": network.fingerprint(), "images": images, "settings": kept}


def _write(
    folder: Path, curve: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    plot_curve(curve, folder / "curve.png")
    write_csv(folder / RESULTS_FILE, rows)
    return rows
