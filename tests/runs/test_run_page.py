"""A finished run ends with a page of its classes; names come back with corrected labels."""

import json
import shlex
import shutil

import numpy as np
import pytest

from uic_plugin.data.labels import LabelTable, read_labels, write_labels


def core_of(page):
    core = (page / "files" / "core.js").read_text()
    return json.loads(core[core.index("{") : core.rindex(")")])


@pytest.mark.slow
def test_pretrain_ends_with_the_page_and_labels_come_back_named(digits, tmp_path, uic):
    images = shutil.copytree(digits / "train", tmp_path / "images")
    small = [
        f"data.train_path={images}",
        f"data.val_path={digits / 'val'}",
        "max_epochs=2",
        "backbone.kwargs.width=8",
        "data.num_workers=0",
        "accelerator=cpu",
        "knn_eval.enabled=false",
    ]
    done = uic("pretrain", "--config-name", "digits/uic", "run_dir=run", "snapshots=2", *small)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "run" / "classes" / "index.html"
    assert str(page) in done.stdout
    data = core_of(page.parent)
    assert data["history"]["epochs"] == [1, 2]
    assert np.sum(data["history"]["size"], axis=0).tolist() == [1442, 1442]
    assert data["map"]["kind"] in ("pca", "umap")
    assert (page.parent / "files" / "features.js").is_file()
    kept = uic("classes", "run/labels.csv", images, "--features", "run/features")
    assert kept.returncode == 0, kept.stderr  # kept, for whatever comes later
    shutil.copy(next(images.glob("5/*.png")), images / "0" / "00.png")  # moves all numbers by one
    grown = uic("classes", "run/labels.csv", images, "--run", "run", "--out", "grown")
    assert grown.returncode == 0, grown.stderr
    assert core_of(tmp_path / "grown")["history"] == data["history"]
    (images / "0" / "00.png").unlink()

    table = read_labels(tmp_path / "run" / "labels.csv")
    classes = sorted(set(table.labels.tolist()))
    edits = {
        "format": "uic-edits",
        "version": 1,
        "labels": {"file": "labels.csv", "images": 1442, "fingerprint": table.fingerprint},
        "edits": [
            {"do": "merge", "classes": classes[:2], "into": classes[0]},
            {"do": "name", "class": classes[0], "name": "two in one"},
        ],
    }
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    applied = uic("labels", "apply", "edits.json", "run/labels.csv", "--out", "new.csv")
    assert applied.returncode == 0, applied.stderr
    count = len(classes) - 1
    assert f"method_kwargs.num_pseudo_classes={count}" in applied.stdout

    new = ["method_kwargs.fixed_labels=new.csv", f"method_kwargs.num_pseudo_classes={count}"]
    done = uic("pretrain", "--config-name", "digits/uic", "run_dir=run2", *small, *new)
    assert done.returncode == 0, done.stderr
    done = uic("label", "run2", digits / "val", "--out", "val.csv")
    assert done.returncode == 0, done.stderr
    named = read_labels(tmp_path / "val.csv")
    assert set(named.names) <= {0}
    assert np.array_equal(named.extra["name"] == "two in one", named.labels == 0)

    done = uic("label", "run", digits / "val", "--out", "like.csv", "--like", "new.csv")
    assert done.returncode == 0, done.stderr
    like = read_labels(tmp_path / "like.csv")
    was = like.extra["source_label"]
    assert np.array_equal(like.labels == 0, np.isin(was, classes[:2]))


def printed(text, *starts):
    """The commands of the lines that start so, as a shell takes them apart."""
    lines = text.splitlines()
    found = [
        line.removeprefix(start) for start in starts for line in lines if line.startswith(start)
    ]
    assert len(found) == len(starts), text
    return [shlex.split(command)[1:] for command in found]


