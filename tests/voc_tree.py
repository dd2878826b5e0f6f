"""A folder in PASCAL VOC's layout whose images show real handwritten digits, at known places."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from uic_plugin.data.voc_folder import VOC_CLASSES

SIZE = (112, 80)  # width, height
SIDE = 32


def annotation(name, size, objects):
    """XML of an image; objects are (class, (xmin, ymin, xmax, ymax), difficult)."""
    items = "".join(
        f"<object><name>{label}</name><difficult>{int(difficult)}</difficult><bndbox>"
        f"<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>"
        f"</bndbox></object>"
        for label, box, difficult in objects
    )
    return (
        f"<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>3</depth></size>{items}</annotation>"
    )


def make_voc_of_digits(root, train=10, test=6, year="2007"):
    """Digits 0, 1, 2 are aeroplanes, bicycles and birds; one or two stand in an image."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    for name in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    data = load_digits()
    rng = np.random.default_rng(0)
    pools = [rng.permutation(np.flatnonzero(data.target == c)) for c in range(3)]
    names = {"trainval": [], "test": []}
    for number in range(train + test):
        name = f"{number:06d}"
        image = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
        mask = np.zeros_like(image)
        objects = []
        for column in range(1 + number % 2):
            label = (number + column) % 3
            digit = data.images[pools[label][number]] * 15
            digit = np.asarray(Image.fromarray(digit.astype(np.uint8)).resize((SIDE, SIDE)))
            left = int(rng.integers(56 * column, 56 * column + 56 - SIDE))
            top = int(rng.integers(0, SIZE[1] - SIDE))
            image[top : top + SIDE, left : left + SIDE] = digit
            shape = mask[top : top + SIDE, left : left + SIDE]
            shape[digit > 60] = label + 1
            shape[(digit > 30) & (digit <= 60)] = 255
            box = (left + 1, top + 1, left + SIDE, top + SIDE)
            objects.append((VOC_CLASSES[label], box, False))
        Image.fromarray(image).convert("RGB").save(folder / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(mask).save(folder / "SegmentationClass" / f"{name}.png")
        (folder / "Annotations" / f"{name}.xml").write_text(annotation(name, SIZE, objects))
        names["trainval" if number < train else "test"].append(name)
    for kind in ("Main", "Segmentation"):
        for split, members in names.items():
            path = folder / "ImageSets" / kind / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(members) + "\n")
    return root
