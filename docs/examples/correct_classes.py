"""What a correction is worth: merge twins, move some wrong images, and learn on from there.

    uic discover imagenette160/train --classes 12 --out c12
    python docs/examples/correct_classes.py c12/labels.parquet imagenette160/train --moves 50

A person is imitated by the annotations, which are the folders' names: classes of which most images
have one annotation are merged, and some images that are in the wrong class are moved to the right
one. The edits are written as the page of classes saves them, and go the way that they would go:
`uic labels apply`, then `uic discover --from`. Accuracy is of the images that nobody moved.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from uic_plugin.data.labels import LabelTable, read_labels
from uic_plugin.evaluation.clustering import hungarian_accuracy


def uic(*arguments: str) -> None:
    """Run the command, quietly."""
    command = [sys.executable, "-m", "uic_plugin.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def edits_of(table: LabelTable, annotations: np.ndarray, moves: int, seed: int) -> list[dict]:
    """Return the edits of a person who sees twins, and `moves` wrong images."""
    count = int(table.labels.max()) + 1
    votes = np.zeros((count, int(annotations.max()) + 1), np.int64)
    np.add.at(votes, (table.labels, annotations), 1)
    meant = votes.argmax(1)  # what most images of a class are
    edits: list[dict] = []
    into = {}
    for number, annotation in enumerate(meant.tolist()):
        first = into.setdefault(annotation, number)
        if first != number:
            edits.append({"do": "merge", "classes": [first, number], "into": first})
    wrong = np.flatnonzero((meant[table.labels] != annotations) & np.isin(annotations, meant))
    for row in np.random.default_rng(seed).permutation(wrong)[:moves]:
        target = into[int(annotations[row])]
        edits.append({"do": "move", "images": [table.paths[row]], "to": target})
    return edits


def main() -> None:
    """Print accuracy before, after the edits, and after learning from them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--features", type=Path, help="of uic discover, where they have a name")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = read_labels(given.labels)
    folders = [path.partition("/")[0] for path in table.paths]
    annotations = np.unique(folders, return_inverse=True)[1]
    edits = edits_of(table, annotations, given.moves, given.seed)
    about = {
        "file": given.labels.name,
        "images": len(table),
        "fingerprint": table.fingerprint,
    }
    work = given.labels.parent / "corrected"
    work.mkdir(exist_ok=True)
    content = {"format": "uic-edits", "version": 1, "labels": about, "edits": edits}
    (work / "edits.json").write_text(json.dumps(content))
    uic("labels", "apply", str(work / "edits.json"), str(given.labels), "--out", f"{work}/new.csv")
    features = ["--features", str(given.features)] if given.features else []
    more = ["--out", str(work / "classes"), "--overwrite", "--no-page", *features]
    uic("discover", str(given.folder), "--from", f"{work}/new.csv", *more)

    moved = {path for edit in edits if edit["do"] == "move" for path in edit["images"]}
    kept = np.asarray([path not in moved for path in table.paths])
    print(f"{sum(e['do'] == 'merge' for e in edits)} merges, {len(moved)} images moved")
    steps = {
        "before": table,
        "edits alone": read_labels(work / "new.csv"),
        "learned on from the edits": read_labels(work / "classes" / "labels.parquet"),
    }
    for name, found in steps.items():
        row = {path: number for number, path in enumerate(found.paths)}
        labels = found.labels[[row[path] for path in table.paths]]
        accuracy = hungarian_accuracy(annotations[kept], labels[kept])
        print(f"{name}: {int(labels.max()) + 1} classes, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
