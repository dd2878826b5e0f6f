"""UIC as a LightningModule in lightly: its Trainer, its evaluators, resuming, bad input."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from host_lines import LINE
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

if LINE != "lightly":
    pytest.skip("the host is not lightly: make test HOST=lightly", allow_module_level=True)

import pytorch_lightning as pl
from lightly.data import LightlyDataset
from lightly.utils.benchmarking import KNNClassifier, LinearClassifier, MetricCallback

from uic_plugin.data.center import center_view
from uic_plugin.hosts import lightly_images, load_host
from uic_plugin.hosts.detect import HostError
from uic_plugin.hosts.lightly_module import Training, _optimizer
from uic_plugin.lightly import UIC, DeepCluster, SelfLabel, UICTransform
from uic_plugin.pseudo_labels import BankSampler

SIZE, BATCH, CLASSES = 16, 64, 30


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """Some digits of each class: seven steps an epoch."""
    root = tmp_path_factory.mktemp("few")
    for part, count in (("train", 48), ("val", 10)):
        for folder in (digits / part).iterdir():
            (root / part / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                (root / part / folder.name / path.name).symlink_to(path)
    return root


def small_transform(views=1):
    return UICTransform(SIZE, views=views, cj_strength=0.5, gaussian_blur=0.0)


def loader_of(folder, **given):
    dataset = LightlyDataset(str(folder), transform=given.pop("transform", small_transform()))
    return DataLoader(dataset, BATCH, **{"shuffle": True, "drop_last": True, **given})


def centered(folder, **given):
    whole = {"transform": center_view(small_transform()), "shuffle": False, "drop_last": False}
    return loader_of(folder, **{**whole, **given})


def module(kind=UIC, **given):
    pl.seed_everything(1)
    small = {"backbone": "conv4", "backbone_kwargs": {"width": 8}, "num_pseudo_classes": CLASSES}
    return kind(BATCH, 10, 20, 0.1, **{**small, **given})


def trainer_of(folder, *callbacks, **given):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", **quiet, **given},
        callbacks=list(callbacks),
        default_root_dir=folder,
    )


def same(first, second):
    assert torch.equal(first.bank.labels, second.bank.labels)
    assert first.bank.epoch == second.bank.epoch
    weights, others = first.state_dict(), second.state_dict()
    assert weights.keys() == others.keys()
    return all(torch.equal(weights[name], others[name]) for name in weights)


class Watch(pl.Callback):
    """Keeps what each step was given and what labels it was given for."""

    def __init__(self, names):
        self.names, self.drawn, self.kinds = names, [], set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        views, targets, files, index = batch
        assert [self.names[i] for i in index.tolist()] == list(files)
        assert targets.tolist() == [int(name.split("/")[0]) for name in files]
        assert len(views) == 1
        self.drawn.append((trainer.current_epoch, pl_module.bank.targets(index).tolist()))
        self.kinds.add(type(trainer.train_dataloader.sampler))


def test_a_shuffled_loader_becomes_one_in_the_banks_order(few, tmp_path):
    loader = loader_of(few / "train", num_workers=1, persistent_workers=True)
    watch, method = Watch(loader.dataset.get_filenames()), module()
    trainer = trainer_of(tmp_path, watch)
    trainer.fit(method, loader)
    assert all(issubclass(kind, BankSampler) for kind in watch.kinds)
    for epoch in range(2):
        labels = [label for at, part in watch.drawn if at == epoch for label in part]
        counts = torch.bincount(torch.tensor(labels), minlength=CLASSES)
        quota = len(loader.dataset) // CLASSES + 1
        assert counts.max() <= quota
        assert counts.sum() >= len(loader.dataset) - BATCH
        assert counts.min() > quota / 2  # up to the cut and the batch that is left out
    assert method.bank.epoch == 2
    assert torch.bincount(method.bank.labels.long(), minlength=CLASSES).min() >= 1
    assert {"train_loss", "train_online_cls_top1", "uic_nmi"} <= set(trainer.callback_metrics)


def test_lightlys_validation_of_the_benchmark(few, tmp_path):
    """Two loaders: lightly's online k-NN and linear classifier, each epoch."""
    images = [centered(few / part) for part in ("train", "val")]
    metrics = MetricCallback()
    method = module(num_pseudo_classes=20)
    trainer_of(tmp_path, metrics, max_epochs=3).fit(method, loader_of(few / "train"), images)
    for name, least in (("val_knn_top1", 0.2), ("val_online_cls_top1", 0.05)):
        (values,) = (v for key, v in metrics.val_metrics.items() if key.startswith(name))
        assert len(values) == 3
        assert values[-1] > least


