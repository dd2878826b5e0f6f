"""Label files: one row per image with its path, pseudo label, confidence and entropy.

They are Parquet or CSV, by the file's suffix. Further columns are `second` and
`second_confidence` (second-best class), `agreement` (share of heads), `name` (of the class),
`source_label` (class before edits), `wrong` and `hidden` (0 or 1). All others are kept as they are.
"""

from __future__ import annotations

import csv
import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uic_plugin.data.label_columns import (
    Column,
    further_column,
    import_pyarrow,
    parquet_column,
    read_csv_columns,
    read_parquet_columns,
)
from uic_plugin.files import replacing

COLUMNS = ("path", "label", "confidence", "entropy")
_ENDINGS = (".parquet", ".csv")
MOST_CLASSES = 1 << 24  # a damaged number above this would fill the memory
# after `export_labelled`: class folders are annotations, numbered as the classes of the label file
TRAIN_LABELLED = "uic pretrain --config-name custom/any methods=supervised data.train_path=sorted"


@dataclass(frozen=True)
class LabelTable:
    """Pseudo labels of a list of images.

    Attributes:
        paths: N paths below the images' folder, with forward slashes.
        labels: (N,) int64 pseudo labels.
        confidence: (N,) float32 softmax score of the label, in [0, 1].
        entropy: (N,) float32 entropy of the softmax in nats.
        extra: further columns by name, (N,) each, as `label_columns.further_column` has them.
    """

    paths: list[str]
    labels: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def fingerprint(self) -> str:
        """Identify paths and labels in their order, 16 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(np.ascontiguousarray(self.labels, "<i8").tobytes())
        digest.update("\0".join(self.paths).encode(errors="surrogateescape"))
        return digest.hexdigest()

    @property
    def names(self) -> dict[int, str]:
        """Return the names of classes, if the file has any; the first of a class counts."""
        if "name" not in self.extra:
            return {}
        classes, first = np.unique(self.labels, return_index=True)
        found = [str(self.extra["name"][row]) for row in first]
        return {int(c): name for c, name in zip(classes, found, strict=True) if name}

    @property
    def hidden(self) -> set[int]:
        """Return the hidden classes: those with an image that has the mark."""
        return set(self.labels[self.marked("hidden")].tolist())

    def marked(self, name: str) -> np.ndarray:
        """Return which images have a mark, `wrong` or `hidden`, (N,) bool; none without it."""
        column = self.extra.get(name)
        return np.zeros(len(self), bool) if column is None else np.asarray(column == 1, bool)


def check_label_file(path: Path, names: Sequence[str] = ()) -> Path:
    """Refuse, before any work is done, a file that could not be written.

    Args:
        path: of the file.
        names: paths of images that it is to hold.

    Raises:
        OSError: if the path is a folder, or lies below a file.
        ValueError: for an unknown suffix, or a name that Parquet cannot hold: one that is not
            UTF-8. CSV can.
        ImportError: if pyarrow is needed for Parquet and missing.
    """
    if path.suffix not in _ENDINGS:
        raise ValueError(f"{path}: a label file ends in {' or '.join(_ENDINGS)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")
    folder = next((parent for parent in path.parents if parent.exists()), path.parent)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: {path} cannot lie in it")
    if path.suffix == ".parquet":
        import_pyarrow()
        try:
            "\0".join(names).encode()
        except UnicodeEncodeError:
            foreign = next(n for n in names if n != n.encode(errors="replace").decode())
            raise ValueError(
                f"{path}: Parquet takes names in UTF-8 alone, and {foreign!r} is not: "
                f"write a .csv file ('uic discover --csv', 'uic label --out labels.csv')"
            ) from None
    return path


def write_labels(
    path: Path, table: LabelTable, more: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a label file through a temporary one.

    Args:
        path: `.parquet` or `.csv`.
        table: its columns.
        more: further columns (N,) by name, beside the table's own.
    """
    check_label_file(path, table.paths)
    extra = {**table.extra, **(more or {})}
    names = (*COLUMNS, *extra)
    scores = (table.confidence, table.entropy)
    columns: list[Column] = [table.paths, table.labels, *scores, *extra.values()]
    with replacing(path) as part:
        if path.suffix == ".csv":
            with open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                writer.writerow(names)
                writer.writerows(zip(*columns, strict=True))
        else:
            arrow = import_pyarrow()
            written = [parquet_column(column) for column in columns]
            arrow.parquet.write_table(
                arrow.table(dict(zip(names, written, strict=True))), str(part)
            )


