"""The methods beside UIC, trained inside the installed host on real images."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from host_lines import LINE

from uic_plugin.data.folders import list_images
from uic_plugin.hosts import backbone_of, load_host, register
from uic_plugin.hosts.lightning import pl
from uic_plugin.methods import OWN_METHODS, passes
from uic_plugin.pseudo_labels import nmi
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.evaluation import extract_features, knn_accuracy
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.run import Run
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.runs.start_weights import start_from
from uic_plugin.runs.trainer import make_trainer
from uic_plugin.runs.training import pretrain

QUIET = EpochReporter("test")
SMALL_HEAD = ("method_kwargs.head_width=16",)
SWAP = (
    "method_kwargs.label_source=swap",
    "method_kwargs.more_heads=[10,100]",
    "method_kwargs.head_output=16",
    "method_kwargs.classifier=cosine",
    "method_kwargs.temperature=0.1",
    "method_kwargs.balanced_sampling=false",
    "method_kwargs.instance_share=0.5",
)


def train(cfg, *callbacks):
    pretrain(cfg, reporter=QUIET, callbacks=callbacks)
    return read_checkpoint(Path(cfg.run_dir) / "last.ckpt")


def same(first, second):
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name
    mine, theirs = first["uic"], second["uic"]
    for one, two in zip(
        [mine["bank"], *mine["more_banks"]], [theirs["bank"], *theirs["more_banks"]], strict=True
    ):
        assert torch.equal(one["targets"], two["targets"])
        assert one["epoch"] == two["epoch"]
    return True


def stop_after(epochs):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch + 1 == epochs:
                trainer.should_stop = True

    return Stop()


def test_all_are_registered():
    register()
    assert set(OWN_METHODS) <= set(load_host().METHODS)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits/deepcluster", ()),
        pytest.param("digits/selflabel", ("method_kwargs.heads=2",), marks=pytest.mark.slow),
        pytest.param("digits/supervised", (), marks=pytest.mark.slow),
        pytest.param(
            "digits/uic",
            ("method_kwargs.heads=3", "method_kwargs.label_momentum=0.9"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "digits/uic",
            ("method_kwargs.label_init=clusters", "method_kwargs.label_view=center"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "digits/uic",
            ("method_kwargs.classifier=cosine", "method_kwargs.temperature=0.1"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "digits/uic",
            (*SWAP, "method_kwargs.swap_balance=prices", "method_kwargs.label_momentum=0.9"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "digits/uic",
            (
                "method_kwargs.label_init=clusters",
                "method_kwargs.label_view=center",
                "method_kwargs.label_every=2",
                "method_kwargs.label_momentum=0.9",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(recipe, tmp_path, name, options):
    given = (*options, *SMALL_HEAD, "max_epochs=3")
    whole = train(recipe(f"run_dir={tmp_path / 'whole'}", *given, name=name))
    cfg = recipe(f"run_dir={tmp_path / 'parts'}", *given, name=name)
    train(cfg, stop_after(1))
    assert same(whole, train(cfg))


@pytest.mark.slow
def test_small_crops_of_a_second_pipeline_resume(recipe, tmp_path):
    """Crops of 8 pixels beside two of 16, in whatever order the host makes them."""

    def cfg(folder):
        options = (*SWAP, *SMALL_HEAD, "method_kwargs.small_crops=2", "max_epochs=2")
        cfg = recipe(f"run_dir={tmp_path / folder}", *options)
        small = copy.deepcopy(cfg.augmentations[0])
        small.crop_size, small.rrc.crop_min_scale, small.rrc.crop_max_scale = 8, 0.2, 0.6
        cfg.augmentations.append(small)
        return cfg

    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, *_):
            seen.append([view.shape[-1] for view in batch[1]])

    whole = train(cfg("whole"), Watch())
    assert seen[0] == [16, 16, 8, 8]
    train(cfg("parts"), stop_after(1))
    assert same(whole, train(cfg("parts")))


def with_small_crops(cfg, count):
    small = copy.deepcopy(cfg.augmentations[0])
    small.crop_size, small.num_crops = 8, count
    cfg.augmentations.append(small)
    return cfg


def test_large_and_small_crops_of_the_hosts_methods(recipe):
    """As its own script counts them: those of another size than the first pipeline's are small."""
    if LINE == "lightly":
        pytest.skip("about solo-learn alone")
    cfg = with_small_crops(recipe("methods=byol", name="digits/any"), 4)
    method = build_method(prepare_config(cfg)[0])
    assert (method.num_large_crops, method.num_small_crops, method.multicrop) == (2, 4, True)
    method = build_method(prepare_config(recipe("methods=byol", name="digits/any"))[0])
    assert (method.num_large_crops, method.num_small_crops, method.multicrop) == (2, 0, False)