def test_the_printed_commands_train_on_the_images_that_are_left(digits, tmp_path, uic):
    """Images marked as wrong are left out; names of files have spaces, commas and quotes."""
    folder = tmp_path / "my images"
    for path in sorted(digits.glob("train/*/*.png"))[::24]:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.png"))
    half = np.full(len(paths), 0.5, np.float32)
    wrong = np.arange(len(paths)) < 3
    table = LabelTable(paths, np.arange(len(paths)) % 3, half, half, {"wrong": wrong})
    write_labels(tmp_path / "l.csv", table)
    edits = {"format": "uic-edits", "version": 1, "edits": []}
    edits["labels"] = {"file": "l.csv", "images": len(paths), "fingerprint": table.fingerprint}
    (tmp_path / "e.json").write_text(json.dumps(edits))
    given = ("labels", "apply", "e.json", "l.csv", "--out", "new, Anna's labels.parquet")

    all_there = uic(*given)
    assert all_there.returncode == 0, all_there.stderr
    (train_all,) = printed(all_there.stdout, "Next: ")
    assert train_all[:3] == ["pretrain", "--config-name", "custom/uic_paper"]
    dropped = uic(*given, "--wrong", "drop")
    assert dropped.returncode == 0, dropped.stderr
    moved = "or, with the 3 that were left out moved out of the folder: "
    export, train_sorted, train = printed(dropped.stdout, "Next: ", "then: ", moved)
    assert train == train_all

    small = ["backbone.name=conv4", "backbone.kwargs.width=8", "augmentations.0.crop_size=16"]
    small += ["max_epochs=1", "data.num_workers=0", "accelerator=cpu", "optimizer.batch_size=16"]
    done = uic(*(word.replace("FOLDER", str(folder)) for word in export))
    assert done.stdout == f"sorted: {len(paths) - 3} images in 3 classes\n"
    done = uic(*train_sorted, "run_dir=sorted-run", *small)
    assert done.returncode == 0, done.stderr
    assert "classes used 3" in done.stdout

    train = [word.replace("FOLDER", str(folder)) for word in train]
    done = uic(*train, "run_dir=my run", *small)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "3 of the 61 images have no label" in done.stderr
    assert (
        f"{shlex.join(['uic', *export])}, and then uic pretrain --config-name custom/any"
        in done.stderr
    )
    for path in paths[:3]:
        (folder / path).unlink()
    done = uic(*train, "run_dir=my run", *small)
    assert done.returncode == 0, done.stderr
    assert "Next: uic knn 'my run'   uic linear 'my run'" in done.stdout
    assert len(read_labels(tmp_path / "my run" / "labels.csv")) == len(paths) - 3


def test_no_page_if_not_wanted(recipe, tmp_path, uic, digits):
    from omegaconf import OmegaConf

    cfg = recipe("max_epochs=1")
    (tmp_path / "r.yaml").write_text(OmegaConf.to_yaml(cfg))
    done = uic("pretrain", "--config-name", "r", "--config-dir", tmp_path, "--no-page")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "classes").exists()


def test_no_map_of_many_images_but_the_commands(recipe, tmp_path, monkeypatch, capsys):
    from rich.console import Console

    from uic_plugin.runs import class_page
    from uic_plugin.runs.training import pretrain

    run = pretrain(recipe("max_epochs=1", f"run_dir='{tmp_path / 'my run'}'")).run_dir
    monkeypatch.setattr(class_page, "_MOST_MAPPED", 100)
    page = class_page.page_of_run(run, Console(soft_wrap=True))
    assert page.is_file()
    assert not (page.parent / "files" / "features.js").exists()
    said = capsys.readouterr().out
    assert f"--backbone '{run}' --out FEATURES" in said
    assert f"--features FEATURES --out '{page.parent}'" in said
    monkeypatch.setattr(class_page, "_MOST_IMAGES", 100)
    assert class_page.page_of_run(run, Console(soft_wrap=True)) is None
    said = capsys.readouterr().out
    assert f"uic label '{run}' --out '{run / 'labels.csv'}', then uic classes" in said
