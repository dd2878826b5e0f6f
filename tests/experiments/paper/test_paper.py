"""The paper's tables: every row has a command, shared rows are run once, figures are not mixed."""

import csv
import json

import pytest

from uic_plugin.experiments.paper.table_jobs import plan
from uic_plugin.experiments.paper.table_rows import collect, measure, merged
from uic_plugin.experiments.paper.tables import NMI, TABLES
from uic_plugin.recipes_path import compose_recipe, list_recipes, recipes_dir
from uic_plugin.report.tables import write_csv


def rows():
    return [(name, row) for name, table in TABLES.items() for row in table.rows]


def test_every_row_of_ours_has_a_recipe_at_both_scales():
    paper = [(table, row) for table, row in rows() if table not in ("table5", "table6")]
    names = {row.recipe for _, row in paper if row.cells[0].startswith("UIC")}
    assert None not in names
    assert all(row.recipe is None for _, row in paper if not row.cells[0].startswith("UIC"))
    for name in names | {"alexnet_finetune", "resnet50_released"}:
        assert f"imagenet/{name}" in list_recipes()
        assert f"small/{name}" in list_recipes()
    full = {n.partition("/")[2] for n in list_recipes() if n.startswith("imagenet/")}
    small = {n.partition("/")[2] for n in list_recipes() if n.startswith("small/")}
    # DeepCluster's twin is trained on the images of its tables
    assert full - small == {"uic", "simclr", "mocov2plus", "alexnet_deepcluster"}


def test_transfer_tables_have_recipes_for_what_they_measure():
    for table in ("table5", "table6"):
        for row in TABLES[table].rows:
            for scale in ("small", "full"):
                recipe = row.recipe_at(scale)
                assert recipe is None or recipe in list_recipes()
    measured = {
        (table, scale): [row.cells for row in TABLES[table].rows if row.recipe_at(scale)]
        for table in ("table5", "table6")
        for scale in ("small", "full")
    }
    assert measured["table5", "small"] == measured["table5", "full"]
    assert len(measured["table6", "small"]) == 16  # four methods, two networks, two resolutions
    assert len(measured["table6", "full"]) == 4  # the paper's rows


def test_a_twin_differs_from_the_full_recipe_in_scale_alone():
    scale = {"num_pseudo_classes", "head_width", "fixed_labels"}
    for name in ("alexnet_3k", "alexnet_center_labels", "alexnet_strong", "vgg16", "resnet50_mlp"):
        full, small = (compose_recipe(f"{group}/{name}", []) for group in ("imagenet", "small"))
        for key in full.method_kwargs:
            if key not in scale:
                assert full.method_kwargs[key] == small.method_kwargs[key], (name, key)
        assert full.scheduler == small.scheduler
        jitter = [cfg.augmentations[0].color_jitter.prob for cfg in (full, small)]
        assert jitter[0] == jitter[1]
        assert small.backbone.name.removeprefix("timm/") == full.backbone.name


def test_the_papers_optimizer():
    cfg = compose_recipe("imagenet/alexnet_3k", [])
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.max_epochs) == (0.1, 1e-4, 500)
    assert cfg.optimizer.kwargs.momentum == 0.9
    assert cfg.optimizer.batch_size * cfg.devices == 256
    assert (cfg.scheduler.name, cfg.backbone.name) == ("linear", "alexnet")
    for recipe, classes in (("3k", 3000), ("5k", 5000), ("10k", 10000)):
        kwargs = compose_recipe(f"imagenet/alexnet_{recipe}", []).method_kwargs
        assert kwargs.num_pseudo_classes == classes
    released = compose_recipe("imagenet/resnet50_released", [])
    assert released.optimizer.lr * released.optimizer.batch_size * released.devices / 256 == 0.2
    assert (released.scheduler.name, released.method_kwargs.head) == ("warmup_cosine", "mlp")


