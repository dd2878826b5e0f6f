"""Labels from a pass of their own, from a file, and into a file."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from host_lines import answers

from uic_plugin.data.labels import LabelTable, read_labels, write_labels
from uic_plugin.data.listed import decode
from uic_plugin.hosts import load_host
from uic_plugin.hosts.lightning import pl
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.labelling import LabelSettings, label_images
from uic_plugin.runs.run import Run
from uic_plugin.runs.training import pretrain

QUIET = EpochReporter("test")


class Watch(pl.Callback):
    """Keeps the bank's targets of every epoch."""

    def __init__(self):
        self.targets = []

    def on_train_epoch_start(self, trainer, module):
        self.targets.append(module.bank.labels.clone())


def loaded(run_dir):
    return Run.open(Path(run_dir), ["data.num_workers=0", "accelerator=cpu"], needs_images=True)


@pytest.fixture
def trained(recipe, tmp_path):
    cfg = recipe("max_epochs=1", f"run_dir={tmp_path / 'trained'}")
    pretrain(cfg, reporter=QUIET)
    return Path(cfg.run_dir)


def test_centered_labels_are_those_of_the_frozen_network(recipe, trained):
    """With a learning rate of 0 the pass at the last step sees the weights of the checkpoint."""
    cfg = recipe(
        "method_kwargs.label_view=center",
        "method_kwargs.fix_empty_classes=false",
        "method_kwargs.balanced_sampling=false",
        "max_epochs=1",
        "optimizer.lr=0",
        "optimizer.weight_decay=0",
        f"weights={trained / 'last.ckpt'}",
    )
    pretrain(cfg, reporter=QUIET)
    run = loaded(cfg.run_dir)
    table = label_images(run, Path(cfg.run_dir) / "labels.csv")
    bank = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")["uic"]["bank"]
    assert bank["targets"].tolist() == table.labels.tolist()
    assert len(set(table.labels.tolist())) > 5


def test_labels_of_a_further_classifier(recipe, tmp_path):
    cfg = recipe("max_epochs=1", "method_kwargs.more_heads=[10,5]")
    pretrain(cfg, reporter=QUIET)
    run = loaded(cfg.run_dir)
    given = {"data": run.source.val}
    first = label_images(run, tmp_path / "first.csv", **given)
    five = label_images(run, tmp_path / "five.csv", settings=LabelSettings(classes=5), **given)
    assert first.labels.max() >= 5 > five.labels.max()
    views = torch.stack([run.view(decode(run.source.val / path)) for path in five.paths[:20]])
    with torch.no_grad():
        logits = run.head.eval()(run.backbone.eval()(views).flatten(1))[1]
    assert run.head.per_head(logits)[2].argmax(1).tolist() == five.labels[:20].tolist()
    with pytest.raises(ValueError, match="--classes 7: the run has classifiers of 30, 10, 5"):
        label_images(run, tmp_path / "no.csv", settings=LabelSettings(classes=7), **given)


@pytest.mark.slow
def test_centered_labels_train_and_resume(recipe, tmp_path):
    from runs.test_training import StopAfter, same

    def cfg(folder, workers):
        return recipe(
            "max_epochs=3",
            "method_kwargs.label_view=center",
            f"data.num_workers={workers}",
            f"run_dir={tmp_path / folder}",
        )

    pretrain(cfg("whole", 0), reporter=QUIET)
    pretrain(cfg("parts", 2), reporter=QUIET, callbacks=(StopAfter(1),))
    pretrain(cfg("parts", 0), reporter=QUIET)
    whole, parts = (read_checkpoint(tmp_path / f / "last.ckpt") for f in ("whole", "parts"))
    assert same(whole, parts)
    other = recipe("max_epochs=3", f"run_dir={tmp_path / 'train'}")
    pretrain(other, reporter=QUIET)
    own = read_checkpoint(tmp_path / "train" / "last.ckpt")["uic"]["bank"]["targets"]
    assert not torch.equal(own, whole["uic"]["bank"]["targets"])


def annotated(digits, tmp_path, num_classes=10):
    """A label file with the digit itself as the label."""
    paths = sorted(p.relative_to(digits / "train").as_posix() for p in digits.glob("train/*/*.png"))
    labels = np.array([int(path.split("/")[0]) % num_classes for path in paths])
    nothing = np.zeros(len(paths), np.float32)
    write_labels(tmp_path / "labels.csv", LabelTable(paths, labels, nothing, nothing))
    return tmp_path / "labels.csv", labels