def read_labels(path: Path) -> LabelTable:
    """Read a label file; missing confidence and entropy are NaN.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not a label file, lists an image twice, or has a mark (`wrong`,
            `hidden`) that is neither 0 nor 1.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such label file")
    check_label_file(path)
    columns = read_csv_columns(path) if path.suffix == ".csv" else read_parquet_columns(path)
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if missing:
        raise ValueError(
            f"{path} is no label file: it has no column {missing[0]!r} "
            f"(columns: {', '.join(columns) or 'none'})"
        )
    paths = [str(value) for value in columns["path"]]
    labels = np.asarray(columns["label"])
    try:
        if labels.dtype.kind == "U":
            labels = labels.astype(np.int64)
        elif labels.dtype.kind not in "iu" and len(labels):
            raise ValueError(f"they are {labels.dtype}")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: a label is no whole number ({error})") from error
    try:
        confidence, entropy = (
            np.asarray(columns.get(name, np.full(len(paths), np.nan)), dtype=np.float32)
            for name in COLUMNS[2:]
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: a confidence or entropy is no number ({error})") from error
    if len(labels) and (labels.min() < 0 or labels.max() >= MOST_CLASSES):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{path}: labels must lie in [0, {MOST_CLASSES}), found {wrong}")
    outside = [p for p in paths if p.startswith("/") or ".." in p.split("/")]
    if outside:
        raise ValueError(f"{path}: {outside[0]!r} lies outside of the images' folder")
    if len(set(paths)) != len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise ValueError(f"{path}: {twice!r} stands in it twice")
    extra = {n: further_column(n, columns[n], path) for n in columns if n not in COLUMNS}
    return LabelTable(paths, labels.astype(np.int64), confidence, entropy, extra)


def match_labels(
    table: LabelTable, paths: Sequence[str], num_classes: int, source: str
) -> np.ndarray:
    """Return the labels in the order of a dataset's images, (N,) int64.

    Args:
        table: as read from a file.
        paths: N paths of the dataset's images below its folder.
        num_classes: K; labels must be less.
        source: names the file in errors.

    Raises:
        ValueError: if images have no label or labels have no image, with counts and what to do; or
            for a label that is not in [0, K).
    """
    row = {path: number for number, path in enumerate(table.paths)}
    without = [path for path in paths if path not in row]
    unused = len(table) - (len(paths) - len(without))
    if without or unused:
        example = f", as {without[0]!r}" if without else ""
        raise ValueError(
            f"the labels in {source} are of other images: {len(without)} of the {len(paths)} "
            f"images have no label{example}, {unused} of the {len(table)} labels have no image: "
            + _ways_to_fit(source, is_part=not unused)
        )
    labels = table.labels[np.fromiter((row[path] for path in paths), np.int64, len(paths))]
    if len(labels) and labels.max() >= num_classes:
        raise ValueError(
            f"{source} has label {labels.max()}, this run has {num_classes} pseudo classes: set "
            f"method_kwargs.num_pseudo_classes to that of the run that made the labels"
        )
    return labels


def export_labelled(source: str) -> str:
    """Return the command that links the images of a label file, and no others, for training."""
    words = ("uic", "export", source, "FOLDER", "--to", "imagefolder", "--all", "--out", "sorted")
    return shlex.join(words)


def _ways_to_fit(source: str, *, is_part: bool) -> str:
    """Return how to train where labels and images are not of each other.

    Args:
        source: the label file.
        is_part: whether the labels are those of a part of the images.
    """
    if is_part:
        return (
            f"move the images without a label out of the folder; or train on the others alone, by "
            f"{export_labelled(source)}, and then {TRAIN_LABELLED}"
        )
    return (
        "train on all images of the folder that the labels were made of (data.train_path, and "
        "neither data.fraction nor data.held_out)"
    )


def labels_of_probabilities(paths: Sequence[str], probabilities: np.ndarray) -> LabelTable:
    """Return labels, scores and the second-best classes of images.

    Args:
        paths: N paths below the images' folder.
        probabilities: (N, K) softmax scores, K at least 2.
    """
    rows = np.arange(len(probabilities))
    labels = probabilities.argmax(1)
    others = probabilities.astype(np.float32).copy()
    others[rows, labels] = -1
    second = others.argmax(1)
    logs = np.log(np.maximum(probabilities, 1e-30))
    return LabelTable(
        list(paths),
        labels.astype(np.int64),
        probabilities[rows, labels].astype(np.float32),
        -(probabilities * logs).sum(1).astype(np.float32),
        {"second": second.astype(np.int64), "second_confidence": others[rows, second]},
    )


def names_before(table: LabelTable) -> dict[int, str]:
    """Return names by the numbers that classes had before they were edited (`source_label`).

    A class of then has the name of the class that most of its images are in now.
    """
    source = table.extra.get("source_label")
    if source is None or source.dtype.kind != "i" or not len(table):
        return table.names
    became = _became(source, table.labels, int(source.max()) + 1)
    used = np.unique(source[source >= 0]).tolist()
    return {old: table.names[int(became[old])] for old in used if int(became[old]) in table.names}


def _became(source: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the class that most images of each former class are in now, (count,)."""
    became = np.arange(count)
    pairs, votes = np.unique(np.stack((source, labels)), axis=1, return_counts=True)
    order = np.argsort(votes, kind="stable")  # the last, which is the largest, stays
    became[pairs[0, order]] = pairs[1, order]
    return became


