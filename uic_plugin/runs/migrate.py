"""Carry a run's labels over to a folder with other images (some added, some removed)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch.utils.data import Subset

from uic_plugin.data.images import fingerprint_of, relative_paths
from uic_plugin.data.index import ImageIndex, read_index
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.packed import is_packed
from uic_plugin.files import refuse_folder, save_tensors
from uic_plugin.hosts.attach import centered
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.hosts.resume import is_within_epoch
from uic_plugin.methods import CHECKPOINT_KEY
from uic_plugin.methods.kept_labels import LabelPlan
from uic_plugin.pseudo_labels import EmptyClassFixer, PseudoLabelBank
from uic_plugin.runs.datasets import pretrain_dataset
from uic_plugin.runs.folder import (
    CHECKPOINT_FILE,
    IMAGES_FILE,
    PREVIOUS_FILE,
    SNAPSHOTS,
    open_recipe,
)
from uic_plugin.runs.run import Run


@dataclass(frozen=True)
class Migration:
    """What became of the labels.

    Attributes:
        kept: images that were there and still are.
        added: images that have a label by a forward pass now.
        removed: images that are gone, and their labels with them.
        splits: classes that were left empty and got half of the largest.
    """

    kept: int
    added: int
    removed: int
    splits: int


def migrate_labels(
    run: Path,
    data: Path,
    out: Path,
    *,
    index: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Migration:
    """Write a checkpoint whose labels are those of another list of images.

    Labels go by path below the folder; a new image gets the classifier's answer to a centered view,
    network in eval mode. It is the classifier as trained, which resumes, not as settled.

    Args:
        run: a run folder or a checkpoint in it.
        data: the folder as it is now, or a packed one.
        out: checkpoint to write, none of the run's own.
        index: list of the images as they were; by default the run folder's own.
        progress: is told how many new images of how many are labelled.

    Raises:
        ValueError: for a checkpoint without labels, of the middle of an epoch, or a list that does
            not belong to it, or a folder that no image was in before; if `out` is a checkpoint of
            the run.
        FileNotFoundError: without checkpoint, list or images.
        IsADirectoryError: if `out` is a folder.
    """
    cfg, checkpoint = open_recipe(run)
    _check_out(out, checkpoint)
    content = _checked_content(cfg, checkpoint)
    state = content[CHECKPOINT_KEY]
    before = _names_before(checkpoint, index, state["bank"].get("fingerprint"))
    cfg.data.train_path, cfg.data.index, cfg.data.fraction = str(data), None, -1
    cfg.data.format = "packed" if is_packed(data) else _unpacked(cfg.data.get("format"))
    moved_run = replace(Run.of_recipe(cfg, checkpoint.parent, checkpoint), is_settled=False)
    dataset = pretrain_dataset(moved_run.config, moved_run.source)
    was = _indices_before(data, before, relative_paths(dataset))
    added = np.flatnonzero(was < 0)
    banks = [state["bank"], *state.get("more_banks", ())]
    answers = _answers(moved_run, dataset, added, progress)
    plan: LabelPlan = moved_run.load().plan  # type: ignore[assignment]
    moved, splits = [], 0
    for old, answer in zip(banks, answers.unbind(1), strict=True):
        labels = old["targets"].long()[torch.from_numpy(np.maximum(was, 0))]
        labels[torch.from_numpy(added)] = answer
        bank = PseudoLabelBank(
            len(was),
            old["num_classes"],
            seed=old["seed"],
            labels=labels,
            fingerprint=fingerprint_of(dataset),
        )
        bank.epoch = old["epoch"]
        if plan.fixes_empty_classes:
            splits += bank.fix_empty_classes(EmptyClassFixer(bank.num_classes))
        moved.append(bank.state_dict())
    state["bank"], state["more_banks"] = moved[0], moved[1:]
    save_tensors(content, out)
    kept = len(was) - len(added)
    return Migration(kept, len(added), len(before) - kept, splits)


def _check_out(out: Path, checkpoint: Path) -> None:
    """Refuse to replace a checkpoint of the run, from which it resumes.

    Raises:
        ValueError: for one.
        IsADirectoryError: for a folder.
    """
    refuse_folder(out)
    folder = checkpoint.parent
    own = [checkpoint, folder / CHECKPOINT_FILE, folder / PREVIOUS_FILE]
    own += (folder / SNAPSHOTS).glob("*.ckpt")
    if out.resolve() in [path.resolve() for path in own]:
        raise ValueError(f"{out} is a checkpoint of the run itself: name another file, --out")


def _unpacked(kind: str | None) -> str:
    """Return the format of images that are not packed, of a run on images of a given format."""
    return "image_folder" if kind in (None, "packed") else kind


def _checked_content(cfg: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Raises:
        ValueError: for one without labels of images, with labels that were given, or of the middle
            of an epoch.
    """
    content = read_checkpoint(checkpoint)
    state = content.get(CHECKPOINT_KEY)
    if state is None or not isinstance(state["bank"].get("targets"), torch.Tensor):
        raise ValueError(f"{checkpoint} holds no pseudo labels of images")
    if cfg.method == "supervised" or cfg.method_kwargs.get("fixed_labels"):
        raise ValueError(
            f"the labels of {checkpoint} were given, not found: train anew with those of the new "
            f"images"
        )
    if is_within_epoch(content) and state.get("steps_done"):
        raise ValueError(
            f"{checkpoint} was written within an epoch: resume the run to the epoch's end first"
        )
    return content


