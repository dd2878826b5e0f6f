"""Network and classifier of a run as one ONNX file."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from uic_plugin.data.labels import names_before, read_labels
from uic_plugin.files import replacing
from uic_plugin.methods import has_pseudo_labels
from uic_plugin.runs.run import Run

TOLERANCE = 1e-4


def export_onnx(run: Run, out: Path, *, names: Mapping[int, str] | None = None) -> float:
    """Write a run as ONNX, and check the file with onnxruntime.

    Input `images` (B, 3, H, W) float32, as the run's centered view makes them; output
    `probabilities` (B, K). The file's metadata holds the size and, as JSON, the names of the
    classes. The file is checked, before it takes its place, on three drawn batches.

    Args:
        run: a trained run with pseudo classes.
        out: ends in `.onnx`.
        names: of classes.

    Returns:
        The largest difference of a probability from torch's.

    Raises:
        ValueError: for a method without pseudo classes, another ending, or a file whose
            probabilities differ by more than 1e-4.
        ImportError: without onnx, onnxscript or onnxruntime.
    """
    if not has_pseudo_labels(run.config.method):
        raise ValueError(f"{run.config.method} has no pseudo classes: give a run of uic")
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: the file ends in .onnx")
    for module in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                'ONNX needs onnx, onnxscript and onnxruntime: pip install "uic-plugin[onnx]"'
            )
    network = torch.nn.Sequential(run.classifier(), torch.nn.Softmax(1)).eval()
    size = int(run.config.augmentations[0].crop_size)
    with replacing(out) as part:
        _write(network, size, part, names or {})
        worst = _largest_difference(network, size, part)
        if not worst <= TOLERANCE:
            raise ValueError(f"the ONNX file differs from torch by {worst:.1e}: not written")
    return worst


def output_names(run: Run, labels: Path) -> dict[int, str]:
    """Return the names of a label file by the numbers of a run's outputs.

    They are those of the file if the run was trained on it (`fixed_labels`), else those that its
    classes had before they were edited.

    Raises:
        FileNotFoundError, ValueError: if there is no such label file, or it has a class that the
            run has not.
    """
    table = read_labels(labels)
    fixed = run.config.method_kwargs.get("fixed_labels")
    if fixed and Path(fixed).expanduser().resolve() == labels.resolve():
        return table.names
    numbers = table.extra.get("source_label", table.labels)
    highest = int(numbers.max(initial=-1)) if numbers.dtype.kind == "i" else -1
    if highest >= run.head.num_classes:
        raise ValueError(
            f"{labels} has class {highest}, the run has {run.head.num_classes} classes: give a "
            f"label file of this run, or one that it was trained on"
        )
    return names_before(table)


def _write(network: torch.nn.Module, size: int, path: Path, names: Mapping[int, str]) -> None:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)),),
            str(path),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1 << 16)},),
            external_data=False,
            verbose=False,
        )
    model = onnx.load(str(path))
    known = json.dumps({str(number): name for number, name in names.items()})
    onnx.helper.set_model_props(model, {"size": str(size), "classes": known})
    onnx.save(model, str(path))


def _largest_difference(network: torch.nn.Module, size: int, path: Path) -> float:
    """Return the largest difference of a probability from torch's, on three drawn batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    draw = torch.Generator().manual_seed(1)
    worst = 0.0
    for batch in (1, 3, 8):
        images = torch.randn(batch, 3, size, size, generator=draw)
        with torch.no_grad():
            want = network(images).numpy()
        (got,) = session.run(None, {"images": images.numpy()})
        worst = max(worst, float(np.abs(got - want).max()))
    return worst
