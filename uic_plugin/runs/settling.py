"""Settle the classifiers of a finished run on its own training images, and keep the result.

`RUN/settled.pt` has the rows of the cosine classifiers after `settle_rounds` rounds of k-means (see
`pseudo_labels.settling`); whoever opens the run gets them in the place of the trained ones. The
checkpoint stays as it was trained, so that a longer training resumes as if nothing had been.
"""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Subset

from uic_plugin.files import replacing
from uic_plugin.networks.heads import CosineClassifier, PseudoClassHead
from uic_plugin.networks.weights import weights_fingerprint
from uic_plugin.pseudo_labels.settling import settle
from uic_plugin.runs.datasets import image_loader, pretrain_dataset
from uic_plugin.runs.folder import COST_FILE
from uic_plugin.seeding import derive_seed

if TYPE_CHECKING:
    from uic_plugin.runs.run import Run

SETTLED_FILE = "settled.pt"
# what torch.load raises for a file that is cut off, or none of its own
_DAMAGED = (RuntimeError, EOFError, KeyError, ValueError, AttributeError)
# images that are looked at: so many, or so many for each class of the largest classifier
_IMAGES, _IMAGES_A_CLASS = 10_000, 50


def settle_run(run: Run) -> bool:
    """Settle the classifiers of a trained run, unless that has been done, and write the file.

    Seconds are added to the run's `cost.json`.

    Args:
        run: opened with its images, with `is_settled=False`.

    Returns:
        Whether the run has settled classifiers: its `settle_rounds` is above 0.
    """
    rounds = int(run.config.method_kwargs.get("settle_rounds", 0) or 0)
    if not rounds or run.checkpoint is None:
        return False
    file, head = run.folder / SETTLED_FILE, run.head
    if not isinstance(head.classifier, CosineClassifier):
        return False
    trained = weights_fingerprint(head)
    if _rows_of(file, trained) is not None:
        return True
    wall, processor = time.perf_counter(), time.process_time()
    embeddings = _embeddings(run, max(_IMAGES, _IMAGES_A_CLASS * max(head.sizes)))
    parts = head.classifier.weight.detach().to(embeddings.device).split(head.sizes)
    rows = torch.cat([settle(embeddings, part, rounds) for part in parts]).cpu()
    with replacing(file) as path:
        torch.save({"head": trained, "rows": rows}, path)
    _add_cost(
        run.folder / COST_FILE,
        settle_seconds=time.perf_counter() - wall,
        settle_cpu_seconds=time.process_time() - processor,
    )
    return True


def take_settled(folder: Path, head: PseudoClassHead) -> None:
    """Give a trained head the settled rows that its run folder has, if they are of its weights."""
    rows = _rows_of(folder / SETTLED_FILE, weights_fingerprint(head))
    if rows is not None:
        head.classifier.weight.data.copy_(rows)


def _rows_of(file: Path, trained: str) -> torch.Tensor | None:
    """Return the rows that were settled from these weights; None without, or from others."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (*_DAMAGED, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, it is made anew") from error
    return content["rows"] if content["head"] == trained else None


@torch.no_grad()
def _embeddings(run: Run, most: int) -> torch.Tensor:
    """Return what the classifiers read (N, D) of centered views of some training images."""
    dataset = pretrain_dataset(run.config, run.source)
    dataset.transform = run.view
    if len(dataset) > most:
        rng = np.random.default_rng(derive_seed(run.config.seed, "images to settle on"))
        dataset = Subset(dataset, np.sort(rng.choice(len(dataset), most, replace=False)).tolist())
    backbone, head = run.backbone.to(run.device), run.head.to(run.device)
    batches = image_loader(dataset, run.config)
    return torch.cat([head(backbone(views.to(run.device)))[0] for _, views, _ in batches])


def _add_cost(file: Path, **seconds: float) -> None:
    cost = json.loads(file.read_text()) if file.exists() else {}
    cost |= {name: round(value, 3) for name, value in seconds.items()}
    with replacing(file) as part:
        part.write_text(json.dumps(cost, indent=1) + "\n")
