"""UIC inside the installed host, on real images."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from host_lines import LINE, ONLINE, answers, needs_solo
from plain_uic import train_plainly

from uic_plugin.errors import NonFiniteError
from uic_plugin.hosts import find_host, load_host
from uic_plugin.hosts.lightning import pl
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.datasets import pretrain_loader
from uic_plugin.runs.evaluation import (
    extract_features,
    knn_accuracy,
    linear_accuracy,
)
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.run import Run
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.runs.training import pretrain

QUIET = EpochReporter("test")


def train(cfg, *callbacks):
    pretrain(cfg, reporter=QUIET, callbacks=callbacks)
    return read_checkpoint(_path(cfg))


def _path(cfg):
    return Path(cfg.run_dir) / "last.ckpt"


def history(run_dir):
    with open(Path(run_dir) / "epochs.csv", newline="") as file:
        return list(csv.DictReader(file))


def same(first, second):
    """Bit-identical weights, optimizer and labels."""
    ours, theirs = first["state_dict"], second["state_dict"]
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    for one, two in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        for key, state in one["state"].items():
            for name, value in state.items():
                equal = (
                    torch.equal(value, two["state"][key][name])
                    if isinstance(value, torch.Tensor)
                    else value == two["state"][key][name]
                )
                assert equal, (key, name)
    for name in ("targets", "staged"):
        one, two = first["uic"]["bank"][name], second["uic"]["bank"][name]
        assert torch.equal(one, two) if one is not None else two is None
    assert first["uic"]["bank"]["epoch"] == second["uic"]["bank"]["epoch"]
    return True


class StopAfter:
    """Stops training when so many epochs are over, as a user or a scheduler would."""

    def __new__(cls, epochs):
        class Stop(pl.Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                if trainer.current_epoch + 1 == epochs:
                    trainer.should_stop = True

        return Stop()


@pytest.mark.slow
def test_same_seed_same_labels_and_weights(recipe, tmp_path):
    first = train(recipe(f"run_dir={tmp_path / 'a'}"))
    second = train(recipe(f"run_dir={tmp_path / 'b'}"))
    assert same(first, second)
    other = train(recipe(f"run_dir={tmp_path / 'c'}", "seed=1"))
    assert not torch.equal(first["uic"]["bank"]["targets"], other["uic"]["bank"]["targets"])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("schedule", [pytest.param("epoch", marks=pytest.mark.slow), "step"])
def test_two_epochs_and_two_more_equal_four(recipe, tmp_path, workers, schedule):
    settings = ["max_epochs=4", f"data.num_workers={workers}", f"scheduler.interval={schedule}"]
    whole = train(recipe(f"run_dir={tmp_path / 'whole'}", *settings))
    halves = recipe(f"run_dir={tmp_path / 'halves'}", *settings)
    half = train(halves, StopAfter(2))
    assert half["uic"]["bank"]["epoch"] == 2
    assert same(train(halves), whole)
    rows = [history(tmp_path / run) for run in ("whole", "halves")]
    for one, two in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in two.items() if "seconds" not in k
        }


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_checkpoint_within_an_epoch_resumes_at_its_batch(recipe, tmp_path, workers):
    """Whatever callback writes it: here one in the middle of the second epoch."""

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx, *_):
            if (trainer.current_epoch, batch_idx) == (1, 9):
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    settings = ["max_epochs=3", f"data.num_workers={workers}", "scheduler.name=none"]
    whole = train(recipe(f"run_dir={tmp_path / 'whole'}", *settings), Save())
    middle = read_checkpoint(tmp_path / "middle.ckpt")
    assert middle["uic"]["steps_done"] == 10
    assert (middle["uic"]["bank"]["staged"] >= 0).any()
    rest = recipe(
        f"run_dir={tmp_path / 'rest'}",
        f"resume_from_checkpoint={tmp_path / 'middle.ckpt'}",
        *settings,
    )
    assert same(train(rest), whole)
    steps = {row["epoch"]: row["steps"] for row in history(tmp_path / "whole")}
    resumed = history(tmp_path / "rest")
    assert [row["steps"] for row in resumed] == [steps[row["epoch"]] for row in resumed]


@pytest.mark.parametrize(
    "moment", [pytest.param("on_validation_end", marks=pytest.mark.slow), "on_train_epoch_end"]
)
@pytest.mark.slow
def test_a_checkpoint_after_the_boundary_resumes_with_the_next_epoch(recipe, tmp_path, moment):
    """The labels' epoch ends with its last step, Lightning's own one later."""

    def save(self, trainer, module, *_):
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(tmp_path / "boundary.ckpt")

    saver = type("Save", (pl.Callback,), {moment: save})()
    settings = ["max_epochs=4", "scheduler.name=none", "knn_eval.enabled=true"]
    whole = train(recipe(f"run_dir={tmp_path / 'whole'}", *settings), saver)
    assert read_checkpoint(tmp_path / "boundary.ckpt")["uic"]["bank"]["epoch"] == 2
    named = f"resume_from_checkpoint={tmp_path / 'boundary.ckpt'}"
    rest = train(recipe(f"run_dir={tmp_path / 'rest'}", named, *settings))
    assert rest["uic"]["bank"]["epoch"] == 4
    assert torch.equal(rest["uic"]["bank"]["targets"], whole["uic"]["bank"]["targets"])


def test_another_batch_is_another_run(recipe, tmp_path):
    train(recipe("max_epochs=1", "scheduler.name=none", "devices=auto"))
    with pytest.raises(ValueError, match=r"optimizer.batch_size: 64 there, 32 here"):
        train(recipe("max_epochs=2", "scheduler.name=none", "optimizer.batch_size=32"))


STREAM = ["method_kwargs.label_source=step", "method_kwargs.label_momentum=0.9"]


@pytest.mark.slow
def test_labels_of_the_step(recipe, tmp_path):
    whole = train(recipe(*STREAM, f"run_dir={tmp_path / 'whole'}", "max_epochs=4"))
    row = history(tmp_path / "whole")[-1]
    assert float(row["uic_nmi"]) > 0.02
    assert float(row["uic_classes_used"]) == 30
    assert "uic_coverage" not in row
    assert set(whole["uic"]["bank"]) == {"epoch", "seed", "has_begun", "running"}
    halves = recipe(*STREAM, f"run_dir={tmp_path / 'halves'}", "max_epochs=4")
    assert train(halves, StopAfter(2))["uic"]["bank"]["epoch"] == 2
    again = train(halves)
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, again["state_dict"][name]), name
    assert json.loads((tmp_path / "whole" / "cost.json").read_text())["bytes_per_image"] == 0


@pytest.mark.slow
def test_a_stream_of_images_without_numbers(recipe, host_trainer):
    """As a host's script may have one; twice, as a script may train on."""
    cfg, source = prepare_config(recipe(*STREAM, "max_epochs=1"))
    batches = pretrain_loader(cfg, source)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(batches)

    method = build_method(cfg)
    for epoch in (1, 2):
        trainer = host_trainer()
        trainer.fit(method, torch.utils.data.DataLoader(Stream(), batch_size=None))
        assert method.label_stores[0].epoch == epoch
        assert method.epoch_metrics["classes_used"] > 1
    bank_method = build_method(prepare_config(recipe())[0])
    with pytest.raises(ValueError, match="needs every image by its number"):
        trainer.fit(bank_method, torch.utils.data.DataLoader(Stream(), batch_size=None))


