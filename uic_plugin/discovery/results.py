"""Files that a discovery writes into its folder.

labels.parquet   path, label, confidence, entropy, agreement, distance, second: one row per image
classes.csv      one row per class: size, means, typical and borderline images as lists in JSON
classes.json     the same
model.pt         labels later images: uic label FOLDER MORE_IMAGES --out FILE
discovery.json   settings, features, losses, how number and balance of the classes were chosen
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uic_plugin.data.labels import LabelTable, write_labels
from uic_plugin.discovery.model import Answers, ClassModel
from uic_plugin.discovery.search import Found
from uic_plugin.discovery.settings import DiscoverySettings
from uic_plugin.files import replacing
from uic_plugin.report.tables import write_csv

MODEL_FILE, ABOUT_FILE = "model.pt", "discovery.json"
LABELS_FILES = ("labels.parquet", "labels.csv")
CLASSES_FILES = ("classes.csv", "classes.json")
CORRECTED = "corrected"  # of a model's features: the label file that its classes started from
_EXAMPLES = 12  # typical images per class, and as many borderline ones


def label_table(paths: list[str], answers: Answers, model: ClassModel) -> LabelTable:
    """Return a model's answers as a label file's columns.

    Those of names and hidden classes are there where the model has such classes.
    """
    extra: dict[str, np.ndarray] = dict(answers.extra_columns())
    if model.names:
        extra["name"] = np.asarray([model.names.get(int(c), "") for c in answers.labels], object)
    if model.hidden:
        extra["hidden"] = np.isin(answers.labels, sorted(model.hidden)).astype(np.int64)
    labels = answers.labels.astype(np.int64)
    return LabelTable(paths, labels, answers.confidence, answers.entropy, extra)


def write_results(
    out: Path,
    names: list[str],
    found: Found,
    settings: DiscoverySettings,
    *,
    csv: bool = False,
    said: Mapping[str, object] | None = None,
) -> Path:
    """Write all files and return the path of the label file.

    Args:
        out: the folder.
        names: N paths of the images.
        found: their classes.
        settings: of the search.
        csv: write labels.csv instead of labels.parquet.
        said: further entries of discovery.json.
    """
    labels = out / LABELS_FILES[csv]
    classes = describe_classes(names, found.answers, found.model.num_classes)
    write_csv(
        out / CLASSES_FILES[0],
        [{k: _cell(v) for k, v in row.items()} for row in classes],
    )
    _write_json(out / CLASSES_FILES[1], classes)
    found.model.save(out / MODEL_FILE)
    about = {
        "settings": dataclasses.asdict(settings),
        "features": found.model.features,
        "losses": found.losses,
        "agreement": found.agreement,
        "classes": found.model.num_classes,
        **({} if found.count is None else {"curve": _curve(found)}),
        **({} if found.balance is None else {"balance": dataclasses.asdict(found.balance)}),
        **(said or {}),
    }
    write_labels(labels, label_table(names, found.answers, found.model))
    _write_json(out / ABOUT_FILE, about)
    return labels


def describe_classes(names: list[str], answers: Answers, count: int) -> list[dict[str, Any]]:
    """Return a row per class, with typical images, nearest to its mean, and borderline ones.

    Borderline images are those of lowest confidence.
    """
    order = np.argsort(answers.labels, kind="stable")
    groups = np.split(order, np.searchsorted(answers.labels[order], np.arange(1, count)))
    rows = []
    for number, members in enumerate(groups):
        typical = members[np.argsort(answers.distance[members], kind="stable")][:_EXAMPLES]
        unsure = members[np.argsort(answers.confidence[members], kind="stable")][:_EXAMPLES]
        row: dict[str, Any] = {"class": number, "size": len(members)}
        for name in ("confidence", "entropy", "agreement", "distance"):
            values = getattr(answers, name)[members]
            row[name] = round(float(values.mean()), 4) if len(members) else None
        nearest = np.bincount(answers.second[members], minlength=count)
        row["second"] = int(nearest.argmax()) if len(members) else None
        row["typical"] = [names[i] for i in typical]
        row["borderline"] = [names[i] for i in unsure]
        rows.append(row)
    return rows


def _cell(value: object) -> object:
    """Return a value of a table's cell: a list as JSON, which names with spaces are read from."""
    return json.dumps(value) if isinstance(value, list) else value


def _curve(found: Found) -> list[dict[str, Any]]:
    return [] if found.count is None else [dataclasses.asdict(p) for p in found.count.curve]


def _write_json(path: Path, content: object) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