def test_swav_learns_from_small_crops(recipe, monkeypatch):
    if LINE != "main":
        pytest.skip("the other hosts have no small crops of SwAV")
    import solo.methods.swav

    shapes = []
    loss = solo.methods.swav.swav_loss_func

    def watched(preds, assignments, temperature):
        shapes.append((len(preds), len(assignments)))
        return loss(preds, assignments, temperature)

    monkeypatch.setattr(solo.methods.swav, "swav_loss_func", watched)
    cfg = with_small_crops(recipe("methods=swav", "max_epochs=1", name="digits/any"), 4)
    train(cfg)
    # every crop predicts what the two large ones are assigned to
    assert shapes
    assert set(shapes) == {(6, 2)}
    (row,) = read_csv(f"{cfg.run_dir}/epochs.csv")
    assert math.isfinite(float(row["train_swav_loss"]))
    cost = json.loads((Path(cfg.run_dir) / "cost.json").read_text())
    assert cost["views_per_image"] == 6


def test_small_crops_that_teach_a_method_nothing_are_said(recipe):
    if LINE != "main":
        pytest.skip("the other hosts end in the first step")
    cfg = with_small_crops(recipe("methods=dino", name="digits/any"), 4)
    says = r"dino of solo-learn learns nothing from its 4 small crops \(byol, simclr, supcon, swav"
    with pytest.warns(UserWarning, match=says):
        build_method(prepare_config(cfg)[0])


@pytest.mark.all_digits
def test_deepcluster_finds_classes_and_forgets_its_classifier(recipe):
    cfg = recipe("max_epochs=2", *SMALL_HEAD, name="digits/deepcluster")
    spreads = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, *_):
            if module.steps_done == 0:
                begin = module.start_epoch

                def begun():
                    old = module.head.classifier.weight.std().item()
                    optimizer = trainer.optimizers[0]
                    begin()
                    new = module.head.classifier.weight
                    spreads.append((old, new.std().item(), new in optimizer.state))
                    assert (module.head.classifier.bias == 0).all()

                module.start_epoch = begun

        def on_train_batch_end(self, trainer, module, *_):
            module.__dict__.pop("start_epoch", None)

    state = train(cfg, Watch())
    assert len(spreads) == 2
    for old, new, is_remembered in spreads:
        assert new == pytest.approx(0.01, rel=0.3)
        assert old > 2 * new
        assert not is_remembered
    rows = read_csv(Path(cfg.run_dir) / "epochs.csv")
    assert float(rows[-1]["uic_nmi"]) > 0.5  # k-means on digits, whatever the network
    labels = state["uic"]["bank"]["targets"]
    assert int(labels.min()) >= 0
    assert int(labels.max()) < 30
    assert state["uic"]["method"] == "deepcluster"
    run = Run.open(Path(cfg.run_dir), needs_images=True)
    assert knn_accuracy(extract_features(run), **cfg.knn) > 60


