"""The images of imagenette and miniImageNet that the figures of these pages were measured on.

    python docs/examples/image_lists.py imagenette2-160 datasets/imagenette160
    python docs/examples/image_lists.py miniimagenet/train.csv datasets/miniimagenet/train.csv

The first makes a folder of links to 6,000 of imagenette2-160's 9,469 training images and 1,500 of
its 3,925 of val/; the second a split with 9,600 of the 38,400 images of miniImageNet's training
classes (its 12,000 test images are used as they are). docs/results/images.txt has a line for each
class: its images' numbers, where v7197 is ILSVRC2012_val_00007197.
"""

import argparse
import csv
from pathlib import Path

LISTS = Path(__file__).resolve().parents[1] / "results" / "images.txt"
MINIIMAGENET = "miniimagenet"


def link_folder(source: Path, out: Path) -> int:
    """Link the listed images of imagenette, class folder by class folder; return their number."""
    found = {
        (split, path.parent.name, path.stem): path.resolve()
        for split in ("train", "val")
        for path in source.glob(f"{split}/*/*.*")
    }
    links = {}
    for line in LISTS.read_text().splitlines():
        split, name, *numbers = line.split()
        for number in numbers if split != MINIIMAGENET else ():
            stem = (
                f"ILSVRC2012_val_{int(number[1:]):08}" if number[0] == "v" else f"{name}_{number}"
            )
            if (split, name, stem) not in found:
                raise FileNotFoundError(f"{source}/{split}/{name}/ has no image {stem}")
            links[out / split / name / stem] = found[split, name, stem]
    for link, path in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.with_name(path.name).symlink_to(path)
    return len(links)


def write_split(source: Path, out: Path) -> int:
    """Write the listed rows of miniImageNet's split of training classes; return their number."""
    listed = set()
    for line in LISTS.read_text().splitlines():
        split, name, *numbers = line.split()
        if split == MINIIMAGENET:
            listed |= {f"{name}{int(number):08}.jpg" for number in numbers}
    with source.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and row[0] in listed]
    if missing := listed - {row[0] for row in rows}:
        raise ValueError(f"{source} has no image {min(missing)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("x", newline="") as file:
        csv.writer(file).writerows([["filename", "label"], *rows])
    return len(rows)


def main() -> None:
    """Make the folder, or the split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of imagenette2-160, or train.csv")
    parser.add_argument("out", type=Path, help="folder to make, or .csv to write")
    given = parser.parse_args()
    try:
        make = write_split if given.source.suffix == ".csv" else link_folder
        print(f"{given.out}: {make(given.source, given.out):,} images")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