def test_a_recipe_for_dali_reads_its_images_without_it(recipe, tmp_path):
    with pytest.warns(UserWarning, match="dali is taken for image_folder.*DALI shuffles"):
        dali = train(recipe("data.format=dali", "max_epochs=1", f"run_dir={tmp_path / 'a'}"))
    assert same(dali, train(recipe("max_epochs=1", f"run_dir={tmp_path / 'b'}")))


def test_momentum_is_what_the_hosts_scripts_set(recipe):
    state = train(recipe("max_epochs=1"))
    assert state["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.9


def test_schedules_are_not_prolonged(recipe):
    train(recipe("max_epochs=1"))
    with pytest.raises(ValueError, match="schedule of 1 epochs, max_epochs is 2 now"):
        train(recipe("max_epochs=2"))


def test_labels_of_every_other_epoch_are_not_prolonged(recipe):
    """After the last epoch all images are labelled anew: a longer run would not have done it."""
    given = ["method_kwargs.label_view=center", "scheduler.name=none"]
    train(recipe("max_epochs=1", *given, "method_kwargs.label_every=2"))
    says = r"labels every 2 epochs and after the last of 1, max_epochs is 2 now: .*another run_dir"
    with pytest.raises(ValueError, match=says):
        train(recipe("max_epochs=2", *given, "method_kwargs.label_every=2"))


def test_a_named_checkpoint_starts_a_run_and_its_own_continues_it(recipe, tmp_path):
    settings = ["scheduler.name=none", "max_epochs=1"]
    train(recipe(f"run_dir={tmp_path / 'a'}", *settings))
    more = [f"run_dir={tmp_path / 'b'}", f"resume_from_checkpoint={tmp_path / 'a' / 'last.ckpt'}"]
    assert train(recipe(*more, *settings[:1], "max_epochs=3"), StopAfter(2))["epoch"] == 1
    result = pretrain(recipe(*more, *settings[:1], "max_epochs=3"), reporter=QUIET)
    assert result.resumed_from == 2


def test_results_do_not_depend_on_the_number_of_workers(recipe, tmp_path):
    none = train(recipe(f"run_dir={tmp_path / 'a'}", "data.num_workers=0"))
    three = train(recipe(f"run_dir={tmp_path / 'b'}", "data.num_workers=3"))
    assert same(none, three)


@pytest.mark.all_digits
def test_annotations_change_nothing(recipe, tmp_path):
    seen = train(recipe(f"run_dir={tmp_path / 'a'}"))
    unseen = train(recipe(f"run_dir={tmp_path / 'b'}", "data.no_labels=true"))
    online = next(n for n in seen["state_dict"] if n.startswith(ONLINE) and n.endswith("weight"))
    assert len(seen["state_dict"][online]) == 10
    assert len(unseen["state_dict"][online]) == 1
    assert "uic_nmi" not in history(tmp_path / "b")[0]
    for name, weight in unseen["state_dict"].items():
        if not name.startswith(ONLINE):  # the host's online probe learns from annotations
            assert torch.equal(weight, seen["state_dict"][name]), name
    assert torch.equal(seen["uic"]["bank"]["targets"], unseen["uic"]["bank"]["targets"])


CLIP = "+gradient_clip_val=0.1"
TRAININGS = {
    "norm": ["digits/uic", CLIP],
    "value": ["digits/uic", "+gradient_clip_val=0.001", "+gradient_clip_algorithm=value"],
    "accumulated": ["digits/uic", CLIP, "+accumulate_grad_batches=2"],
    "bf16": ["digits/uic", CLIP, "precision=bf16-mixed"],
    "deepcluster": ["digits/deepcluster", CLIP],
    "instdisc": ["digits/any", "methods=instdisc", "method_kwargs.num_negatives=64"],
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param(n, s, id=key, marks=[] if key == "norm" else pytest.mark.slow)
        for key, (n, *s) in TRAININGS.items()
    ],
)
@pytest.mark.all_digits
def test_annotations_change_nothing_under_clipping(recipe, tmp_path, name, settings):
    def run(folder, *more):
        return train(recipe(f"run_dir={tmp_path / folder}", *settings, *more, name=name))

    seen, unseen = run("a"), run("b", "data.no_labels=true")
    for part, weight in unseen["state_dict"].items():
        if not part.startswith(ONLINE):
            assert torch.equal(weight, seen["state_dict"][part]), part
    if "uic" in seen:
        assert torch.equal(seen["uic"]["bank"]["targets"], unseen["uic"]["bank"]["targets"])