def test_lightlys_own_evaluators_take_the_module(few, tmp_path):
    method = module()
    trainer_of(tmp_path, max_epochs=3).fit(method, loader_of(few / "train"))
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    train, val = (centered(few / part) for part in ("train", "val"))
    metrics = MetricCallback()
    knn = KNNClassifier(method, 10, 20, 0.1, train_dataloader_idx=0, val_dataloader_idx=1)
    trainer_of(tmp_path, metrics).validate(knn, [train, val], verbose=False)
    (top1,) = (v for key, v in metrics.val_metrics.items() if key.startswith("val_knn_top1"))
    assert top1[0] > 0.3
    width = method.online_classifier.feature_dim
    linear = LinearClassifier(method, BATCH, feature_dim=width, num_classes=10)
    trainer = trainer_of(tmp_path, max_epochs=1)
    trainer.fit(linear, centered(few / "train", shuffle=True), val)
    assert trainer.callback_metrics["val_top1"] >= 0.1
    after = method.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", [DeepCluster, SelfLabel])
def test_the_other_methods(few, tmp_path, kind):
    method = module(kind)
    trainer_of(tmp_path).fit(method, loader_of(few / "train"))
    assert method.bank.epoch == 2
    assert len(method.bank.labels.unique()) > CLASSES / 2


def layers(width):
    """A network as lightly's examples cut it off a ResNet: features (B, D, 1, 1)."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    )


@pytest.mark.parametrize("options", [{}, {"label_view": "center"}, {"views": 2}])
def test_any_backbone_and_variants(few, tmp_path, options):
    method = module(backbone=layers(8), backbone_kwargs={}, feature_dim=8, **options)
    loader = loader_of(few / "train", transform=small_transform(options.get("views", 1)))
    trainer_of(tmp_path, max_epochs=1).fit(method, loader)
    assert method(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 8)
    assert method.bank.epoch == 1


def test_classes_of_a_benchmark_have_defaults_of_their_own():
    kind = UIC.with_defaults(backbone=lambda: layers(8), feature_dim=8, num_pseudo_classes=7)
    method = kind(batch_size_per_device=BATCH, num_classes=10, knn_k=20, knn_t=0.1)
    assert method.head.num_classes == 7
    assert method.hparams["num_pseudo_classes"] == 7


class At(pl.Callback):
    """Saves a checkpoint after some steps, in a hook that comes after the method's own."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("step", [7, 9, 12])  # an epoch boundary; within the second epoch
def test_resumed_equals_uninterrupted(few, tmp_path, step):
    loader = loader_of(few / "train")
    assert len(loader) == 7
    whole, rest = module(), module(seed=1)
    kept = tmp_path / "kept.ckpt"
    trainer_of(tmp_path / "a", At(step, kept), max_epochs=3).fit(whole, loader)
    trainer = trainer_of(tmp_path / "b", max_epochs=3)
    trainer.fit(rest, loader_of(few / "train", num_workers=1), ckpt_path=kept, weights_only=True)
    assert same(whole, rest)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import test_lightly as t
from pathlib import Path
folder, data = Path(sys.argv[1]), Path(sys.argv[2])
from pytorch_lightning.callbacks import ModelCheckpoint
kept = ModelCheckpoint(folder / "kept", every_n_train_steps=3, save_top_k=-1)
found = sorted((folder / "kept").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
trainer = t.trainer_of(folder, kept, max_epochs=4)
trainer.fit(t.module(), t.loader_of(data), ckpt_path=found[-1] if found else None)
trainer.save_checkpoint(folder / "end.ckpt")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_a_kill_it_continues_as_if_nothing_had_been(few, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))

    def start(folder):
        command = [sys.executable, str(script), str(folder), str(few / "train")]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    killed = tmp_path / "killed"
    process = start(killed)
    limit = time.monotonic() + 600
    while len(list(killed.rglob("*.ckpt"))) < 3 and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "end.ckpt").exists()
    for folder in (killed, tmp_path / "whole"):
        process = start(folder)
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()[-3000:]
    one, two = (
        torch.load(tmp_path / folder / "end.ckpt", weights_only=True)
        for folder in ("killed", "whole")
    )
    assert torch.equal(one["uic"]["bank"]["targets"], two["uic"]["bank"]["targets"])
    for name, weight in one["state_dict"].items():
        assert torch.equal(weight, two["state_dict"][name]), name


