"""Lightning's real loggers in `uic pretrain`: what they get; a resumed run logs into the same."""

import json
import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs.test_ranks import two_ranks  # noqa: F401  # a fixture
from runs.test_training import QUIET, StopAfter, history, same

from uic_plugin.errors import Interrupted
from uic_plugin.hosts.lightning import pl
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.training import pretrain

STEPS = 22  # of an epoch: 1,442 digits in batches of 64
CSV = ("logger=csv", "+log_every_n_steps=5", "log_classes_every=0", "max_epochs=3")
BOTH = (*CSV, "logger=[csv,tensorboard]", "log_classes_every=2")


def train(cfg, *callbacks):
    pretrain(cfg, reporter=QUIET, callbacks=callbacks)
    return Path(cfg.run_dir)


def logged(run):
    """Values of `metrics.csv`: column to {step: value}."""
    columns = {}
    for row in read_csv(run / "csv" / "metrics.csv"):
        for name, value in row.items():
            if value and name != "step":
                assert int(row["step"]) not in columns.setdefault(name, {}), "logged twice"
                columns[name][int(row["step"])] = float(value)
    return columns


def events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kinds = {"scalars": 0, "histograms": 0, "images": 0}  # 0: all of them
    return EventAccumulator(str(run / "tensorboard"), size_guidance=kinds).Reload()