def test_clipping_clips_what_a_method_trains(recipe, tmp_path):
    clipped = train(recipe(CLIP, f"run_dir={tmp_path / 'a'}", "max_epochs=1"))
    free = train(recipe(f"run_dir={tmp_path / 'b'}", "max_epochs=1"))
    name = "head.classifier.weight"
    assert not torch.equal(clipped["state_dict"][name], free["state_dict"][name])


def test_an_overflow_of_the_online_classifier_skips_no_step(recipe):
    """What a scaler of 16-bit training looks at: all gradients of the optimizer together."""
    method = build_method(prepare_config(recipe())[0])
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    features, logits = answers(method, torch.rand(4, 3, 16, 16))
    own = logits.logsumexp(1).mean()
    classifier = getattr(method.classifier, "classification_head", method.classifier)
    known = classifier(features.detach())
    overflowing = (known * 1e38).sum()  # its gradient leaves float32 when scaled
    head = method.head.classifier.weight.detach().clone()
    online = classifier.weight.detach().clone()
    scaler.scale(own + overflowing).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**10
    assert not torch.equal(method.head.classifier.weight, head)
    assert torch.isfinite(classifier.weight).all()
    assert torch.equal(classifier.weight, online)


@pytest.mark.parametrize("name", ["digits/uic", "digits/any"])
def test_a_diverged_online_classifier_stops_the_run_at_once(recipe, name):
    other = [] if name == "digits/uic" else ["methods=rotnet"]
    settings = ["optimizer.classifier_lr=1e38", "scheduler.name=none"]  # main warms up with lr
    cfg = recipe(*settings, *other, name=name)
    with pytest.raises(
        NonFiniteError, match=r"online classifier is (nan|inf) at step \d+ \(epoch 1"
    ):
        train(cfg)
    assert not _path(cfg).exists()


