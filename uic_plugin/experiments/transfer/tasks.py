"""The commands of each task, with the detector and layers for a network and a scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uic_plugin.experiments.jobs import Job

FEWSHOT, CLASSIFY, DETECT, SEGMENT = "fewshot", "voc-classify", "voc-detect", "voc-segment"
TASKS = (FEWSHOT, CLASSIFY, DETECT, SEGMENT)
SCALES = ("small", "full")
_STAGED = ("alexnet", "vgg16")
# He et al., 2015, name the stages of a ResNet conv1 to conv5
_STAGES = {"conv3": "layer2", "conv4": "layer3", "conv5": "layer4"}
_CONV4_LAYERS = {"conv3": "conv2", "conv4": "conv3", "conv5": "conv4"}  # its last three
FEWSHOT_COLUMNS = ("conv3", "conv4", "conv5", "conv5+MP")
# At small scale networks see small images for few iterations; at full scale defaults are the
# protocols'. Minutes on two cores of some network of 64 pixels; hours on one GPU, estimated.
_SMALL = {
    FEWSHOT: (),
    CLASSIFY: (
        "--iterations=400",
        "--lr=0.01",
        "--lr-step=200",
        "--min-scale=0.3",
        "--max-scale=1",
    ),
    DETECT: (
        "--iterations=300",
        "--lr=0.01",
        "--lr-step=200",
        "--min-size=240",
        "--max-size=400",
        "--proposal-side=240",
    ),
    SEGMENT: (
        "--iterations=1500",
        "--lr=0.02",
        "--size=160",
        "--crop=0",
        "--batch-size=1",
        "--min-scale=1",
        "--max-scale=1",
        "--split=trainval",
        "--test=test",
    ),
}
_SMALL_RESNET = {
    DETECT: (
        "--neck=fpn",
        "--lr=0.02",
        "--regions=64",
        "--test-regions=200",
        "--min-size=160",
        "--max-size=240",
        "--iterations=200",
        "--lr-step=150",
        "--precision=bf16",
    ),
    SEGMENT: ("--output-stride=16", "--iterations=600", "--lr=0.01", "--precision=bf16"),
    CLASSIFY: ("--iterations=200", "--lr-step=100", "--precision=bf16"),
}
# The years of Table 5
_FULL = {
    FEWSHOT: (),
    CLASSIFY: ("--year=2007",),
    DETECT: ("--year=2007",),
    SEGMENT: ("--year=2012",),
}
_TAKES = {
    ("small", FEWSHOT): "about 2 minutes",
    ("small", CLASSIFY): "about 4 minutes",
    ("small", DETECT): "about 5 minutes",
    ("small", SEGMENT): "about 4 minutes",
    ("full", FEWSHOT): "estimated 20 minutes",
    ("full", CLASSIFY): "estimated 2 hours",
    ("full", DETECT): "estimated 4 hours, and 2 hours of selective search on 8 cores",
    ("full", SEGMENT): "estimated 3 hours",
}


@dataclass(frozen=True)
class TransferPlan:
    """What the commands share.

    Attributes:
        scale: "small" or "full".
        fewshot: images of held-out classes, a folder or a split's .csv.
        voc: see `find_voc`.
        seed: of the tasks.
        options: of a task, for example `--iterations=100`, which override those of the scale.

    Raises:
        ValueError: for another scale or an unknown task.
    """

    scale: str
    fewshot: Path
    voc: Path
    seed: int = 0
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"--scale must be {' or '.join(SCALES)}, got {self.scale!r}")
        check_tasks(self.options)

    def fewshot_job(
        self, run: Path, backbone: str, out: Path, resolution: int, *, untrained: bool = False
    ) -> Job:
        """Return the job of few-shot classification at one resolution."""
        layers = [fewshot_layer(backbone, column) for column in FEWSHOT_COLUMNS]
        given = (f"--layers={','.join(layers)}", f"--resolution={resolution}")
        name = f"{FEWSHOT}-{resolution}{'-untrained' * untrained}"
        folder = out / name
        arguments = [FEWSHOT, str(run), str(self.fewshot), *given, f"--out={folder}/results.csv"]
        return self._job(FEWSHOT, name, run, backbone, folder, arguments, untrained)

    def classify_job(
        self, run: Path, backbone: str, out: Path, train: str, *, untrained: bool = False
    ) -> Job:
        """Return the job of VOC classification of "fc6-8" or "all"."""
        name = f"{CLASSIFY}-{train}{'-untrained' * untrained}"
        arguments = [CLASSIFY, str(run), str(self.voc), f"--train={train}", f"--out={out / name}"]
        return self._job(CLASSIFY, name, run, backbone, out / name, arguments, untrained)

    def detect_job(self, run: Path, backbone: str, out: Path, *, untrained: bool = False) -> Job:
        """Return the job of VOC detection with the detector that the network takes."""
        detector = "fast-rcnn" if backbone in _STAGED else "faster-rcnn"
        name = f"{DETECT}{'-untrained' * untrained}"
        given = [f"--detector={detector}", f"--out={out / name}"]
        arguments = [DETECT, str(run), str(self.voc), *given]
        return self._job(DETECT, name, run, backbone, out / name, arguments, untrained)

    def segment_job(self, run: Path, backbone: str, out: Path, *, untrained: bool = False) -> Job:
        """Return the job of VOC segmentation; at small scale with the finest head."""
        name = f"{SEGMENT}{'-untrained' * untrained}"
        arguments = [SEGMENT, str(run), str(self.voc), f"--out={out / name}"]
        if self.scale == "small" and backbone in _STAGED:
            arguments.append("--head=8s")
        return self._job(SEGMENT, name, run, backbone, out / name, arguments, untrained)

    def jobs(
        self, tasks: Sequence[str], run: Path, backbone: str, out: Path, *, untrained: bool = False
    ) -> list[Job]:
        """Return all jobs of some tasks.

        Raises:
            ValueError: for an unknown task.
        """
        check_tasks(tasks)
        made: list[Job] = []
        for task in tasks:
            if task == FEWSHOT:
                made += [
                    self.fewshot_job(run, backbone, out, resolution, untrained=untrained)
                    for resolution in ((84,) if self.scale == "small" else (84, 224))
                ]
            elif task == CLASSIFY:
                made += [
                    self.classify_job(run, backbone, out, train, untrained=untrained)
                    for train in ("fc6-8", "all")
                ]
            elif task == DETECT:
                made.append(self.detect_job(run, backbone, out, untrained=untrained))
            else:
                made.append(self.segment_job(run, backbone, out, untrained=untrained))
        return made

    def _job(
        self,
        task: str,
        name: str,
        run: Path,
        backbone: str,
        folder: Path,
        arguments: Sequence[str],
        untrained: bool,
    ) -> Job:
        own = [f"--seed={self.seed}", *self.options.get(task, ())]
        chosen = {option.partition("=")[0] for option in own} - {"--out", "--resolution"}
        arguments = [word for word in arguments if word.partition("=")[0] not in chosen]
        own = [option.removesuffix("=true") for option in own]  # flags take no value
        usual = (_SMALL if self.scale == "small" else _FULL)[task]
        if self.scale == "small" and backbone not in _STAGED:
            arguments = [*arguments, *_SMALL_RESNET.get(task, ())]
        said = {argument.partition("=")[0] for argument in (*arguments, *own)}
        usual = tuple(option for option in usual if option.partition("=")[0] not in said)
        return Job(
            f"{name} {run.name}",
            (*arguments, *usual, *own, *(["--untrained"] if untrained else [])),
            folder,
            folder / "results.csv",
            takes=_TAKES[self.scale, task],
        )


def fewshot_layer(backbone: str, column: str) -> str:
    """Return a network's name for a column of Table 6: `conv5+MP` is `layer4+mp` in a ResNet.

    Of a Conv-4, which has no conv5, they are its last three layers.
    """
    name, plus, _ = column.partition("+")
    layers = _CONV4_LAYERS if backbone == "conv4" else _STAGES
    layer = name if backbone in _STAGED else layers[name]
    return f"{layer}+mp" if plus else layer


def check_tasks(tasks: Sequence[str] | Mapping[str, Sequence[str]]) -> None:
    """Refuse an unknown task.

    Raises:
        ValueError: naming it.
    """
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}: one of {', '.join(TASKS)}")
