"""The commands behind a table: each is one call of `uic`, done once however many rows need it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uic_plugin.paper.tables import TOP1, PaperTable, Row

FINETUNE = "alexnet_finetune"
# Options of `uic probe` at small scale: an eighth of the epochs on a hundredth of the images, so a
# smaller learning rate and batch. At full scale its defaults, which are the paper's.
_SMALL_PROBE = ("--epochs=4", "--lr=0.01", "--lr-decay-epochs=2,3", "--batch-size=64")


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: unique; also its order among those that it needs.
        arguments: of `uic`.
        folder: its run folder; the log lies there.
        product: file that exists when it is done.
        needs: names of the jobs that must be done before.
        recipe: what it trains; None for other commands.
        overrides: of that recipe.
        takes: about how long, of what is no training; a recipe's header says it of training.
    """

    name: str
    arguments: tuple[str, ...]
    folder: Path
    product: Path
    needs: tuple[str, ...] = ()
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    takes: str = ""

    @property
    def command(self) -> str:
        """As one would type it."""
        return shlex.join(("uic", *self.arguments))

    @property
    def log(self) -> Path:
        """What the command prints."""
        return self.folder / f"{self.name.split()[0]}.log"

    @property
    def record(self) -> Path:
        """Written when the command has ended well: itself, hardware, day."""
        return self.folder / f"{self.name.split()[0]}.done.json"

    def is_done(self) -> bool:
        """Whether this very command has ended well and what it made is still there."""
        if not self.product.exists() or not self.record.exists():
            return False
        return bool(json.loads(self.record.read_text())["command"] == self.command)


def run_folder(root: Path, scale: str, row: Row, seed: int) -> Path:
    """Where the network that a row probes is trained."""
    suffix = "-finetuned" if row.finetuned else ""
    return root / scale / f"{row.recipe}{suffix}-seed{seed}"


def plan(
    table: PaperTable, scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str] = ()
) -> list[Job]:
    """All jobs of a table, those that others need first, each once.

    Args:
        table: one of the paper's.
        scale: "small" or "full".
        seeds: of every row.
        root: folder of the runs, shared by all tables.
        overrides: Hydra overrides of every training.
    """
    jobs: dict[str, Job] = {}
    for seed in seeds:
        for row in table.rows:
            if row.recipe is None:
                continue
            plain = Row(row.cells, {}, row.recipe)
            network = _train(jobs, scale, plain, seed, root, overrides)
            if row.finetuned:
                network = _finetune(jobs, scale, row, seed, root, overrides, network)
            _probe(jobs, scale, row, seed, network, table)
    return list(jobs.values())


def _group(scale: str) -> str:
    return "small" if scale == "small" else "imagenet"


def _train(
    jobs: dict[str, Job], scale: str, row: Row, seed: int, root: Path, overrides: Sequence[str]
) -> Job:
    folder = run_folder(root, scale, row, seed)
    return _pretrain(
        jobs, f"{_group(scale)}/{row.recipe}", folder, seed, overrides, needs=(), given=()
    )


def _finetune(
    jobs: dict[str, Job],
    scale: str,
    row: Row,
    seed: int,
    root: Path,
    overrides: Sequence[str],
    network: Job,
) -> Job:
    """Label all images with centred views, then train on these labels."""
    labels = network.folder / "labels.csv"
    label = Job(
        f"label {network.folder.name}",
        ("label", str(network.folder), f"--out={labels}"),
        network.folder,
        labels,
        (network.name,),
        takes="seconds" if scale == "small" else "estimated 10 minutes",
    )
    jobs.setdefault(label.name, label)
    given = (f"weights={network.product}", f"method_kwargs.fixed_labels={labels}")
    return _pretrain(
        jobs,
        f"{_group(scale)}/{FINETUNE}",
        run_folder(root, scale, row, seed),
        seed,
        overrides,
        needs=(label.name,),
        given=given,
    )


def _pretrain(
    jobs: dict[str, Job],
    recipe: str,
    folder: Path,
    seed: int,
    overrides: Sequence[str],
    *,
    needs: tuple[str, ...],
    given: tuple[str, ...],
) -> Job:
    all_overrides = (*given, f"seed={seed}", f"run_dir={folder}", *overrides)
    job = Job(
        f"train {folder.name}",
        ("pretrain", f"--config-name={recipe}", *all_overrides),
        folder,
        folder / "last.ckpt",
        needs,
        recipe,
        all_overrides,
    )
    return jobs.setdefault(job.name, job)


def _probe(
    jobs: dict[str, Job], scale: str, row: Row, seed: int, network: Job, table: PaperTable
) -> None:
    layers = (row.layer,) if TOP1 in table.columns else tuple(f"conv{i}" for i in range(1, 6))
    options: tuple[str, ...] = _SMALL_PROBE if scale == "small" else ("--processes=8",)
    job = Job(
        f"probe {network.folder.name}",
        ("probe", str(network.folder), f"--layers={','.join(layers)}", f"--seed={seed}", *options),
        network.folder,
        network.folder / "probe" / "probe.csv",
        (network.name,),
        takes="about 2 minutes" if scale == "small" else "estimated 2 hours",
    )
    jobs.setdefault(job.name, job)