RANKS = """
import sys
sys.path.insert(0, {tests!r})
import test_lightly as t
import torch
from pathlib import Path
folder, data = Path(sys.argv[1]), Path(sys.argv[2])
drawn = []
class Watch(t.pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        drawn.append(batch[-1].tolist())
method = t.module(num_pseudo_classes=10)
trainer = t.trainer_of(folder, Watch(), devices=2, strategy="ddp")
trainer.fit(method, t.loader_of(data, num_workers=1))
torch.save((method.bank.labels, drawn), folder / f"{{trainer.global_rank}}.pt")
"""


@pytest.mark.slow
def test_two_ranks_keep_one_bank_and_share_one_order(few, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(RANKS.format(tests=str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(few / "train")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (first, mine), (second, theirs) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second)
    assert len(mine) == len(theirs) == 6  # 2 epochs of 3 steps
    quota = 480 // 10 + 1
    for epoch in (0, 1):
        steps = slice(3 * epoch, 3 * (epoch + 1))
        drawn = [index for part in (*mine[steps], *theirs[steps]) for index in part]
        assert len(drawn) == 6 * BATCH
        assert max(drawn.count(index) for index in set(drawn)) <= quota


@pytest.mark.slow
def test_the_module_is_what_a_recipe_trains(digits, recipe):
    """Two ways to one training: the same labels and weights, bit for bit."""
    from uic_plugin.report.progress import EpochReporter
    from uic_plugin.runs.folder import read_checkpoint
    from uic_plugin.runs.settings import prepare_config
    from uic_plugin.runs.training import pretrain

    given = ("scheduler.name=linear", "scheduler.interval=step", "method_kwargs.head_width=16")
    plain = ("augmentation.engine=host", "performance.disable_channel_last=true")
    cfg = recipe(*given, *plain)
    pretrain(cfg, reporter=EpochReporter("test"))
    kept = read_checkpoint(Path(cfg.run_dir) / "last.ckpt")

    prepared, source = prepare_config(recipe(*given, *plain))
    transform = load_host().augmentation(source.transforms, prepared.augmentations)
    pl.seed_everything(cfg.seed)
    small = {"backbone": "conv4", "backbone_kwargs": {"width": 8}, "seed": cfg.seed}
    method = UIC(BATCH, 10, 20, 0.1, **small, num_pseudo_classes=30, head="mlp", head_width=16)
    trainer = trainer_of(cfg.run_dir, gradient_clip_val=cfg.get("gradient_clip_val"))
    trainer.fit(method, loader_of(digits / "train", transform=transform))
    assert torch.equal(method.bank.labels.long(), kept["uic"]["bank"]["targets"].long())
    for name, weight in method.state_dict().items():
        assert torch.equal(weight, kept["state_dict"][name]), name


class NoLength(Dataset):
    def __getitem__(self, index):
        raise IndexError


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


class WithoutViews(Dataset):
    """Items that are a view alone."""

    def __len__(self):
        return 128

    def __getitem__(self, index):
        return (torch.zeros(3, SIZE, SIZE),)


class WithoutNames(WithoutViews):
    """Items (view, target) as torchvision's datasets have, without a file name."""

    def __getitem__(self, index):
        return torch.zeros(3, SIZE, SIZE), index % 10


def test_file_names_are_not_needed(tmp_path):
    method = module()
    trainer_of(tmp_path, max_epochs=1).fit(method, DataLoader(WithoutNames(), 32, shuffle=True))
    assert method.bank.epoch == 1


class PlainNames(WithoutNames):
    """`samples` that are names alone, as datasets of one's own have."""

    samples = tuple(f"{number}.jpg" for number in range(64))


def test_samples_of_another_kind_are_no_annotations(tmp_path):
    method = module()
    trainer_of(tmp_path, max_epochs=1).fit(method, DataLoader(PlainNames(), 32, shuffle=True))
    assert method.bank.epoch == 1


def test_more_annotated_classes_than_the_online_classifier_has(few, tmp_path):
    with pytest.raises(ValueError, match=r"num_classes=4, but .* 10 classes: pass num_classes=10"):
        trainer_of(tmp_path).fit(UIC(BATCH, 4, backbone="conv4"), loader_of(few / "train"))


def test_a_module_goes_into_a_file_and_comes_from_a_checkpoint(few, tmp_path):
    method = module()
    trainer = trainer_of(tmp_path, max_epochs=1)
    trainer.fit(method, loader_of(few / "train"))
    torch.save(method.cpu(), tmp_path / "module.pt")
    assert same(method, torch.load(tmp_path / "module.pt", weights_only=False))
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    again = UIC.load_from_checkpoint(tmp_path / "kept.ckpt")
    for name, weight in method.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_every_parameter_is_trained_with_lars():
    """A scalar, as a learned temperature is, has no weight decay like other vectors."""
    scale = torch.nn.Parameter(torch.ones(()))
    weight = torch.nn.Parameter(torch.ones(2, 2))
    training = Training(optimizer="lars", optimizer_kwargs={"exclude_bias_n_norm": True})
    group = {"params": [scale, weight], "lr": 0.1, "name": "all"}
    groups = _optimizer(training, [group]).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {id(scale): 0.0, id(weight): training.weight_decay}


def own_sampler(dataset):
    return WeightedRandomSampler([1.0] * len(dataset), len(dataset))


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (lambda: DataLoader(NoLength(), 32), "NoLength has no length: use LightlyDataset"),
        (lambda: DataLoader(Endless(), 32), "Endless has no length: use LightlyDataset"),
        (
            lambda: DataLoader(WithoutNames(), 32, sampler=own_sampler(WithoutNames())),
            "a sampler of its own, WeightedRandomSampler: leave out sampler=",
        ),
        (lambda: DataLoader(WithoutNames(), batch_size=None), "pass batch_size=, and shuffle=True"),
        (lambda: DataLoader(WithoutViews(), 32), "must begin with views and targets"),
        (lambda: [DataLoader(WithoutNames(), 32)], "one DataLoader over one dataset, got list"),
        (
            lambda: DataLoader(torch.utils.data.Subset(WithoutNames(), range(9)), 3),
            "9 images are fewer than 30 pseudo classes: set num_pseudo_classes to at most 9",
        ),
    ],
)
def test_a_loader_that_cannot_be_is_named(tmp_path, loader, says):
    with pytest.raises(ValueError, match=says) as error:
        trainer_of(tmp_path).fit(module(), loader())
    assert "\n" not in str(error.value)