@pytest.mark.all_digits
def test_fixed_labels_never_change_and_are_learned(recipe, digits, tmp_path):
    file, labels = annotated(digits, tmp_path)
    watch = Watch()
    cfg = recipe(
        f"method_kwargs.fixed_labels={file}", "method_kwargs.num_pseudo_classes=12", "max_epochs=4"
    )
    pretrain(cfg, reporter=QUIET, callbacks=(watch,))
    assert len(watch.targets) == 4
    for targets in watch.targets:
        assert targets.tolist() == labels.tolist()  # two classes of the twelve stay empty
    from runs.test_training import history

    rows = history(cfg.run_dir)
    assert float(rows[-1]["uic_nmi"]) == pytest.approx(1)
    assert [float(row["uic_changed"]) for row in rows] == [0] * 4
    assert float(rows[-1]["train_uic_loss_epoch"]) < 0.6 < math.log(10)


@pytest.mark.all_digits
def test_label_file_of_other_images(recipe, digits, tmp_path):
    file, _ = annotated(digits, tmp_path)
    rows = file.read_text().splitlines()
    file.write_text("\n".join([rows[0], "no/such.png,0,0,0", *rows[3:]]) + "\n")
    with pytest.raises(
        ValueError, match=r"2 of the 1442 images have no label.*1 of the 1441 labels"
    ):
        pretrain(recipe(f"method_kwargs.fixed_labels={file}"), reporter=QUIET)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_label_command(uic, trained, digits, tmp_path, ending):
    out = tmp_path / f"labels.{ending}"
    done = uic("label", trained, digits / "train", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "1442 images in" in done.stdout
    table = read_labels(out)
    assert table.paths == sorted(table.paths)
    assert len(table) == 1442
    assert not out.with_name(out.name + ".rows").exists()
    run = loaded(trained)
    with torch.no_grad():
        from PIL import Image

        from uic_plugin.data.center import center_view

        host, cfg = load_host(), run.config
        view = center_view(host.augmentation(run.source.transforms, cfg.augmentations))
        method = run.load()
        for number in (0, 700, 1441):
            image = Image.open(digits / "train" / table.paths[number]).convert("RGB")
            p = answers(method, view(image)[None])[1].softmax(1)[0]
            assert table.labels[number] == p.argmax()
            assert table.confidence[number] == pytest.approx(float(p.max()), rel=1e-4)
            assert table.entropy[number] == pytest.approx(float(-(p * p.log()).sum()), rel=1e-3)


@pytest.mark.parametrize(
    ("view", "mode"), [("center", "eval"), pytest.param("train", "train", marks=pytest.mark.slow)]
)
def test_a_stopped_pass_resumes(trained, tmp_path, view, mode):
    run = loaded(trained)
    options = {"settings": LabelSettings(view, mode, batch_size=100)}
    whole = label_images(run, tmp_path / "whole.csv", **options)

    class Killed(Exception):
        pass

    def kill(done, total):
        if done >= 500:
            raise Killed

    out = tmp_path / "parts.csv"
    with pytest.raises(Killed):
        label_images(run, out, progress=kill, **options)
    assert not out.exists()
    rows = tmp_path / "parts.csv.rows"
    with open(rows, "ab") as file:
        file.write(b"half a row")  # as a kill within a write leaves it
    run = loaded(trained)
    seen = []
    label_images(run, out, progress=lambda done, total: seen.append(done), **options)
    assert seen[0] == 600
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(set(whole.labels.tolist())) > 1


def test_rows_of_another_network_are_not_taken_over(trained, recipe, tmp_path):
    out = tmp_path / "labels.csv"
    run = loaded(trained)

    def stop(done, total):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        label_images(run, out, progress=stop)
    torch.nn.init.normal_(run.head.classifier.weight)
    seen = []
    label_images(run, out, progress=lambda done, total: seen.append(done))
    assert seen[0] == 256


def test_images_that_changed_since_a_stopped_call_are_labelled_again(trained, digits, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(digits.glob("val/*/*.png"))[:40]):
        shutil.copy(path, photos / f"{number:02d}.png")
    options = {"data": photos, "settings": LabelSettings(batch_size=10)}
    whole = label_images(loaded(trained), tmp_path / "whole.csv", **options)

    def stop(done, total):
        if done >= 20:
            raise RuntimeError

    out = tmp_path / "parts.csv"
    with pytest.raises(RuntimeError):
        label_images(loaded(trained), out, progress=stop, **options)
    shutil.copy(photos / "39.png", photos / "00.png")  # which has been labelled
    again = label_images(loaded(trained), out, **options)
    assert again.labels[0] == whole.labels[39]
    assert again.confidence[0] == pytest.approx(whole.confidence[39], rel=1e-4)
    assert again.confidence[0] != pytest.approx(whole.confidence[0], rel=1e-4)


@pytest.mark.all_digits
def test_finetuning_starts_from_network_and_head(recipe, digits, tmp_path, trained):
    file, _ = annotated(digits, tmp_path)
    cfg = recipe(
        f"weights={trained / 'last.ckpt'}",
        f"method_kwargs.fixed_labels={file}",
        f"run_dir={tmp_path / 'tuned'}",
        "max_epochs=1",
        "optimizer.lr=0",
        "optimizer.weight_decay=0",
    )
    pretrain(cfg, reporter=QUIET)
    before, after = (
        read_checkpoint(folder / "last.ckpt")["state_dict"]
        for folder in (trained, tmp_path / "tuned")
    )
    for name, value in before.items():
        is_statistic = "running" in name or "num_batches" in name
        if name.startswith(("head.", "backbone.", "encoder.")) and not is_statistic:
            assert torch.equal(value, after[name]), name


@pytest.mark.slow
def test_small_recipe_of_each_stage_trains(small, tmp_path):
    """Pretrain, label, fine-tune: the structure of Table 2, with AlexNet and linear decay."""
    run = tmp_path / "run"
    pretrain(
        compose_recipe("small/alexnet_center_labels", [*small, f"run_dir={run}"]), reporter=QUIET
    )
    label_images(loaded(run), run / "labels.csv")
    tuned = compose_recipe(
        "small/alexnet_finetune",
        [
            *small,
            f"run_dir={tmp_path / 'tuned'}",
            f"weights={run / 'last.ckpt'}",
            f"method_kwargs.fixed_labels={run / 'labels.csv'}",
        ],
    )
    pretrain(tuned, reporter=QUIET)
    bank = read_checkpoint(tmp_path / "tuned" / "last.ckpt")["uic"]["bank"]
    assert bank["targets"].tolist() == read_labels(run / "labels.csv").labels.tolist()


@pytest.mark.all_digits
def test_an_image_alone_has_no_batch_statistics(trained, tmp_path):
    run = loaded(trained)
    with pytest.raises(ValueError, match="--batch-size 131 leaves one of the 1442 images alone"):
        label_images(run, tmp_path / "l.csv", settings=LabelSettings(mode="train", batch_size=131))


def test_unreadable_images_get_no_label(trained, digits, tmp_path):
    import shutil

    shutil.copytree(digits / "val", tmp_path / "some")
    broken = sorted((tmp_path / "some" / "3").iterdir())[0]
    broken.write_bytes(b"no image")
    settings = ["data.num_workers=0", "accelerator=cpu", "data.on_bad_image=skip"]
    run = Run.open(trained, settings, needs_images=True)
    with pytest.warns(UserWarning, match="cannot be read and gets no label"):
        table = label_images(run, tmp_path / "l.csv", data=tmp_path / "some")
    assert len(table) == 354
    assert f"3/{broken.name}" not in table.paths
    run = loaded(trained)
    with pytest.raises(ValueError, match=broken.name):
        label_images(run, tmp_path / "m.csv", data=tmp_path / "some")


def test_labelling_needs_no_training_images(uic, recipe, digits, tmp_path):
    import shutil

    shutil.copytree(digits, tmp_path / "gone")
    cfg = recipe("max_epochs=1", "data.dataset=custom", f"data.train_path={tmp_path}/gone/train")
    pretrain(cfg, reporter=QUIET)
    shutil.rmtree(tmp_path / "gone")
    done = uic("label", cfg.run_dir, digits / "val", "--out", tmp_path / "l.csv")
    assert done.returncode == 0, done.stderr
    assert uic("weights", cfg.run_dir, "--out", tmp_path / "net.pth").returncode == 0
    assert "no such folder" in uic("label", cfg.run_dir, "--out", tmp_path / "m.csv").stderr


def test_momentum_networks_start_as_copies(recipe, trained, tmp_path):
    from uic_plugin.hosts import backbone_of
    from uic_plugin.runs.settings import build_method, prepare_config
    from uic_plugin.runs.start_weights import start_from

    method = build_method(prepare_config(recipe(name="digits/mocov2plus"))[0])
    start_from(method, trained / "last.ckpt")
    momentum = getattr(method, f"momentum_{load_host().BACKBONE_KEY}")
    ours = backbone_of(method).state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in momentum.state_dict().items())
    kept = read_checkpoint(trained / "last.ckpt")["state_dict"]
    assert any(
        torch.equal(ours["conv1.0.weight"], value)
        for value in kept.values()
        if value.shape == ours["conv1.0.weight"].shape
    )
