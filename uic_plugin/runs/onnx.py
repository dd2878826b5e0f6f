"""Network and classifier of a run as one ONNX file."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from uic_plugin.files import replacing
from uic_plugin.hosts import backbone_of
from uic_plugin.methods import has_pseudo_labels

TOLERANCE = 1e-4


class Classifier(torch.nn.Module):
    """Probabilities of a run's first classifier, (B, K), of images (B, 3, H, W)."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone_of(method))
        self.head = copy.deepcopy(method.head)
        self.num_classes = int(method.head.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classify images that went through the run's own preprocessing."""
        logits: torch.Tensor = self.head(self.backbone(images))[1]
        return logits[:, : self.num_classes].softmax(1)


def export_onnx(
    method: Any, cfg: DictConfig, out: Path, *, names: Mapping[int, str] | None = None
) -> float:
    """Write a run as ONNX, and check the file with onnxruntime.

    Input `images` (B, 3, H, W) float32, as the run's centered view makes them; output
    `probabilities` (B, K). The file's metadata holds the size and, as JSON, the names of the
    classes. The file is checked, before it takes its place, on three drawn batches.

    Args:
        method: a trained method with pseudo classes, in eval mode.
        cfg: its recipe.
        out: ends in `.onnx`.
        names: of classes.

    Returns:
        The largest difference of a probability from torch's.

    Raises:
        ValueError: for a method without pseudo classes, another ending, or a file whose
            probabilities differ by more than 1e-4.
        ImportError: without onnx, onnxscript or onnxruntime.
    """
    if not has_pseudo_labels(cfg.method):
        raise ValueError(f"{cfg.method} has no pseudo classes: give a run of uic")
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: the file ends in .onnx")
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'ONNX needs onnx, onnxscript and onnxruntime: pip install "uic-plugin[onnx]"'
        ) from error
    network = Classifier(method).eval()
    size = int(cfg.augmentations[0].crop_size)
    draw = torch.Generator().manual_seed(0)
    example = torch.randn(2, 3, size, size, generator=draw)
    with replacing(out) as part:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (example,),
                str(part),
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=1 << 16)}},
                external_data=False,
                verbose=False,
            )
        model = onnx.load(str(part))
        known = json.dumps({str(number): name for number, name in (names or {}).items()})
        onnx.helper.set_model_props(model, {"size": str(size), "classes": known})
        onnx.save(model, str(part))
        session = onnxruntime.InferenceSession(
            part.read_bytes(), providers=["CPUExecutionProvider"]
        )
        worst = 0.0
        for batch in (1, 3, 8):
            images = torch.randn(batch, 3, size, size, generator=draw)
            with torch.no_grad():
                want = network(images).numpy()
            (got,) = session.run(None, {"images": images.numpy()})
            worst = max(worst, float(np.abs(got - want).max()))
        if not worst <= TOLERANCE:
            raise ValueError(f"the ONNX file differs from torch by {worst:.1e}: not written")
    return worst