def test_a_batch_without_indices_is_named():
    names = ("a.png", "b.png")
    batch = [torch.zeros(2, 3, SIZE, SIZE)], torch.tensor([0, 1]), names
    with pytest.raises(ValueError, match=r"\(list, Tensor, tuple\), has no indices"):
        module().training_step(batch, 0)
    with pytest.raises(ValueError, match=r"\(list, Tensor\), has no indices"):
        module().training_step(batch[:2], 0)
    with pytest.raises(ValueError, match="pass transform=UICTransform\\(views=2\\)"):
        module(views=2).training_step([*batch, torch.tensor([0, 1])], 0)
    assert lightly_images.index_of([torch.tensor([3, 4]), batch[0], batch[1]]).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_pseudo_clases": 3}, "^unknown option num_pseudo_clases; did you mean num_pseudo"),
        ({"temperature": 0}, "^temperature must be a number above 0, got 0"),
        ({"optimizer": "sdg"}, "optimizer must be one of sgd, lars, adam, adamw, got 'sdg'"),
        ({"lr": float("nan")}, "lr must be a number of at least 0"),
        ({"backbone": "resnet51", "backbone_kwargs": {}}, "unknown backbone 'resnet51': one of"),
        ({"backbone": layers(8), "backbone_kwargs": {}}, "pass feature_dim=, for a ResNet-50 2048"),
        (
            {"backbone": __import__("torchvision").models.resnet18(), "backbone_kwargs": {}},
            "set backbone.fc = nn.Identity",
        ),
    ],
)
def test_arguments_that_cannot_be_are_named(given, says):
    with pytest.raises(ValueError, match=says):
        module(**given)


@pytest.mark.parametrize(
    ("name", "version"), [("lightly", "1.4.0"), ("lightly", "2.0"), ("pytorch-lightning", "1.9.5")]
)
def test_a_wrong_version_is_named(monkeypatch, name, version):
    from uic_plugin.hosts import detect

    real = detect._version
    monkeypatch.setattr(detect, "_version", lambda asked: version if asked == name else real(asked))
    with pytest.raises(HostError, match=f"^{name} {version} is not supported: .*pip install"):
        detect.find_lightly()