def relabel_like(table: LabelTable, reference: LabelTable) -> LabelTable:
    """Give images of a network's classes the numbers and names of an edited label file.

    Classes that are hidden there are hidden here.

    If the reference has the column `source_label`, a class becomes the one that most of its
    images are in now, and one without images gets a number that no other class has; without it the
    numbers stay and only names are added.

    Args:
        table: the network's labels.
        reference: an edited label file of the same network's classes.

    Returns:
        The table with other labels, and the columns `name`, `hidden` if there are hidden classes,
        and, if labels changed, `source_label`.

    Raises:
        ValueError: if the reference's `source_label` holds no whole numbers.
    """
    source = reference.extra.get("source_label", reference.labels)
    if source.dtype.kind != "i":
        raise ValueError("the column source_label of the label file holds no whole numbers")
    count = 1 + max(int(values.max(initial=-1)) for values in (source, table.labels))
    became = _became(source, reference.labels, count)
    if "source_label" in reference.extra:
        # the number of a class that no image was in may be that of another class now
        unseen = np.setdiff1d(np.arange(count), source)
        moved = unseen[np.isin(unseen, reference.labels)]
        first = max(count, 1 + int(reference.labels.max(initial=-1)))
        became[moved] = first + np.arange(len(moved))
    labels, names = became[table.labels], reference.names
    extra = dict(table.extra)
    if "second" in extra:
        known = (extra["second"] >= 0) & (extra["second"] < count)
        second = np.where(known, became[np.where(known, extra["second"], 0)], -1)
        extra["second"] = np.where(second == labels, -1, second).astype(np.int64)
    for name, column in extra.items():
        if name.startswith("head_") and column.dtype.kind == "i" and column.max(initial=0) < count:
            extra[name] = np.where(column >= 0, became[np.maximum(column, 0)], -1)
    extra["name"] = np.asarray([names.get(int(c), "") for c in labels], object)
    if reference.hidden or ("hidden" in extra and "hidden" in reference.extra):
        extra["hidden"] = np.isin(labels, sorted(reference.hidden)).astype(np.int64)
    if "source_label" in reference.extra:
        extra["source_label"] = table.labels
    return LabelTable(table.paths, labels, table.confidence, table.entropy, extra)
