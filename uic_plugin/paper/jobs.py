"""The commands behind a table: each is one call of `uic`, done once however many rows need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uic_plugin.jobs import Job
from uic_plugin.paper.tables import TOP1, PaperTable, Row

FINETUNE = "alexnet_finetune"
# Options of `uic probe` at small scale: an eighth of the epochs on a hundredth of the images, so a
# smaller learning rate and batch. At full scale its defaults, which are the paper's.
_SMALL_PROBE: tuple[str, ...] = (
    "--epochs=4",
    "--lr=0.01",
    "--lr-decay-epochs=2,3",
    "--batch-size=64",
)


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
    layers = None if TOP1 in table.columns else tuple(f"conv{i}" for i in range(1, 6))
    jobs: dict[str, Job] = {}
    for seed in seeds:
        planner = _Planner(scale, seed, tuple(overrides))
        for row in table.rows:
            if row.recipe is None:
                continue
            plain = run_folder(root, scale, replace(row, finetuned=False), seed)
            network = planner.train(row.recipe, plain)
            steps = [network]
            if row.finetuned:
                label = planner.label(network)
                network = planner.finetune(network, label, run_folder(root, scale, row, seed))
                steps += [label, network]
            steps.append(planner.probe(network, layers or (row.layer,)))
            for job in steps:
                jobs.setdefault(job.name, job)
    return list(jobs.values())


@dataclass(frozen=True)
class _Planner:
    """Jobs of one scale and seed."""

    scale: str
    seed: int
    overrides: tuple[str, ...]

    def train(
        self, recipe: str, folder: Path, given: tuple[str, ...] = (), needs: tuple[str, ...] = ()
    ) -> Job:
        name = f"{'small' if self.scale == 'small' else 'imagenet'}/{recipe}"
        overrides = (*given, f"seed={self.seed}", f"run_dir={folder}", *self.overrides)
        arguments = ("pretrain", f"--config-name={name}", *overrides)
        product = folder / "last.ckpt"
        return Job(f"train {folder.name}", arguments, folder, product, needs, name, overrides)

    def label(self, network: Job) -> Job:
        """Of all training images, centred views."""
        labels = network.folder / "labels.csv"
        return Job(
            f"label {network.folder.name}",
            ("label", str(network.folder), f"--out={labels}"),
            network.folder,
            labels,
            (network.name,),
            takes="seconds" if self.scale == "small" else "estimated 10 minutes",
        )

    def finetune(self, network: Job, label: Job, folder: Path) -> Job:
        given = (f"weights={network.product}", f"method_kwargs.fixed_labels={label.product}")
        return self.train(FINETUNE, folder, given, (label.name,))

    def probe(self, network: Job, layers: tuple[str, ...]) -> Job:
        options = _SMALL_PROBE if self.scale == "small" else ("--processes=8",)
        names = f"--layers={','.join(layers)}"
        return Job(
            f"probe {network.folder.name}",
            ("probe", str(network.folder), names, f"--seed={self.seed}", *options),
            network.folder,
            network.folder / "probe" / "probe.csv",
            (network.name,),
            takes="about 3 minutes" if self.scale == "small" else "estimated 2 hours",
        )
