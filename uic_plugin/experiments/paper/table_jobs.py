"""The commands of a table: each is one call of `uic`, run once even if several rows need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uic_plugin.experiments.jobs import Job
from uic_plugin.experiments.paper.tables import FEWSHOT, TOP1, VOC, PaperTable, Row
from uic_plugin.experiments.transfer.tasks import TransferPlan
from uic_plugin.recipes_path import compose_recipe, path_override

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
    """Return the folder in which the network of a row is trained."""
    suffix = "-finetuned" if row.finetuned else ""
    recipe = str(row.recipe_at(scale)).partition("/")[2]
    return root / scale / f"{recipe}{suffix}-seed{seed}"


def plan(
    table: PaperTable,
    scale: str,
    seeds: Sequence[int],
    root: Path,
    overrides: Sequence[str] = (),
    data: Path | None = None,
) -> list[Job]:
    """Return all jobs of a table, prerequisites first, each once.

    Args:
        table: one of the paper's.
        scale: "small" or "full".
        seeds: of every row.
        root: folder of the runs, shared by all tables.
        overrides: Hydra overrides of every training.
        data: images of Tables 5 and 6, see `transfer_plan`.
    """
    layers = None if TOP1 in table.columns else tuple(f"conv{i}" for i in range(1, 6))
    jobs: dict[str, Job] = {}
    for seed in seeds:
        planner = _Planner(scale, seed, tuple(overrides))
        for row in table.rows:
            recipe = row.recipe_at(scale)
            if recipe is None:
                continue
            plain = run_folder(root, scale, replace(row, finetuned=False), seed)
            network = planner.train(recipe, plain)
            steps = [network]
            if row.finetuned:
                label = planner.label(network)
                network = planner.finetune(network, label, run_folder(root, scale, row, seed))
                steps += [label, network]
            if table.task in (FEWSHOT, VOC):
                steps += transfer_jobs(table, row, network, transfer_plan(scale, seed, data))
            else:
                steps.append(planner.probe(network, layers or (row.layer,)))
            for job in steps:
                jobs.setdefault(job.name, job)
    return list(jobs.values())


def transfer_plan(scale: str, seed: int, data: Path | None) -> TransferPlan:
    """Return what the tasks of Tables 5 and 6 share; `data` replaces the default images."""
    fewshot = data or Path("datasets/miniimagenet/test.csv")
    return TransferPlan(scale, fewshot, data or Path("datasets"), seed)


def transfer_jobs(table: PaperTable, row: Row, network: Job, plan: TransferPlan) -> list[Job]:
    """Return the tasks of a row of Table 5 or 6 on a network; results lie in its run folder."""
    backbone = str(compose_recipe(str(network.recipe), list(network.overrides)).backbone.name)
    run, untrained = network.folder, row.untrained
    if table.task == FEWSHOT:
        jobs = [plan.fewshot_job(run, backbone, run, row.resolution, untrained=untrained)]
    else:
        jobs = [
            *(
                plan.classify_job(run, backbone, run, part, untrained=untrained)
                for part in ("fc6-8", "all")
            ),
            plan.detect_job(run, backbone, run, untrained=untrained),
            plan.segment_job(run, backbone, run, untrained=untrained),
        ]
    return [replace(job, needs=(network.name,)) for job in jobs]


@dataclass(frozen=True)
class _Planner:
    """Jobs of one scale and seed."""

    scale: str
    seed: int
    overrides: tuple[str, ...]

    def train(
        self, recipe: str, folder: Path, given: tuple[str, ...] = (), needs: tuple[str, ...] = ()
    ) -> Job:
        overrides = (*given, f"seed={self.seed}", path_override("run_dir", folder), *self.overrides)
        arguments = ("pretrain", f"--config-name={recipe}", *overrides, "--no-page")
        product = folder / "last.ckpt"
        return Job(f"train {folder.name}", arguments, folder, product, needs, recipe, overrides)

    def label(self, network: Job) -> Job:
        """Return the job that labels centered views of all training images."""
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
        given = tuple(
            path_override(key, job.product)
            for key, job in (("weights", network), ("method_kwargs.fixed_labels", label))
        )
        group = "small" if self.scale == "small" else "imagenet"
        return self.train(f"{group}/{FINETUNE}", folder, given, (label.name,))

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