def test_rows_that_tables_share_are_run_once(tmp_path):
    every = [plan(TABLES[t], "small", range(3), tmp_path) for t in ("table1", "table2", "table3")]
    names = [{job.name for job in jobs} for jobs in every]
    assert [len(n) for n in names] == [18, 15, 24]
    shared = names[0] & names[1]
    assert {name for name in shared if name.startswith("train")} == {
        f"train alexnet_3k-seed{seed}" for seed in range(3)
    }
    assert len(names[1] & names[2]) == 3 * 4
    by_name = {job.name: job for jobs in every for job in jobs}
    for jobs in every:
        seen = set()
        for job in jobs:
            assert set(job.needs) <= seen  # in an order in which they can be run
            assert job == by_name[job.name]
            seen.add(job.name)


@pytest.mark.parametrize("scale", [pytest.param("small", marks=pytest.mark.slow), "full"])
@pytest.mark.parametrize("table", TABLES)
def test_dry_run_prints_commands_and_composes_every_recipe(uic, table, scale):
    done = uic("paper", table, "--scale", scale, "--dry-run", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("uic ")]
    assert len(commands) == len(plan(TABLES[table], scale, [0], recipes_dir()))
    times = [line for line in done.stdout.splitlines() if line.startswith("    ")]
    assert len(times) == len(commands)  # each says how long it takes
    trainings = [t for c, t in zip(commands, times, strict=True) if c.startswith("uic pretrain")]
    word = "8 GPUs" if scale == "full" else "CPU core"
    assert all(word in line for line in trainings)
    assert all(any(u in line for u in ("hour", "minute", "second")) for line in times)


def finished_run(folder, top1, nmi):
    (folder / "probe").mkdir(parents=True)
    (folder / "epochs.csv").write_text(f"epoch,uic_nmi\n1,0.1\n2,{nmi}\n")
    lines = ["layer,features,probe,epoch,crops,top1,top5"]
    for layer, value in top1.items():
        lines += [f"{layer},9,last,2,1,1,99", f"{layer},9,best,1,10,2,99"]  # not what is meant
        lines.append(f"{layer},9,last,2,10,{value},99")
    (folder / "probe" / "probe.csv").write_text("\n".join(lines) + "\n")
    made = {
        "command": "uic probe RUN --seed=0 --lr=1",
        "hardware": "an abacus",
        "date": "2020-01-01",
    }
    (folder / "probe.done.json").write_text(json.dumps(made))


def finished_task(folder, rows):
    write_csv(folder / "results.csv", rows)
    made = {"command": "uic fewshot RUN DATA --out=X --ways=5", "hardware": "an abacus"}
    (folder / f"{folder.name}.done.json").write_text(json.dumps({**made, "date": "2020-01-01"}))


def test_figures_of_the_transfer_tables(tmp_path):
    run = tmp_path / "small" / "alexnet_uic-seed0"
    layers = ("conv3", "conv4", "conv5", "conv5+mp")
    for name, first in (("fewshot-84", 40.0), ("fewshot-84-untrained", 30.0)):
        rows = [
            {"layer": layer, "accuracy": first + i, "interval": 0.5 + i}
            for i, layer in enumerate(layers)
        ]
        finished_task(run / name, rows)
    cells = {
        (record["row"], record["column"]): record
        for record in collect(TABLES["table6"], "small", [0], tmp_path)
    }
    record = cells["UIC | AlexNet | 84x84", "conv5+MP"]
    assert (record["measured_mean"], record["interval_95"]) == ("43.00", "3.50")
    assert (record["quoted_imagenet"], record["seeds"]) == (52.85, "0")
    assert record["recipe"] == "miniimagenet/alexnet_uic"
    untrained = cells["random | AlexNet | 84x84", "conv3"]
    assert (untrained["measured_mean"], untrained["quoted_imagenet"]) == ("30.00", "")
    assert cells["UIC | AlexNet | 224x224", "conv3"]["measured_mean"] == ""
    task = run / "voc-detect"
    finished_task(task, [{"class": "mean", "AP_11point": 12.5, "AP_area": 11.0, "objects": 9}])
    finished_task(run / "voc-segment", [{"class": "mean", "IoU": 7.25}])
    cells = {
        (record["row"], record["column"]): record["measured_mean"]
        for record in collect(TABLES["table5"], "small", [0], tmp_path)
    }
    assert cells["UIC", "detection"] == "12.50"
    assert cells["UIC", "segmentation"] == "7.25"
    assert cells["UIC", "ALL"] == cells["DeepCluster", "detection"] == ""