def scalars(run):
    """The same of TensorBoard's files."""
    read = events(run)
    return {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def records(path):
    """Records of a `.wandb` file: parts in blocks of 32 KiB, as LevelDB's log has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def wandb_runs(run):
    """Of each offline part: its record of the run, its history and its exit code."""
    import wandb

    wandb.teardown()  # its service writes on for a moment after a run is finished
    parts = []
    for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        kinds = {}
        for record in records(path):
            kinds.setdefault(record.WhichOneof("record_type"), []).append(record)
        rows = [
            {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in r.history.item
            }
            for r in kinds["history"]
        ]
        parts.append((kinds["run"][0].run, rows, kinds["exit"][0].exit.exit_code))
    return parts


class BreakAt(pl.Callback):
    """Ends the process' training at a step, with an error or asked to by a scheduler."""

    def __init__(self, epoch, step, *, term=False):
        self.at, self.term = (epoch, step), term

    def on_train_batch_start(self, trainer, module, batch, batch_idx, *_):
        if (trainer.current_epoch, batch_idx) == self.at:
            if not self.term:
                raise OSError("the power is gone")
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A run of three epochs that nobody stops, with the loggers of files; not to be changed."""
    from uic_plugin.recipes_path import compose_recipe

    small = [
        f"run_dir={tmp_path_factory.mktemp('whole') / 'run'}",
        "backbone.kwargs.width=8",
        "data.num_workers=0",
        "accelerator=cpu",
    ]
    return train(compose_recipe("digits/uic", [*small, *BOTH]))


def test_csv_has_the_telemetry_of_epochs(whole):
    columns = logged(whole)
    ends = [STEPS * epoch - 1 for epoch in (1, 2, 3)]
    rows = history(whole)
    names = [name for name in rows[0] if name.startswith("uic_")]
    assert {"uic_changed", "uic_nmi", "uic_class_size_max", "uic_entropy"} <= set(names)
    for name in (*names, "train_uic_loss_epoch"):
        values = dict(zip(ends, [float(row[name]) for row in rows], strict=True))
        assert columns[name] == pytest.approx(values, rel=1e-6)
    assert list(columns["train_uic_loss_step"]) == list(range(4, 3 * STEPS, 5))
    rates = columns["lr-SGD/head"]
    assert list(rates) == [0, STEPS, 2 * STEPS]
    assert list(rates.values()) == sorted(rates.values(), reverse=True)


def test_tensorboard_has_scalars_sizes_and_pictures(whole):
    read = events(whole)
    for name, values in logged(whole).items():
        if name != "epoch":
            got = {event.step: event.value for event in read.Scalars(name)}
            assert got == pytest.approx(values, rel=1e-6)
    rows = history(whole)
    sizes = read.Histograms("uic_class_sizes")
    assert [event.step for event in sizes] == [STEPS * epoch - 1 for epoch in (1, 2, 3)]
    for event, row in zip(sizes, rows, strict=True):
        assert (event.histogram_value.num, event.histogram_value.sum) == (30, 1442)
        assert event.histogram_value.max == float(row["uic_class_size_max"])
    for name, file in (("uic_classes", ""), ("uic_class_sizes_picture", "_sizes")):
        pictures = read.Images(name)  # every second epoch, and the last
        assert [event.step for event in pictures] == [2 * STEPS - 1, 3 * STEPS - 1]
        for event, epoch in zip(pictures, (2, 3), strict=True):
            with Image.open(whole / "pictures" / f"epoch{epoch:04d}{file}.png") as picture:
                assert picture.size == (event.width, event.height)
                assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert not (whole / "pictures" / "epoch0001.png").exists()


def test_the_pictures_show_classes_as_they_are(whole):
    """As many tiles in a class's row as it has images, up to twelve."""
    labels = read_checkpoint(whole / "last.ckpt")["uic"]["bank"]["targets"].long()
    sizes = labels.bincount(minlength=30).numpy()
    assert float(history(whole)[-1]["uic_class_size_min"]) == sizes.min()
    with Image.open(whole / "pictures" / "epoch0003.png") as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    from uic_plugin.report.class_pictures import some_classes

    shown = some_classes(sizes, 12, 0)
    height, width = pixels.shape
    filled = []
    for number in range(12):
        block, row = divmod(number, 6)
        middle = pixels[int((row + 0.5) * height / 6)]
        left = (block + 0.2) * width / 2
        places = left + (np.arange(12) + 0.5) * 0.79 * width / 2 / 12
        filled.append(
            sum(
                (middle[int(p) - 6 : int(p) + 7] < 250).any()
                or (pixels[int((row + 0.3) * height / 6), int(p) - 6 : int(p) + 7] < 250).any()
                for p in places
            )
        )
    assert filled == [min(12, sizes[c]) for c in shown]


@pytest.mark.all_digits
def test_a_logger_changes_nothing_else(recipe, whole, tmp_path):
    plain = train(recipe(f"run_dir={tmp_path / 'plain'}", "max_epochs=3"))
    assert same(read_checkpoint(plain / "last.ckpt"), read_checkpoint(whole / "last.ckpt"))
    for one, two in zip(history(plain), history(whole), strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in two.items() if "seconds" not in k
        }
    for name in ("csv", "tensorboard", "wandb", "pictures", "wandb_run.json"):
        assert not (plain / name).exists()


@pytest.mark.parametrize("within", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.all_digits
def test_a_broken_run_resumes_in_the_same_files(recipe, whole, tmp_path, within):
    """Steps that were logged after the last checkpoint are not there twice."""
    every = "checkpoint_steps=8" if within else "checkpoint_steps=0"
    cfg = recipe(*BOTH, every)
    with pytest.raises(OSError, match="the power is gone"):
        train(cfg, BreakAt(1, 15))
    run = tmp_path / "run"
    assert max(logged(run)["train_uic_loss_step"]) > STEPS + 10
    train(recipe(*BOTH, every))
    assert len(list((run / "tensorboard").glob("events*"))) == 2
    for read in (logged, scalars):
        parts, unbroken = read(run), read(whole)
        assert parts.keys() == unbroken.keys()
        for name, values in unbroken.items():
            got = parts[name]
            if within and name.startswith("lr-"):  # where it resumes, too
                got = {step: got[step] for step in got if step in values}
            if within and name.endswith("_epoch"):  # of the steps since
                assert got.keys() == values.keys()
            else:
                assert got == pytest.approx(values, rel=1e-6), (read, name)
    read = events(run)
    assert [event.step for event in read.Histograms("uic_class_sizes")] == [
        STEPS * epoch - 1 for epoch in (1, 2, 3)
    ]
    assert len(read.Images("uic_classes")) == 2


@pytest.mark.slow
@pytest.mark.all_digits
def test_rows_survive_a_kill_while_the_file_is_taken_over(recipe, whole, tmp_path):
    cfg = recipe(*CSV)
    with pytest.raises(OSError, match="the power is gone"):
        train(cfg, BreakAt(1, 2))
    folder = tmp_path / "run" / "csv"
    (folder / "metrics.csv").rename(folder / "metrics.csv.kept")  # as far as that start came
    (folder / "metrics.csv").write_text("step\n")
    run = train(recipe(*CSV))
    assert logged(run) == logged(whole)
    assert not (folder / "metrics.csv.kept").exists()


@pytest.mark.all_digits
@pytest.mark.slow
def test_asked_to_stop_in_an_epochs_last_step_loses_no_metrics(recipe, whole, tmp_path):
    with pytest.raises(Interrupted, match=r"last\.ckpt"):
        train(recipe(*CSV), BreakAt(0, STEPS - 1, term=True))
    before = logged(tmp_path / "run")
    assert list(before["uic_changed"]) == [STEPS - 1]
    run = train(recipe(*CSV))
    assert logged(run) == logged(whole)


@pytest.mark.slow
@pytest.mark.all_digits
def test_a_run_from_its_start_begins_its_logs_anew(recipe, whole, tmp_path):
    with pytest.raises(OSError, match="the power is gone"):
        train(recipe(*BOTH, "optimizer.lr=0.3"), BreakAt(0, 18))
    assert not (tmp_path / "run" / "last.ckpt").exists()
    run = train(recipe(*BOTH))
    assert logged(run) == logged(whole)
    assert scalars(run) == scalars(whole)


@pytest.mark.slow
@pytest.mark.all_digits
def test_loggers_may_change_when_a_run_resumes(recipe, tmp_path):
    train(recipe(), StopAfter(1))
    run = train(recipe("logger=csv", "log_classes_every=0", "wandb.project=other"))
    assert list(logged(run)["uic_changed"]) == [2 * STEPS - 1]
    assert not (run / "pictures").exists()


@pytest.mark.slow
@pytest.mark.all_digits
def test_wandb_offline_resumes_in_the_same_run(recipe, tmp_path):
    import wandb

    settings = (
        "wandb.enabled=true",
        "wandb.offline=true",
        "wandb.project=flowers",
        "wandb.entity=None",
        "+wandb.tags=[digits,small]",
        "log_classes_every=1",
    )
    with pytest.raises(OSError, match="the power is gone"):
        train(recipe(*settings), BreakAt(1, 15))
    assert wandb.run is None
    kept = json.loads((tmp_path / "run" / "wandb_run.json").read_text())["id"]
    run = train(recipe(*settings))
    assert wandb.run is None
    assert "WANDB_MODE" not in os.environ
    (first, before, failed), (second, after, ended) = wandb_runs(run)
    assert first.run_id == second.run_id == kept
    assert (first.project, first.entity, first.display_name) == ("flowers", "", "digits-uic")
    assert list(first.tags) == ["digits", "small"]
    assert (failed, ended) == (1, 0)
    epochs = [row for row in (*before, *after) if "uic_changed" in row]
    assert [row["trainer/global_step"] for row in epochs] == [STEPS - 1, 2 * STEPS - 1]
    for row, kept_row in zip(epochs, history(run), strict=True):
        assert row["uic_nmi"] == pytest.approx(float(kept_row["uic_nmi"]), rel=1e-6)
    for rows in (before, after):
        sizes = [row for row in rows if "uic_class_sizes/values" in row]
        assert [sum(row["uic_class_sizes/values"]) for row in sizes] == [30]
        assert any("lr-SGD/head" in row for row in rows)
        files = [row["uic_classes/filenames"][0] for row in rows if "uic_classes/filenames" in row]
        assert len(files) == 1
        (picture,) = run.glob(f"wandb/offline-run-*/files/{files[0]}")
        with Image.open(picture) as image:
            assert image.size[0] > 500


@pytest.mark.slow
def test_a_wandb_run_of_the_caller_is_used_and_left_open(recipe, tmp_path):
    import wandb

    own = wandb.init(mode="offline", dir=tmp_path, project="mine")
    try:
        train(recipe("logger=wandb", "log_classes_every=0", "max_epochs=1"))
        assert wandb.run is own
        assert own.summary["uic_changed"] > 0
    finally:
        wandb.finish()


def test_without_annotations(recipe):
    run = train(recipe("data.no_labels=true", "max_epochs=1", "log_classes_every=1", "logger=csv"))
    columns = logged(run)
    assert "uic_changed" in columns
    assert "uic_nmi" not in columns
    assert (run / "pictures" / "epoch0001.png").exists()


@pytest.mark.parametrize(
    ("name", "options", "files"),
    [
        ("digits/simclr", (), []),
        ("digits/deepcluster", (), ["epoch0001.png", "epoch0001_sizes.png"]),
        ("digits/uic", ("method_kwargs.label_source=step",), ["epoch0001_sizes.png"]),
    ],
)
def test_methods_log_the_classes_that_they_keep(recipe, name, options, files):
    settings = ("logger=[csv,tensorboard]", "log_classes_every=1", "max_epochs=1", *options)
    run = train(recipe(*settings, name=name))
    folder = run / "pictures"
    assert sorted(path.name for path in folder.glob("*")) == files
    assert any(column.endswith("_loss_epoch") for column in logged(run))
    assert events(run).Tags()["histograms"] == (["uic_class_sizes"] if files else [])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["logger=tensorbord"], ["unknown logger 'tensorbord'", "csv, tensorboard, wandb"]),
        (["logger=[csv,mlflow]"], ["unknown logger 'mlflow'"]),
        (["logger=true"], ["unknown logger True"]),
        (["log_classes_every=-1"], ["log_classes_every must be a whole number", "-1"]),
        (["log_classes_every=often"], ["log_classes_every must be a whole number", "often"]),
        (["+wandb.projekt=x"], ["unknown setting wandb.projekt", "project"]),
        (["wandb.offline=perhaps"], ["wandb.offline must be true or false", "perhaps"]),
        (["wandb.project=7"], ["wandb.project must be a text", "7"]),
        (["+wandb.tags=one"], ["wandb.tags must be a list of texts", "one"]),
        (["+wandb.tags=[1]"], ["wandb.tags must be a list of texts"]),
        (["wandb=true"], ["wandb must be a section"]),
        (["logger=wandb", "wandb.offline=true", "wandb.project=a/b"], ["cannot start", "a/b"]),
    ],
)
def test_wrong_settings_are_one_line(uic, digits, tmp_path, settings, words):
    if "cannot start" in words:
        pytest.importorskip("wandb")
    done = uic("pretrain", "--config-name", "digits/uic", "accelerator=cpu", *settings)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("wandb:")]
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_wandb_without_a_login_says_what_to_do(uic, digits, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    done = uic("pretrain", "--config-name", "digits/uic", "accelerator=cpu", "logger=wandb")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("wandb:")]
    assert "wandb.offline=true" in line
    assert "wandb login" in line
    assert not list(tmp_path.glob("runs/*/*.ckpt"))