@pytest.mark.all_digits
def test_selflabel_fills_its_classes_equally(recipe):
    options = ("method_kwargs.sinkhorn_lambda=100", "max_epochs=3")
    labels = train(recipe(*SMALL_HEAD, *options, name="digits/selflabel"))["uic"]["bank"]["targets"]
    sizes = torch.bincount(labels.long(), minlength=30)
    # 1442 / 30 = 48; labels are the largest shares of a soft assignment, so not quite equal
    assert sizes.min() >= 36
    assert sizes.max() <= 60


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits/selflabel", ("method_kwargs.label_updates=3",)),
        ("digits/uic", (*SWAP, "method_kwargs.label_init=clusters")),
    ],
)
def test_statistics_of_batches_are_those_of_all_images(recipe, digits, monkeypatch, name, options):
    """In the order of the folders a batch would be of a single digit, and its statistics too."""
    from uic_plugin.methods import selflabel, uic_variants

    seen, settings = [], (*options, *SMALL_HEAD, "max_epochs=1", "data.fraction=-1")

    def counted(method, *, training, forward=None):
        for index, features in passes.features_of_share(method, training=training, forward=forward):
            seen.append(set(annotations[index].tolist()))
            yield index, features

    cfg = recipe(*settings, f"data.train_path={digits / 'train'}", name=name)
    images = list_images(digits / "train")
    annotations = np.array([image.split("/")[0] for image in images.names])
    monkeypatch.setattr(selflabel, "features_of_share", counted)
    monkeypatch.setattr(uic_variants, "features_of_share", counted)
    train(cfg)
    assert min(len(digits_of_batch) for digits_of_batch in seen) >= 8


@pytest.mark.parametrize(
    ("updates", "spacing", "epochs", "expected"),
    [
        (100, "quadratic", 5, [1, 2, 3, 4, 5]),
        (3, "linear", 8, [4, 8]),  # times 0, 4, 8; the first labels are those of time 0
        (4, "quadratic", 9, [1, 4, 9]),
        (1, "quadratic", 9, []),
        (26, "linear", 25, list(range(1, 26))),  # 25 * (7 / 25) is above 7 when rounded
        (50, "linear", 49, list(range(1, 50))),
    ],
)
def test_schedule_of_selflabel(recipe, updates, spacing, epochs, expected):
    from uic_plugin.methods import SelfLabel

    class Method(SelfLabel):
        class options:
            label_updates, label_spacing = updates, spacing

        class trainer:
            max_epochs = epochs

        def __init__(self):
            pass

    assert [e for e in range(1, epochs + 1) if Method().is_update(e)] == expected


@pytest.mark.parametrize("heads", [1, 2])
def test_selflabel_transports_the_softmax_of_the_loss(heads):
    """Logits of a tenth at a temperature of a tenth are the same answers, so the same labels."""
    from uic_plugin.methods import SelfLabel
    from uic_plugin.methods.options import SelfLabelOptions
    from uic_plugin.pseudo_labels.sinkhorn import sinkhorn_labels

    images = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    pairs = torch.utils.data.TensorDataset(torch.arange(60), images)

    def labels(temperature):
        method = SelfLabel()
        method._network, method.global_rank = torch.nn.Identity(), 0
        options = SelfLabelOptions(
            num_pseudo_classes=4, heads=heads, temperature=temperature, sinkhorn_lambda=5
        )
        method.build_head(8, options, seed=0)
        method.attach(60, "images", None)
        with torch.no_grad():
            for weight in method.head.classifier.parameters():
                weight.mul_(10 * temperature)
        method.label_loader = torch.utils.data.DataLoader(pairs, 20)
        method.start_labels()
        logits = method.head.per_head(method.head(images)[1].detach())
        return torch.stack([bank.labels for bank in method.banks]), logits

    found, _ = labels(0.1)
    wanted, logits = labels(1.0)
    assert found.tolist() == wanted.tolist()
    for own, scores in zip(wanted, logits, strict=True):
        assert own.tolist() == sinkhorn_labels(scores, power=5).labels.tolist()
        assert own.tolist() != sinkhorn_labels(scores, power=0.5).labels.tolist()


@pytest.mark.all_digits
def test_supervised_learns_the_annotations_and_needs_them(recipe, digits, tmp_path):
    cfg = recipe("max_epochs=4", "method_kwargs.head=linear", name="digits/supervised")
    state = train(cfg)
    targets = state["uic"]["bank"]["targets"]
    assert torch.bincount(targets.long()).tolist() == [
        len(list((digits / "train" / str(digit)).iterdir())) for digit in range(10)
    ]
    rows = read_csv(Path(cfg.run_dir) / "epochs.csv")
    assert float(rows[-1]["train_supervised_loss"]) < float(rows[0]["train_supervised_loss"])
    cfg = recipe(f"run_dir={tmp_path / 'b'}", "data.no_labels=true", name="digits/supervised")
    with pytest.raises(ValueError, match="annotation of every image"):
        train(cfg)