@pytest.mark.parametrize(
    ("head", "engine"),
    [
        ("mlp", "auto"),
        pytest.param("mlp", "host", marks=pytest.mark.slow),
        pytest.param("linear", "auto", marks=pytest.mark.slow),
    ],
)
def test_a_plain_loop_gives_the_same_losses_and_labels(recipe, head, engine):
    """Two epochs of the recipe; notices any change of recipe, step, order, view or seed."""
    settings = [f"method_kwargs.head={head}", f"augmentation.engine={engine}"]
    cfg = recipe(*settings, "method_kwargs.num_pseudo_classes=40")
    labels = train(cfg)["uic"]["bank"]["targets"]
    rows = history(cfg.run_dir)
    losses = [float(row.get("train_uic_loss_epoch") or row["train_uic_loss"]) for row in rows]
    plain = train_plainly(cfg)
    assert losses == pytest.approx([epoch.loss for epoch in plain], rel=1e-6)
    assert labels.tolist() == plain[-1].labels
    # a random guess among 40 classes costs ln 40
    assert abs(losses[0] - math.log(40)) < 0.3
    assert 2 < losses[1] < losses[0]


def test_telemetry_is_logged_by_the_host(recipe):
    cfg = recipe()
    train(cfg)
    row = history(cfg.run_dir)[-1]
    for name in [
        "uic_nmi_previous",
        "uic_nmi",
        "uic_purity",
        "uic_changed",
        "uic_coverage",
        "uic_empty_fixed",
        "uic_class_size_min",
        "uic_class_size_median",
        "uic_class_size_max",
        "uic_class_size_cv",
        "uic_confidence",
        "uic_entropy",
        "train_acc1" if LINE != "lightly" else "train_online_cls_top1",
    ]:
        assert math.isfinite(float(row[name])), name
    assert 0.3 < float(row["uic_coverage"]) < 1


def test_labels_are_never_empty_and_only_split_classes_lose_images(recipe):
    labels = train(recipe("max_epochs=3"))["uic"]["bank"]["targets"]
    assert torch.bincount(labels.long(), minlength=30).min() >= 1


@pytest.mark.parametrize(
    "options",
    [
        ["method_kwargs.views=2"],
        ["method_kwargs.head=mlp", "method_kwargs.head_width=32"],
        ["method_kwargs.balanced_sampling=false"],
        ["method_kwargs.balanced_sampling=false", "method_kwargs.fix_empty_classes=false"],
        ["method_kwargs.label_init=balanced", "method_kwargs.temperature=0.5"],
        [
            "method_kwargs.label_source=swap",
            "method_kwargs.more_heads=[10,60]",
            "method_kwargs.swap_balance=prices",
            "method_kwargs.balanced_sampling=false",
        ],
    ],
)
def test_every_option_trains(recipe, options):
    state = train(recipe("max_epochs=1", *options))
    assert all(torch.isfinite(weight).all() for weight in state["state_dict"].values())
    assert state["uic"]["bank"]["epoch"] == 1


@pytest.mark.slow
@pytest.mark.all_digits
def test_online_knn_of_the_host_keeps_working(recipe):
    cfg = recipe("knn_eval.enabled=true", "max_epochs=4", "optimizer.batch_size=32")
    train(cfg)
    row = history(cfg.run_dir)[-1]
    assert float(row["val_knn_acc1"]) > 50
    assert float(row["val_acc1"]) > 20


@pytest.mark.parametrize("name", ["digits/simclr", "digits/mocov2plus"])
def test_the_hosts_own_methods_run_beside_it(recipe, name):
    cfg = recipe("max_epochs=1", "method_kwargs.proj_hidden_dim=16", name=name)
    pretrain(cfg, reporter=QUIET)
    run = Run.open(_path(cfg), needs_images=True)
    assert type(run.load()) is load_host().METHODS[cfg.method]
    assert knn_accuracy(extract_features(run), **cfg.knn) > 50


