"""Settle the classifiers of a finished run on its own training images, and keep the result.

`RUN/settled.pt` has the rows of the cosine classifiers after `settle_rounds` rounds of k-means (see
`pseudo_labels.settling`); whoever opens the run gets them in the place of the trained ones, unless
`settle_rounds` is set to 0. The checkpoint stays as it was trained, so that a longer training
resumes as if nothing had been.
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


def is_run_settled(run: Run) -> bool:
    """Tell whether nothing is to do: the file is there, or the run has no settled classifiers.

    Args:
        run: opened with `is_settled=False`; its images are not needed.

    Raises:
        ValueError: if the file is damaged.
    """
    rounds = settle_rounds(run)
    if not rounds or run.checkpoint is None:
        return True
    head = getattr(run.load(), "head", None)
    if not isinstance(head, PseudoClassHead) or not isinstance(head.classifier, CosineClassifier):
        return True
    return _rows_of(run.folder / SETTLED_FILE, weights_fingerprint(head), rounds) is not None


def settle_rounds(run: Run) -> int:
    """Return the `settle_rounds` of a run's recipe, 0 where it has none."""
    return int((run.config.get("method_kwargs") or {}).get("settle_rounds") or 0)


def settle_run(run: Run) -> None:
    """Settle the classifiers of a trained run, unless that has been done, and write the file.

    Seconds are added to the run's `cost.json`.

    Args:
        run: opened with its images, with `is_settled=False`.

    Raises:
        ValueError: if an older file is damaged.
    """
    if is_run_settled(run):
        return
    head, rounds = run.head, settle_rounds(run)
    wall, processor = time.perf_counter(), time.process_time()
    trained = weights_fingerprint(head)
    embeddings = _embeddings(run, max(_IMAGES, _IMAGES_A_CLASS * max(head.sizes)))
    parts = head.classifier.weight.detach().to(embeddings.device).split(head.sizes)
    rows = torch.cat([settle(embeddings, part, rounds) for part in parts]).cpu()
    with replacing(run.folder / SETTLED_FILE) as path:
        torch.save({"head": trained, "rounds": rounds, "rows": rows}, path)
    _add_cost(
        run.folder / COST_FILE,
        settle_seconds=time.perf_counter() - wall,
        settle_cpu_seconds=time.process_time() - processor,
    )


def take_settled(run: Run, head: PseudoClassHead) -> None:
    """Give a trained head the settled rows that its run folder has, if they are of its weights.

    Raises:
        ValueError: if the file is damaged.
    """
    rounds = settle_rounds(run)
    if rounds:
        rows = _rows_of(run.folder / SETTLED_FILE, weights_fingerprint(head), rounds)
        if rows is not None:
            head.classifier.weight.data.copy_(rows)


def _rows_of(file: Path, trained: str, rounds: int) -> torch.Tensor | None:
    """Return rows that were settled from these weights in so many rounds; None without any."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (*_DAMAGED, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, it is made anew") from error
    # the first files did not say their rounds: they were those of their recipe
    is_of_these = content["head"] == trained and content.get("rounds", rounds) == rounds
    return content["rows"] if is_of_these else None


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