def test_labels_may_begin_as_clusters(recipe):
    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, *_):
            self.first = getattr(self, "first", None)
            if self.first is None:
                self.first = module.bank.labels.clone().long()
                self.annotations = module.telemetry.annotations

    watch = Watch()
    train(recipe("max_epochs=1", *SMALL_HEAD, "method_kwargs.label_init=clusters"), watch)
    assert nmi(watch.annotations, watch.first.numpy()) > 0.5
    assert torch.bincount(watch.first, minlength=30).min() >= 1


def test_every_weight_learns_in_mixed_precision_behind_a_pass_that_labels(recipe):
    class Watch(pl.Callback):
        steps = 0

        def on_after_backward(self, trainer, module):
            self.steps += 1
            for name, weight in [
                *backbone_of(module).named_parameters(),
                *module.head.named_parameters(),
            ]:
                assert weight.grad is not None, name

    watch = Watch()
    options = ("precision=bf16-mixed", "method_kwargs.views=2", "+limit_train_batches=2")
    train(recipe("max_epochs=1", *options), watch)
    assert watch.steps == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits/supervised", ()),
        ("digits/uic", ("method_kwargs.label_view=center", "method_kwargs.label_every=2")),
        pytest.param("digits/uic", ("method_kwargs.heads=2",), marks=pytest.mark.slow),
        pytest.param("digits/demo", ("method_kwargs.label_view=center",), marks=pytest.mark.slow),
        pytest.param("digits/deepcluster", (), marks=pytest.mark.slow),
        pytest.param(
            "digits/selflabel", ("method_kwargs.label_updates=1",), marks=pytest.mark.slow
        ),
    ],
)
def test_coverage_counts_the_images_that_an_epoch_draws(recipe, tmp_path, name, options):
    """Wherever the labels come from, and if the run resumes in the middle of the epoch."""
    drawn = {}

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, *_):
            drawn.setdefault(trainer.current_epoch, set()).update(batch[0].tolist())

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx, *_):
            if (trainer.current_epoch, batch_idx) == (1, 5):
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    given = (*options, *SMALL_HEAD, "max_epochs=3", "scheduler.name=none")
    whole = train(recipe(f"run_dir={tmp_path / 'whole'}", *given, name=name), Watch())
    rows = read_csv(tmp_path / "whole" / "epochs.csv")
    images = whole["uic"]["bank"]["num_samples"]
    found = [float(row["uic_coverage"]) for row in rows]
    assert found == pytest.approx([len(drawn[epoch]) / images for epoch in range(3)])
    assert min(found) > 0.5
    middle = f"resume_from_checkpoint={tmp_path / 'middle.ckpt'}"
    cfg = recipe(f"run_dir={tmp_path / 'rest'}", middle, *given, name=name)
    assert same(whole, train(cfg))
    rest = read_csv(tmp_path / "rest" / "epochs.csv")
    assert [float(row["uic_coverage"]) for row in rest] == found[1:]


def test_heads_are_counted_one_by_one(recipe):
    cfg = recipe("max_epochs=1", *SMALL_HEAD, "method_kwargs.heads=4", name="digits/selflabel")
    state = train(cfg)
    (row,) = read_csv(Path(cfg.run_dir) / "epochs.csv")
    assert math.log(30) / 2 < float(row["uic_entropy"]) <= math.log(30)  # of 120 it could be more
    banks = [state["uic"]["bank"], *state["uic"]["more_banks"]]
    assert len(banks) == 4
    assert not torch.equal(banks[0]["targets"], banks[1]["targets"])


def test_weights_of_a_file_reach_the_moving_average(recipe, tmp_path):
    cfg = recipe("max_epochs=1", *SMALL_HEAD)
    trained = train(cfg)["state_dict"]
    given = ("max_epochs=1", *SMALL_HEAD, "method_kwargs.label_momentum=0.9")
    prepared, _ = prepare_config(recipe(*given))
    method = build_method(prepared)
    start_from(method, Path(cfg.run_dir) / "last.ckpt")
    for name, weight in method.label_network["head"].state_dict().items():
        assert torch.equal(weight, trained[f"head.{name}"])