def test_measured_and_quoted_figures_stand_apart(tmp_path):
    for seed, top in enumerate((50.0, 52.0)):
        finished_run(
            tmp_path / "small" / f"alexnet_3k-seed{seed}",
            {"conv3": top, "conv4": top + 1, "conv5": 40.0},
            0.2 + 0.02 * seed,
        )
    records = collect(TABLES["table1"], "small", [0], tmp_path)  # what is there counts, too
    by_cell = {(r["row"], r["column"]): r for r in records}
    record = by_cell["UIC 3k", "conv4"]
    assert (record["measured_mean"], record["measured_std"]) == ("52.00", "1.41")
    assert (record["measured_values"], record["seeds"]) == ("51.00 53.00", "0 1")
    assert record["quoted_imagenet"] == 41.0
    assert (record["hardware"], record["date"]) == ("an abacus", "2020-01-01")
    assert (record["recipe"], record["probe"]) == ("alexnet_3k", "--lr=1")
    assert by_cell["UIC 3k", NMI]["measured_mean"] == "21.00"
    missing = by_cell["UIC 5k", "conv3"]
    assert (missing["measured_mean"], missing["seeds"], missing["quoted_imagenet"]) == (
        "",
        "",
        40.6,
    )
    assert measure(TABLES["table1"].rows[1], "conv3", tmp_path) is None
    write_csv(tmp_path / "table1.csv", merged(tmp_path / "table1.csv", records, "small"))
    full = collect(TABLES["table1"], "full", [0], tmp_path)
    both = merged(tmp_path / "table1.csv", full, "full")
    assert [r["scale"] for r in both] == ["full"] * 12 + ["small"] * 12
    assert both[12]["measured_mean"] == "51.00"
    nothing = collect(TABLES["table1"], "small", [0], tmp_path / "elsewhere")
    kept = merged(tmp_path / "table1.csv", nothing, "small")  # what was measured stays
    assert [r["measured_mean"] for r in kept] == [r["measured_mean"] for r in both[12:]]


@pytest.mark.slow
def test_a_table_is_run_and_then_found_done(uic, small, tmp_path):
    arguments = ["paper", "table2", "--seeds", "1", "--jobs", "2", *small[:-3]]
    arguments += ["max_epochs=2", *small[-2:]]
    done = uic(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(tmp_path / "docs" / "results" / "table2.csv") as file:
        records = list(csv.DictReader(file))
    assert all(float(record["measured_mean"]) > 30 for record in records)
    logs = {path.name for path in (tmp_path / "runs").rglob("*.log")}
    assert logs == {"train.log", "label.log", "probe.log"}
    again = uic(*arguments)
    assert "5 commands, 5 of them done already" in again.stdout
    run = tmp_path / "runs/paper/small/alexnet_3k-finetuned-seed0"
    (run / "probe/probe.csv").unlink()
    again = uic(*arguments)  # its checkpoint is still there: tested again, not trained again
    assert "5 commands, 4 of them done already" in again.stdout
    other = uic(*arguments, "optimizer.lr=0.3")
    assert other.returncode == 1
    said = (run.parent / "alexnet_3k-seed0" / "train.log").read_text()
    assert "holds a run with other settings (optimizer.lr: 0.05 there, 0.3 here" in said


@pytest.mark.slow
def test_a_failure_stops_its_row_and_names_the_log(uic, small):
    done = uic("paper", "table2", "--seeds", "1", *small, "data.train_path=no/such")
    assert done.returncode == 1
    assert "failed with exit code 1" in done.stdout
    for job in ("train alexnet_3k-seed0", "probe alexnet_3k-finetuned-seed0"):
        assert f"failed: {job} (see runs/paper/small/alexnet_3k-seed0/train.log)" in done.stdout


def test_mistakes(uic):
    for arguments, part in (
        (
            ["table9"],
            f"unknown table 'table9': one of {', '.join(TABLES)}",
        ),
        (["table1", "--scale", "huge"], "--scale must be small or full, got 'huge'"),
        (["table1", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["table1", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["table1", "--dry-run", "optimizer.lrr=1"], "optimizer.lrr"),
    ):
        done = uic("paper", *arguments)
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1
        assert part in done.stderr