def _indices_before(data: Path, before: ImageIndex, after: list[str] | None) -> np.ndarray:
    """Return the index (N,) that each image had before, -1 for a new one.

    Raises:
        ValueError: for images without paths, or if all of them are new.
    """
    if after is None:
        raise ValueError(f"{data}: labels are carried over by path, and these images have none")
    indices = {name: number for number, name in enumerate(before.names())}
    was = np.fromiter((indices.get(name, -1) for name in after), np.int64, len(after))
    if not (was >= 0).any():
        raise ValueError(
            f"none of the {len(after)} images in {data} was there before: names are compared below "
            f"the folder, {after[0]!r} now, {before.name(0)!r} before"
        )
    return was


def _names_before(checkpoint: Path, given: Path | None, fingerprint: str | None) -> ImageIndex:
    """Return the list of images that the labels belong to."""
    path = given or checkpoint.parent / IMAGES_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no list of the images as they were; if their folder is unchanged, "
            f"'uic data index FOLDER FILE' makes one for --index FILE"
        )
    names = read_index(path)
    if names.fingerprint != fingerprint:
        raise ValueError(
            f"{path} lists other images than {checkpoint} has labels of (fingerprint "
            f"{names.fingerprint}, the labels have {fingerprint})"
        )
    return names


@torch.no_grad()
def _answers(
    run: Run,
    dataset: Any,
    numbers: np.ndarray,
    progress: Callable[[int, int], None],
) -> torch.Tensor:
    """Return every head's label of some images, (len(numbers), H) int64."""
    cfg, device = run.config, run.device
    network, head = run.backbone.eval().to(device), run.head.eval().to(device)
    loader = view_loader(
        Subset(centered(dataset), numbers.tolist()),
        seed=cfg.seed,
        batch_size=cfg.optimizer.batch_size,
        num_workers=cfg.data.num_workers,
        on_bad_image=cfg.data.on_bad_image,
    )
    found = [torch.empty(0, head.heads, dtype=torch.int64)]
    done = 0
    for _, views, *_ in loader:
        view = views if isinstance(views, torch.Tensor) else views[0]
        parts = head.per_head(head(network(view.to(device)))[1])
        found.append(torch.stack([part.argmax(1) for part in parts], 1).cpu())
        done += len(found[-1])
        progress(done, len(numbers))
    return torch.cat(found)