def test_random_is_the_network_that_the_seed_gives(recipe):
    cfg = recipe("methods=random", "max_epochs=7", "seed=3", name="digits/any")
    saved = train(cfg)["state_dict"]
    prepared, _ = prepare_config(cfg)
    fresh = build_method(prepared).state_dict()
    assert saved.keys() == fresh.keys()
    assert all(torch.equal(saved[name], fresh[name]) for name in saved)
    # that it is trained on one batch limits none of its evaluations
    for evaluates, batches in ((False, int), (True, float)):  # a whole number, or a share
        trainer = make_trainer(prepared, max_epochs=1, callbacks=[], evaluates=evaluates)
        assert type(trainer.limit_train_batches) is batches


@pytest.mark.parametrize("name", ["rotnet", "instdisc"])
@pytest.mark.slow
@pytest.mark.all_digits
def test_methods_without_labels_of_classes(recipe, name):
    options = ("max_epochs=3", "knn_eval.enabled=true")
    cfg = recipe(f"methods={name}", *options, name="digits/any")
    state = train(cfg)
    rows = read_csv(Path(cfg.run_dir) / "epochs.csv")
    losses = [float(row[f"train_{name}_loss"]) for row in rows]
    assert losses[-1] < losses[0]
    assert float(rows[-1]["val_knn_acc1"]) > 30
    run = Run.open(Path(cfg.run_dir), needs_images=True)
    assert knn_accuracy(extract_features(run), **cfg.knn) > 60
    if name == "instdisc":
        memory = state["instdisc"]["memory"]
        assert memory.shape == (1442, 128)
        assert torch.allclose(memory.norm(dim=1), torch.ones(1442), atol=1e-5)


def test_instdisc_with_negatives_resumes_its_memory(recipe, tmp_path):
    given = ("methods=instdisc", "method_kwargs.num_negatives=64", "max_epochs=2")
    cfg = recipe(*given, name="digits/any")
    train(cfg, stop_after(1))
    before = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")["instdisc"]
    assert before["normaliser"] > 0
    after = train(cfg)["instdisc"]
    assert after["normaliser"] == before["normaliser"]
    assert not torch.equal(after["memory"], before["memory"])
    state = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")
    state["instdisc"]["fingerprint"] = "of others"
    torch.save(state, tmp_path / "others.ckpt")
    cfg = recipe(*given, f"resume_from_checkpoint={tmp_path / 'others.ckpt'}", name="digits/any")
    cfg.run_dir, cfg.max_epochs = str(tmp_path / "new"), 3
    with pytest.raises(ValueError, match="remembers as many images, but others"):
        train(cfg)


def test_checkpoints_of_another_method_are_refused(recipe):
    cfg = recipe(*SMALL_HEAD, "max_epochs=1", name="digits/deepcluster")
    train(cfg)
    other = recipe(*SMALL_HEAD, "max_epochs=1", name="digits/selflabel")
    other.resume_from_checkpoint = f"{cfg.run_dir}/last.ckpt"
    other.run_dir = f"{cfg.run_dir}-other"
    with pytest.raises(ValueError, match="written by deepcluster, this run is of selflabel"):
        train(other)


@pytest.mark.all_digits
def test_a_run_keeps_its_cost_and_snapshots(recipe):
    cfg = recipe("snapshots=2", "max_epochs=4")
    train(cfg)
    run = Path(cfg.run_dir)
    assert sorted(p.name for p in (run / "snapshots").iterdir()) == [
        "epoch0002.ckpt",
        "epoch0004.ckpt",
    ]
    cost = json.loads((run / "cost.json").read_text())
    assert cost["images"] == 1442
    assert cost["images_per_epoch"] == 1408
    assert cost["bytes_per_image"] == 4  # two buffers of two bytes
    method = Run.open(run).load()
    assert cost["parameters_backbone"] == sum(p.numel() for p in backbone_of(method).parameters())
    last = torch.load(run / "snapshots" / "epoch0004.ckpt", weights_only=True)["state_dict"]
    for name, weight in backbone_of(method).state_dict().items():
        assert torch.equal(weight, last[f"backbone.{name}"])
