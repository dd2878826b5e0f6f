"""Rows of the paper's tables: which recipe makes each, and the figure that the paper quotes.

Source: UIC, Tables 1, 2, 3, 7 and 8; top-1 in percent on ImageNet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NMI = "NMI t/labels"
TOP1 = "Top-1"
_CONV = ("conv3", "conv4", "conv5")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        cells: what stands at its left, as in the paper.
        quoted: column to the paper's figure; NMI in percent.
        recipe: name below `imagenet/` or `small/`; None for figures of other papers.
        finetuned: whether the run is fine-tuned on fixed labels before it is probed.
        layer: whose probe is the column `Top-1`.
    """

    cells: tuple[str, ...]
    quoted: dict[str, float]
    recipe: str | None = None
    finetuned: bool = False
    layer: str = "features"


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        title: its subject.
        heads: names of the columns at the left.
        columns: measured columns.
        rows: from the top.
        note: what a reader should know.
    """

    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = field(default="")


def _conv(*values: float, nmi: float | None = None) -> dict[str, float]:
    quoted = dict(zip(_CONV, values, strict=True))
    return quoted if nmi is None else {**quoted, NMI: nmi}


def _last(top1: float, nmi: float | None = None) -> dict[str, float]:
    return {TOP1: top1} if nmi is None else {TOP1: top1, NMI: nmi}


_FINETUNED = _conv(41.6, 41.5, 39.0)

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
