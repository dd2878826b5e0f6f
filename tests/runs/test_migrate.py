"""Images added and removed between runs: labels go along by path."""

import re

import pytest
import torch

from uic_plugin.data.index import read_index, write_index
from uic_plugin.data.labels import read_labels
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs import migrate
from uic_plugin.runs.training import pretrain


@pytest.fixture
def run(recipe, digits, tmp_path):
    """A finished run on a folder of its own; a function that trains further."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, path in enumerate(sorted(digits.glob("train/*/*.png"))[::4]):
        (folder / f"{number:04d}.png").write_bytes(path.read_bytes())

    def train(*overrides):
        settings = ["data.dataset=custom", f"data.train_path={folder}", "scheduler.name=none"]
        settings += ["method_kwargs.heads=2", "optimizer.batch_size=32", *overrides]
        return pretrain(recipe(*settings), reporter=EpochReporter("test")).run_dir

    return folder, train


def names(folder):
    return sorted(path.name for path in folder.glob("*.png"))


@pytest.mark.all_digits
def test_labels_go_along_by_path(run, uic, tmp_path):
    folder, train = run
    train("max_epochs=1")
    before = read_checkpoint(tmp_path / "run" / "last.ckpt")["uic"]
    old = names(folder)
    for name in old[::10]:
        (folder / name).rename(folder / f"a new {name}")
    (folder / old[1]).unlink()
    new = names(folder)
    done = uic("labels", "migrate", tmp_path / "run", "--data", folder, "--out", "new.ckpt")
    assert done.returncode == 0, done.stderr
    kept, added, gone = map(int, re.findall(r"(\d+) (?:images|new|are)", done.stdout)[:3])
    assert (added, gone) == (len(old[::10]), len(old[::10]) + 1)
    assert kept == len(old) - gone
    after = read_checkpoint(tmp_path / "new.ckpt")["uic"]
    for one, two in zip(
        (before["bank"], *before["more_banks"]), (after["bank"], *after["more_banks"]), strict=True
    ):
        assert two["epoch"] == 1
        assert two["num_samples"] == len(new)
        assert torch.bincount(two["targets"].long(), minlength=30).min() > 0
        label = dict(zip(old, one["targets"].tolist(), strict=True))
        same = [
            label[name] == two["targets"][place] for place, name in enumerate(new) if name in label
        ]
        assert len(same) == kept
        assert sum(map(int, same)) >= kept - 30  # but for splits of classes that lost all images
    # and training continues with them, where the old checkpoint is refused
    given = ["max_epochs=2", f"run_dir={tmp_path / 'b'}"]
    with pytest.raises(ValueError, match="of 361 images, this dataset has 360"):
        train(*given, f"resume_from_checkpoint={tmp_path / 'run' / 'last.ckpt'}")
    for path in (tmp_path / "b").iterdir():
        path.unlink()
    train(*given, f"resume_from_checkpoint={tmp_path / 'new.ckpt'}")
    assert read_checkpoint(tmp_path / "b" / "last.ckpt")["uic"]["bank"]["epoch"] == 2


@pytest.mark.all_digits
def test_the_list_is_of_the_images_that_were_trained_on(run, uic, tmp_path):
    """Some of an index are held out: labels and list are of the others."""
    folder, train = run
    write_index(folder, tmp_path / "all.index")
    held_out = [f"data.index={tmp_path / 'all.index'}", "data.held_out=0.1"]
    run_dir = train("max_epochs=1", "snapshots=1", *held_out)
    bank = read_checkpoint(run_dir / "last.ckpt")["uic"]["bank"]
    listed = read_index(run_dir / "images.index")
    assert len(listed) == len(bank["targets"]) == len(names(folder)) - round(0.1 * 361)
    assert listed.fingerprint == bank["fingerprint"]
    labels = uic("label", run_dir, folder, "--out", "labels.csv")
    assert labels.returncode == 0, labels.stderr
    rows = [row for row in read_labels(tmp_path / "labels.csv").paths if row in listed.names()]
    assert len(rows) == len(listed)
    done = uic("labels", "migrate", run_dir, "--data", folder, "--out", "new.ckpt")
    assert done.returncode == 0, done.stderr


def test_new_images_are_labelled_as_in_training_not_by_settled_classes(run, uic, tmp_path):
    folder, train = run
    cosine = ["classifier=cosine", "temperature=0.1", "settle_rounds=10"]
    run_dir = train("max_epochs=1", *(f"method_kwargs.{option}" for option in cosine))
    (folder / names(folder)[0]).rename(folder / "new.png")
    made = []
    for out in ("settled.ckpt", "none.ckpt"):
        done = uic("labels", "migrate", run_dir, "--data", folder, "--out", out)
        assert done.returncode == 0, done.stderr
        made.append(read_checkpoint(tmp_path / out)["uic"]["bank"]["targets"])
        (run_dir / "settled.pt").unlink(missing_ok=True)
    assert torch.equal(*made)


@pytest.mark.all_digits
def test_nothing_changed_changes_nothing(run, uic, tmp_path):
    folder, train = run
    train("max_epochs=1")
    done = uic("labels", "migrate", tmp_path / "run", "--data", folder)
    assert "361 images keep their label, 0 new ones have one now, 0 are gone" in done.stdout
    before = read_checkpoint(tmp_path / "run" / "last.ckpt")["uic"]
    after = read_checkpoint(tmp_path / "run" / "migrated.ckpt")["uic"]
    assert torch.equal(before["bank"]["targets"], after["bank"]["targets"])
    assert before["bank"]["fingerprint"] == after["bank"]["fingerprint"]


@pytest.mark.all_digits
def test_the_runs_own_checkpoints_stay(run, uic, tmp_path, monkeypatch):
    folder, train = run
    train("max_epochs=2", "snapshots=1")
    own = tmp_path / "run"
    (tmp_path / "link.ckpt").symlink_to(own / "last.ckpt")
    (tmp_path / "new").mkdir()
    before = {path: path.read_bytes() for path in own.rglob("*.ckpt")}
    assert {path.name for path in before} > {"last.ckpt", "previous.ckpt"}
    monkeypatch.setattr(migrate, "_answers", lambda *_: pytest.fail("after the forward pass"))
    outs = [*before, tmp_path / "link.ckpt", own / ".." / "run" / "last.ckpt", tmp_path / "new"]
    for out in outs:
        done = uic("labels", "migrate", own, "--data", folder, "--out", out)
        why = "is a folder: name a file" if out.is_dir() else "is a checkpoint of the run itself"
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {out} {why}")
        assert len(done.stderr.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in own.rglob("*.ckpt")}


@pytest.mark.all_digits
@pytest.mark.slow
def test_one_line_for_a_mistake(run, uic, tmp_path):
    folder, train = run
    train("max_epochs=1")
    assert uic("data", "index", folder, "right.index").returncode == 0
    (folder / names(folder)[0]).unlink()
    assert uic("data", "index", folder, "wrong.index").returncode == 0
    (tmp_path / "run" / "images.index").unlink()
    for given, message in (
        ([], "no list of the images as they were"),
        (["--index", "wrong.index"], "lists other images than"),
        (["--index", tmp_path / "run" / "epochs.csv"], "no index of images"),
    ):
        done = uic("labels", "migrate", tmp_path / "run", "--data", folder, *given)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
    done = uic("labels", "migrate", tmp_path / "run", "--data", folder, "--index", "right.index")
    assert "360 images keep their label" in done.stdout
    other = tmp_path / "other"
    other.mkdir()
    (other / "new.png").write_bytes((folder / names(folder)[0]).read_bytes())
    given = ["--data", other, "--index", "right.index"]
    assert "none of the 1 images" in uic("labels", "migrate", tmp_path / "run", *given).stderr
    given = ["--data", tmp_path / "none", "--index", "right.index"]
    assert "no such folder" in uic("labels", "migrate", tmp_path / "run", *given).stderr
