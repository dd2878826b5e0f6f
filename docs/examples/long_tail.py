"""Make a long-tailed sample of a folder of class folders, as a split file.

    python docs/examples/long_tail.py imagenette160/train long-tail --ratio 20 --seed 0
    uic discover long-tail/seed0.csv --classes 10 --baselines all

Classes are put in a random order; the first keeps all its images, the last 1 / ratio of them, those
between fall off exponentially. Images stay where they are: the sample has a link to their folder.
"""

import argparse
import csv
from pathlib import Path

import numpy as np


def main() -> None:
    """Write the split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ratio", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    classes = sorted(entry for entry in given.folder.iterdir() if entry.is_dir())
    given.out.mkdir(parents=True, exist_ok=True)
    link = given.out / "images"
    if len(classes) < 2:
        parser.error(f"{given.folder} has {len(classes)} class folders, a long tail needs two")
    if link.resolve() != given.folder.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(given.folder.resolve(), target_is_directory=True)
    with open(given.out / f"seed{given.seed}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label"])
        for rank, number in enumerate(rng.permutation(len(classes))):
            images = sorted(classes[number].iterdir())
            share = given.ratio ** (-rank / (len(classes) - 1))
            kept = rng.choice(len(images), max(1, round(len(images) * share)), replace=False)
            for index in sorted(kept):
                writer.writerow(
                    [f"{classes[number].name}/{images[index].name}", classes[number].name]
                )


if __name__ == "__main__":
    main()