def test_tensorboard_that_is_missing_is_one_line(uic, digits, monkeypatch):
    for name in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    done = uic("pretrain", "--config-name", "digits/uic", "accelerator=cpu", "logger=tensorboard")
    assert done.returncode == 1
    needed = "logger=tensorboard needs tensorboard: pip install 'uic-plugin[tensorboard]'"
    assert done.stderr.strip() == f"error: {needed}"


def test_a_damaged_wandb_file_is_named(recipe, tmp_path):
    pytest.importorskip("wandb")
    train(recipe("max_epochs=2"), StopAfter(1))
    (tmp_path / "run" / "wandb_run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"wandb_run\.json names no run of wandb: remove it"):
        train(recipe("max_epochs=2", "logger=wandb", "wandb.offline=true"))


def test_sections_that_stay_unused_are_named_and_wandb_is_not(recipe):
    cfg = recipe("max_epochs=1", "+auto_umap.enabled=true")
    with pytest.warns(UserWarning, match="does not use auto_umap of the recipe"):
        train(cfg)


@pytest.mark.slow
def test_one_of_two_ranks_logs(two_ranks, tmp_path):  # noqa: F811
    settings = ("logger=[csv,tensorboard]", "wandb.enabled=true", "wandb.offline=true")
    first, second = two_ranks(*settings, "log_classes_every=1", "+log_every_n_steps=4")
    assert first["weights"] == second["weights"]
    run = tmp_path / "run"
    ends = [11 * epoch - 1 for epoch in (1, 2)]
    columns = logged(run)
    assert list(columns["uic_changed"]) == ends
    assert list(columns["train_uic_loss_step"]) == list(range(3, 22, 4))
    assert len(list((run / "tensorboard").glob("events*"))) == 1
    assert scalars(run)["uic_changed"] == pytest.approx(columns["uic_changed"])
    assert [event.histogram_value.sum for event in events(run).Histograms("uic_class_sizes")] == [
        1442,
        1442,
    ]
    ((_, rows, code),) = wandb_runs(run)
    assert code == 0
    assert [row["trainer/global_step"] for row in rows if "uic_changed" in row] == ends
    labels = read_checkpoint(run / "last.ckpt")["uic"]["bank"]["targets"]
    largest = torch.bincount(labels.long()).max()
    assert columns["uic_class_size_max"][ends[-1]] == float(largest)