@pytest.mark.all_digits
def test_evaluation_leaves_the_network_frozen(recipe):
    cfg = recipe("linear.max_epochs=2", "linear.augment=true")
    train(cfg)
    run = Run.open(_path(cfg), needs_images=True)
    before = {name: value.clone() for name, value in run.backbone.state_dict().items()}
    assert knn_accuracy(extract_features(run), **cfg.knn) > 80
    assert linear_accuracy(run) > 15
    for name, value in run.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.slow
def test_cached_features_equal_the_networks_own(recipe):
    run = Run.of_recipe(recipe("linear.lr=5"), Path("run"))
    features = extract_features(run)
    assert linear_accuracy(run, features) > 40
    again = extract_features(run)
    assert torch.equal(features.train, again.train)


@needs_solo
def test_forward_gives_what_the_hosts_scripts_read(recipe):
    cfg = recipe("method_kwargs.head=mlp", "method_kwargs.head_width=12")
    method = Run.of_recipe(cfg, Path("run")).load()
    out = method(torch.zeros(2, 3, 16, 16))
    assert out["z"].shape == (2, 12)
    assert out["pseudo_logits"].shape == (2, 30)
    assert out["feats"].shape == (2, 64)
    assert out["logits"].shape == (2, 10)


@pytest.mark.slow
def test_a_hosts_resnet(recipe):
    state = train(
        recipe(
            "backbone.name=resnet18", "~backbone.kwargs.width", "max_epochs=1", "data.fraction=0.1"
        )
    )
    assert any(name.endswith("layer4.1.conv2.weight") for name in state["state_dict"])


@pytest.mark.all_digits
def test_unlabelled_flat_folder(recipe, digits, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, path in enumerate(sorted(digits.glob("train/*/*.png"))[::5]):
        (folder / f"{number:04d}.png").write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no image")
    cfg = recipe("data.dataset=custom", f"data.train_path={folder}", "max_epochs=1")
    bank = train(cfg)["uic"]["bank"]
    assert bank["num_samples"] == len(list(folder.glob("*.png")))
    row = history(cfg.run_dir)[0]
    assert "uic_nmi" not in row


def test_checkpoint_is_tensors_and_plain_values(recipe):
    def plain(value):
        if isinstance(value, dict):
            return all(plain(k) and plain(v) for k, v in value.items())
        if isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or isinstance(value, (str, int, float, bool, torch.Tensor))

    assert plain(train(recipe("max_epochs=1"))["uic"])


@pytest.mark.all_digits
def test_another_datasets_checkpoint_is_refused(recipe, digits, tmp_path):
    train(recipe("max_epochs=1", "data.fraction=0.5", "scheduler.name=none"))
    kept = tmp_path / "run" / "last.ckpt"
    more = [f"run_dir={tmp_path / 'other'}", f"resume_from_checkpoint={kept}"]
    with pytest.raises(ValueError, match="has 1 epochs behind it, max_epochs=1 is not more"):
        train(recipe(*more, "max_epochs=1"))
    cfg = recipe(*more, "max_epochs=2", "scheduler.name=none")
    with pytest.raises(ValueError, match="of 721 images, this dataset has 1442"):
        train(cfg)


def test_another_methods_checkpoint_is_refused(recipe, tmp_path):
    cfg = recipe("max_epochs=1", "method_kwargs.proj_hidden_dim=16", name="digits/simclr")
    pretrain(cfg, reporter=QUIET)
    kept = _path(cfg)
    cfg = recipe(f"run_dir={tmp_path / 'b'}", f"resume_from_checkpoint={kept}", "max_epochs=1")
    with pytest.raises(ValueError, match="written by another method"):
        train(cfg)


def test_learning_rate_follows_the_recipe(recipe):
    """No warm-up, cosine: full rate in the first epoch, on both lines and intervals."""

    seen = []

    class Rates(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    train(recipe("max_epochs=2", "optimizer.lr=0.4"), Rates())
    assert seen[0] == pytest.approx(0.4 * 64 / 256)
    assert seen[-1] == pytest.approx(0.2 * 64 / 256, rel=0.05)


def test_host_line_is_one_of_three():
    assert find_host().line in ("pypi", "main", "lightly")
    assert load_host().METHODS["uic"] is load_host().UICMethod
