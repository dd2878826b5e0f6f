"""Pictures of results on PASCAL VOC: curves, classes, boxes, masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from uic_plugin.data.voc_folder import VOC_CLASSES, Objects, VocMasks, VocObjects
from uic_plugin.evaluation.voc.average_precision import Detections
from uic_plugin.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 8  # images per picture
_SURE = 0.5  # minimum confidence of drawn boxes


def voc_palette() -> np.ndarray:
    """Return VOC's colour of each value of a mask, (256, 3) uint8.

    The lowest three bits of a value are the highest bits of red, green and blue, the next three the
    next ones, and so on (`VOClabelcolormap` of the development kit).
    """
    values = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (values >> (3 * bit + channel) & 1) << (7 - bit)
    return palette.astype(np.uint8)


def plot_curve(rows: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Plot losses and learning rate over iterations, from the rows of a curve."""
    figure = _figure(7, 3)
    axis = figure.subplots()
    at = [row["iteration"] for row in rows]
    for name in rows[0]:
        if name not in ("iteration", "lr"):
            axis.plot(at, [row[name] for row in rows], label=name)
    axis.set_xlabel("iteration")
    axis.set_ylabel("loss")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    rate = axis.twinx()
    rate.plot(at, [row["lr"] for row in rows], color="grey", linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    axis.legend(fontsize=8)
    return _save(figure, path)


def draw_scores(images: VocObjects, scores: torch.Tensor, path: Path) -> Path:
    """Draw some images with their classes, and the highest scores (N, 20) beside them."""

    def draw(axis: Axes, number: int) -> None:
        axis.imshow(np.asarray(images.image(number)))
        there = sorted({VOC_CLASSES[c] for c in images.objects[number].labels.tolist()})
        best = scores[number].argsort(descending=True)[: max(1, len(there))].tolist()
        axis.set_title(
            f"{', '.join(there)}\nfound: {', '.join(sorted(VOC_CLASSES[c] for c in best))}",
            fontsize=7,
            color="green" if {VOC_CLASSES[c] for c in best} == set(there) else "firebrick",
        )

    return _grid(min(_SHOWN, len(images)), draw, path)


def draw_detections(images: VocObjects, found: Sequence[Detections], path: Path) -> Path:
    """Draw some images with their objects (dashed) and the boxes found with a confidence of 0.5."""
    colours = voc_palette() / 255

    def draw(axis: Axes, number: int) -> None:
        axis.imshow(np.asarray(images.image(number)))
        _draw_truth(axis, images.objects[number])
        answers = found[number]
        sure = answers.scores >= _SURE
        for box, label, score in zip(
            answers.boxes[sure].tolist(),
            answers.labels[sure].tolist(),
            answers.scores[sure].tolist(),
            strict=True,
        ):
            colour = colours[label + 1]
            _draw_box(axis, box, edgecolor=colour, linewidth=1.5)
            axis.text(
                box[0],
                box[1],
                f"{VOC_CLASSES[label]} {score:.2f}",
                fontsize=6,
                color="white",
                backgroundcolor=(*colour, 0.8),
                verticalalignment="bottom",
            )

    return _grid(min(_SHOWN, len(images)), draw, path)


def draw_masks(images: VocMasks, predicted: Sequence[torch.Tensor], path: Path) -> Path:
    """Draw some images, each with its true and its predicted mask beside it, in VOC's palette."""
    palette = voc_palette()
    count = min(_SHOWN, len(images))
    figure = _figure(7.5, 2.0 * count)
    axes = figure.subplots(count, 3, squeeze=False)
    for number in range(count):
        image, truth = images.item(number)
        masks = (palette[truth.numpy()], palette[predicted[number].numpy()])
        for axis, content in zip(axes[number], (np.asarray(image), *masks), strict=True):
            axis.imshow(content)
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("image", "truth", "predicted"), strict=True):
        axis.set_title(title, fontsize=9)
    return _save(figure, path)


def save_mask(mask: torch.Tensor, path: Path) -> Path:
    """Save a mask as a PNG with VOC's palette."""
    image = Image.fromarray(mask.numpy().astype(np.uint8), mode="P")
    image.putpalette(voc_palette().ravel().tolist())
    with replacing(path) as part:
        image.save(part, format="PNG")
    return path


def _draw_truth(axis: Axes, objects: Objects) -> None:
    for box, difficult in zip(objects.boxes.tolist(), objects.difficult.tolist(), strict=True):
        if not difficult:
            _draw_box(axis, box, edgecolor="white", linewidth=1, linestyle="--")


def _draw_box(axis: Axes, box: Sequence[float], **style: Any) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **style))


def _grid(count: int, draw: Callable[[Axes, int], None], path: Path, columns: int = 4) -> Path:
    rows = -(-count // columns)
    figure = _figure(2.8 * columns, 2.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, axis in enumerate(axes):
        axis.set_axis_off()
        if number < count:
            draw(axis, number)
    return _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=80)
    return path
