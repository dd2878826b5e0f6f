"""The paper's tables: the recipe of each row, and the paper's figures.

Source: UIC, Tables 1, 2, 3, 5, 6, 7 and 8; networks trained on ImageNet, figures in percent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from uic_plugin.experiments.transfer.tasks import FEWSHOT_COLUMNS

PROBE, FEWSHOT, VOC = "probe", "fewshot", "voc"  # what is measured
NMI = "NMI t/labels"
TOP1 = "Top-1"
_CONV = ("conv3", "conv4", "conv5")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        cells: its first cells, as in the paper.
        quoted: column to the paper's figure; NMI in percent.
        recipe: name below `imagenet/` or `small/`; None for figures of other papers.
        finetuned: whether the run is fine-tuned on fixed labels before it is probed.
        layer: layer of the probe of the column `Top-1`.
        small: recipe at small scale, with its group, if it is a different one.
        resolution: of few-shot images in pixels.
        untrained: the network of that recipe with its random weights.
    """

    cells: tuple[str, ...]
    quoted: dict[str, float]
    recipe: str | None = None
    finetuned: bool = False
    layer: str = "features"
    small: str | None = None
    resolution: int = 0
    untrained: bool = False

    def recipe_at(self, scale: str) -> str | None:
        """Return the recipe with its group, or None if this scale has none."""
        if scale == "small" and self.small is not None:
            return self.small
        group = "small" if scale == "small" else "imagenet"
        return None if self.recipe is None else f"{group}/{self.recipe}"


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        title: its subject.
        heads: names of the first columns.
        columns: measured columns.
        rows: from the top.
        note: remarks for the reader.
        task: "probe", "fewshot" or "voc".
    """

    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = field(default="")
    task: str = PROBE

    def rows_at(self, scale: str) -> list[Row]:
        """Return the rows that are run or quoted at a scale."""
        return [row for row in self.rows if row.quoted or row.recipe_at(scale)]


def _conv(*values: float, nmi: float | None = None) -> dict[str, float]:
    quoted = dict(zip(_CONV, values, strict=True))
    return quoted if nmi is None else {**quoted, NMI: nmi}


def _last(top1: float, nmi: float | None = None) -> dict[str, float]:
    return {TOP1: top1} if nmi is None else {TOP1: top1, NMI: nmi}


_FINETUNED = _conv(41.6, 41.5, 39.0)
VOC_COLUMNS = ("FC6-8", "ALL", "detection", "segmentation")


def _voc(*values: float | None) -> dict[str, float]:
    return {k: v for k, v in zip(VOC_COLUMNS, values, strict=True) if v is not None}


def _fewshot(method: str, arch: str, resolution: int, *quoted: float) -> Row:
    network = arch.lower().replace("-", "")
    full = {"UIC": "alexnet_3k", "DeepCluster": "alexnet_deepcluster"}
    untrained = method == "random"
    return Row(
        (method, arch, f"{resolution}x{resolution}"),
        dict(zip(FEWSHOT_COLUMNS, quoted, strict=True)) if quoted else {},
        full.get(method) if network == "alexnet" else None,
        small=f"miniimagenet/{network}_{'uic' if untrained else method.lower()}",
        resolution=resolution,
        untrained=untrained,
    )


TABLES = {
    "table1": PaperTable(
        "Table 1. Number of classes",
        ("Methods",),
        (*_CONV, NMI),
        (
            Row(("UIC 3k",), _conv(41.2, 41.0, 38.1, nmi=38.5), "alexnet_3k"),
            Row(("UIC 5k",), _conv(40.6, 40.9, 38.2, nmi=40.8), "alexnet_5k"),
            Row(("UIC 10k",), _conv(40.6, 40.8, 37.9, nmi=42.6), "alexnet_10k"),
        ),
    ),
    "table2": PaperTable(
        "Table 2. Further fine-tuning with fixed labels",
        ("Methods", "FT"),
        _CONV,
        (
            Row(("UIC 3k", "no"), _conv(41.2, 41.0, 38.1), "alexnet_3k"),
            Row(("UIC 3k", "yes"), _FINETUNED, "alexnet_3k", finetuned=True),
        ),
    ),
    "table3": PaperTable(
        "Table 3. Augmentation of the views that labels come from",
        ("Methods", "Aug"),
        _CONV,
        (
            Row(
                ("UIC 3k", "no"),
                _conv(39.5, 39.9, 37.9),
                "alexnet_center_labels",
                finetuned=True,
            ),
            Row(("UIC 3k", "yes"), _FINETUNED, "alexnet_3k", finetuned=True),
        ),
        note="The paper's row with augmentation is the fine-tuned network of Table 2, so both rows "
        "are fine-tuned here.",
    ),
    "table5": PaperTable(
        "Table 5. PASCAL VOC: classification and detection (mAP), segmentation (mean IoU)",
        ("Methods",),
        VOC_COLUMNS,
        (
            Row(("ImageNet Labels",), _voc(78.9, 79.9, 56.8, 48.0)),
            Row(("Random-RGB",), _voc(33.2, 57.0, 44.5, 30.1)),
            Row(
                ("Random-Sobel",),
                _voc(29.0, 61.9, 47.9, 32.0),
                "alexnet_3k",
                small="miniimagenet/alexnet_uic",
                untrained=True,
            ),
            Row(
                ("DeepCluster",),
                _voc(72.0, 73.7, 55.4, 45.1),
                "alexnet_deepcluster",
                small="miniimagenet/alexnet_deepcluster",
            ),
            Row(("SelfLabeling 3k x 10",), _voc(None, 75.3, 55.9, 43.7)),
            Row(
                ("UIC",),
                _voc(76.2, 75.9, 54.9, 45.9),
                "alexnet_3k",
                small="miniimagenet/alexnet_uic",
            ),
            Row(("Inpainting",), _voc(34.6, 56.5, 44.5, 29.7)),
            Row(("BiGan",), _voc(52.5, 60.3, 46.9, 35.2)),
            Row(("Context",), _voc(55.1, 63.1, 51.1, None)),
            Row(("Colorization",), _voc(61.5, 65.9, 46.9, 35.6)),
            Row(("Split-brain",), _voc(63.0, 67.1, 46.7, 36.0)),
            Row(("Jigsaw puzzle",), _voc(None, 67.6, 53.2, 37.6)),
            Row(("Counting",), _voc(None, 67.7, 51.4, 36.6)),
            Row(("RotNet",), _voc(70.87, 72.97, 54.4, 39.1)),
            Row(("RotNet+retrieval",), _voc(None, 74.7, 58.0, 45.9)),
        ),
        note="Quoted: PASCAL VOC 2007 (segmentation 2012). mAP measured here is the 11-point one; "
        "the area under the curve stands in the runs' results.csv. At small scale nothing here is "
        "a result on PASCAL VOC.",
        task=VOC,
    ),
    "table6": PaperTable(
        "Table 6. Few-shot classification on the test classes of miniImageNet, 5-way 5-shot",
        ("Methods", "Arch", "resolution"),
        FEWSHOT_COLUMNS,
        (
            _fewshot("UIC", "AlexNet", 224, 48.79, 53.03, 62.46, 65.05),
            _fewshot("DeepCluster", "AlexNet", 224, 51.33, 54.42, 60.32, 65.04),
            _fewshot("SimCLR", "AlexNet", 224),
            _fewshot("random", "AlexNet", 224),
            _fewshot("UIC", "AlexNet", 84, 52.43, 54.76, 54.40, 52.85),
            _fewshot("DeepCluster", "AlexNet", 84, 53.46, 54.87, 49.81, 50.18),
            _fewshot("SimCLR", "AlexNet", 84),
            _fewshot("random", "AlexNet", 84),
            *(
                _fewshot(method, "ResNet-18", resolution)
                for resolution in (224, 84)
                for method in ("UIC", "DeepCluster", "SimCLR", "random")
            ),
        ),
        note="± with one seed: half of the 95 % interval over the episodes; in a ResNet conv3, "
        "conv4 and conv5 are layer2, layer3 and layer4. At small scale networks are trained on the "
        "64 train classes of miniImageNet.",
        task=FEWSHOT,
    ),
    "table7": PaperTable(
        "Table 7. Stronger augmentation",
        ("Methods", "Arch"),
        (*_CONV, NMI),
        (
            Row(("DeepCluster", "AlexNet"), _conv(41.0, 39.6, 38.2)),
            Row(("SelfLabel 3k x 1", "AlexNet"), _conv(43.0, 44.7, 40.9)),
            Row(("SelfLabel 3k x 10", "AlexNet+10heads"), _conv(44.7, 47.1, 44.1)),
            Row(("UIC", "AlexNet"), {**_FINETUNED, NMI: 38.5}, "alexnet_3k"),
            Row(
                ("UIC + strong aug", "AlexNet"),
                _conv(43.5, 45.6, 44.3, nmi=40.0),
                "alexnet_strong",
            ),
        ),
        note="Section 5.1 says that nothing here is fine-tuned, yet quotes the fine-tuned figures "
        "of Table 2 for UIC; measured here is the network without fine-tuning.",
    ),
    "table8": PaperTable(
        "Table 8. More networks",
        ("Methods", "Arch"),
        (TOP1, NMI),
        (
            Row(("Jigsaw", "Res50"), _last(38.4)),
            Row(("Rotation", "Res50"), _last(43.8)),
            Row(("InstDisc", "Res50"), _last(54.0)),
            Row(("BigBiGAN", "Res50"), _last(56.6)),
            Row(("Local Agg.", "Res50"), _last(60.2)),
            Row(("Moco", "Res50"), _last(60.6)),
            Row(("PIRL", "Res50"), _last(63.6)),
            Row(("CPCv2", "Res50"), _last(63.8)),
            Row(("SimCLR", "Res50 + MLP-head"), _last(69.3)),
            Row(("Mocov2", "Res50 + MLP-head"), _last(71.1)),
            Row(("SelfLabel 3k x 1", "Res50"), _last(51.8)),
            Row(("SelfLabel 3k x 10", "Res50+10heads"), _last(55.7)),
            Row(("UIC + strong aug", "VGG16"), _last(57.7, 46.9), "vgg16"),
            Row(("UIC + strong aug", "Res50"), _last(62.7, 50.6), "resnet50"),
            Row(
                ("UIC + strong aug", "Res50 + MLP-head"),
                _last(64.4, 53.3),
                "resnet50_mlp",
                layer="mlp",
            ),
        ),
    ),
}
