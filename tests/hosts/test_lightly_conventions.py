"""What lightly's own tests ask of its heads, transforms and modules, asked of uic_plugin.lightly.

Each test names the file of lightly's repository whose questions it asks, with the utilities of the
installed lightly; no code of theirs is copied.
"""

import copy
import math

import pytest
from host_lines import LINE

if LINE != "lightly":
    pytest.skip("the host is not lightly: make test HOST=lightly", allow_module_level=True)

import lightly
import torch
from lightly.data import LightlyDataset
from lightly.data.multi_view_collate import MultiViewCollate
from lightly.embedding import SelfSupervisedEmbedding
from lightly.models.modules.heads import SwaVPrototypes
from lightly.models.utils import (
    activate_requires_grad,
    deactivate_requires_grad,
    get_weight_decay_parameters,
    normalize_weight,
    update_momentum,
)
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.transforms.simclr_transform import SimCLRViewTransform
from lightly.utils import debug
from lightly.utils.benchmarking import (
    BenchmarkModule,
    FinetuneClassifier,
    KNNClassifier,
    LinearClassifier,
    MetricCallback,
)
from lightly.utils.optim import update_param_groups
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from uic_plugin.lightly import UIC, UICHead, UICTransform, transform

WIDTHS = [(8, 16, 32), (32, 16, 8)]


def fake(**given):
    """Return lightly's dataset of torchvision's ten random images, as its own tests use it."""
    images = FakeData(10, image_size=(3, 32, 32), num_classes=2, **given)
    return LightlyDataset.from_torch_dataset(images)


def make_uic(**given):
    """Return a small UIC and its trainer's usual arguments."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16))
    return UIC(2, 2, knn_k=1, backbone=network, feature_dim=16, num_pseudo_classes=3, **given)


def make_trainer(tmp_path, **given):
    given = {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "logger": False, **given}
    given.setdefault("enable_checkpointing", False)
    return Trainer(default_root_dir=tmp_path, enable_progress_bar=False, **given)


def val_metric(metrics, name):
    """Return a metric's values; Lightning adds the number of the loader to names of two loaders."""
    (found,) = [key for key in metrics.val_metrics if key.split("/")[0] == name]
    return metrics.val_metrics[found]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a UIC after two epochs, its trainer, and what lightly's callback collected."""
    metrics = MetricCallback()
    early = EarlyStopping(monitor="train_loss", patience=int(1e12), check_finite=True)
    model = make_uic()
    trainer = make_trainer(tmp_path_factory.mktemp("fit"), callbacks=[early, metrics])
    train = DataLoader(fake(transform=UICTransform(32)), batch_size=2, shuffle=True)
    plain = DataLoader(fake(transform=ToTensor()), batch_size=2)
    trainer.fit(model, train, [plain, plain])
    return model, trainer, metrics


# tests/models/test_ProjectionHeads.py


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("hidden", [False, True])
def test_head_is_called_as_prototypes(widths, batch_size, hidden):
    """`SwaVPrototypes(input_dim, n_prototypes)`; a hidden width comes by name alone."""
    width, middle, classes = widths
    head = UICHead(width, classes, hidden_dim=middle if hidden else 0).eval()
    features = torch.rand(batch_size, width)
    with torch.no_grad():
        assert head(features).shape == SwaVPrototypes(width, classes).eval()(features).shape


# tests/models/test_ModelUtils.py


def test_head_goes_through_the_model_utilities():
    """Weight decay without norms and biases, freezing, momentum copy, normalized prototypes."""
    head = UICHead(8, 5, hidden_dim=16)
    decayed, others = get_weight_decay_parameters([head])
    assert len(decayed) + len(others) == len(list(head.parameters()))
    assert all(parameter.ndim > 1 for parameter in decayed)
    momentum = copy.deepcopy(head)
    deactivate_requires_grad(momentum)
    assert not any(parameter.requires_grad for parameter in momentum.parameters())
    with torch.no_grad():
        head.classifier.weight += 1
    before = momentum.classifier.weight.clone()
    update_momentum(head, momentum, 0.5)
    assert torch.allclose(momentum.classifier.weight, before + 0.5)
    activate_requires_grad(momentum)
    assert all(parameter.requires_grad for parameter in momentum.parameters())
    normalize_weight(head.classifier.weight, dim=1)
    assert torch.allclose(head.classifier.weight.norm(dim=1), torch.ones(5))


# tests/transforms/test_simclr_transform.py, test_multi_view_transform.py


@pytest.mark.parametrize("views", [1, 2, 3])
def test_transform_makes_a_list_of_tensors_of_a_pil_image(views):
    made = UICTransform(32, views)(Image.new("RGB", (100, 100)))
    assert isinstance(made, list)
    assert len(made) == views
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.float32 for view in made)


def test_transform_is_lightlys_kind_and_takes_its_arguments():
    made = UICTransform(32, cj_strength=0.5, gaussian_blur=0.0, normalize=None)
    assert isinstance(made, MultiViewTransform)
    assert isinstance(transform, MultiViewTransform)
    assert isinstance(made.transforms[0], SimCLRViewTransform)
    (view,) = made(Image.new("RGB", (100, 100), (255, 0, 0)))
    assert view.min() >= 0
    assert view.max() <= 1


# tests/utils/test_debug.py


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_debug_draws_what_the_transform_does(views, count):
    images = [Image.new("RGB", (100, 100), (200, 10 * number, 0)) for number in range(count)]
    grid = debug.generate_grid_of_augmented_images(images, UICTransform(32, views))
    assert [len(row) for row in grid] == [count] * views
    assert all(view.size == (32, 32) for row in grid for view in row)
    assert debug.plot_augmented_images(images, UICTransform(32, views)) is not None


def test_debug_measures_the_spread_of_features_and_logits():
    torch.manual_seed(0)
    model = make_uic().eval()
    with torch.no_grad():
        features = model(torch.randn(32, 3, 32, 32))
        logits = UICHead(16, 10)(features)
    for output in (features, logits):
        spread = float(debug.std_of_l2_normalized(output))
        assert 0 < spread <= 1 / math.sqrt(output.shape[1]) + 1e-5


# tests/data/test_MultiViewCollate.py, test_LightlyDataset.py


@pytest.mark.parametrize("count", [1, 3])
def test_views_go_through_the_multi_view_collate(count):
    items = [(UICTransform(32, 2)(Image.new("RGB", (40, 40))), 1, "a.jpg")] * count
    views, labels, names = MultiViewCollate()(items)
    assert [tuple(view.shape) for view in views] == [(count, 3, 32, 32)] * 2
    assert len(labels) == len(names) == count


def test_module_trains_with_the_multi_view_collate(tmp_path):
    loader = DataLoader(
        fake(transform=UICTransform(32)), batch_size=2, shuffle=True, collate_fn=MultiViewCollate()
    )
    model = make_uic()
    make_trainer(tmp_path, max_epochs=1).fit(model, loader)
    assert model.bank.epoch == 1


# tests/utils/benchmarking/test_metric_callback.py, benchmarks/imagenet/resnet50/main.py


def test_metrics_have_one_value_per_epoch_under_lightlys_names(trained):
    model, _, metrics = trained
    assert model.bank.epoch == 2
    assert len(metrics.train_metrics["train_loss"]) == 2
    for name in ("val_knn_top1", "val_online_cls_top1", "val_online_cls_loss"):
        assert len(val_metric(metrics, name)) == 2
    assert all(math.isfinite(value) for value in metrics.train_metrics["train_loss"])


def test_learning_rate_monitor_reads_the_groups(tmp_path):
    """The benchmark's `main.py` adds this callback; group names have to differ."""
    loader = DataLoader(fake(transform=UICTransform(32)), batch_size=2, shuffle=True)
    trainer = make_trainer(tmp_path, logger=True, callbacks=[LearningRateMonitor()], max_epochs=1)
    trainer.fit(make_uic(), loader)


def test_own_knn_of_the_module_finds_the_images_themselves(trained):
    """test_benchmark_module.py: with k = 1 and the same images to train and test it is 1."""
    assert val_metric(trained[2], "val_knn_top1")[-1] == pytest.approx(1.0)


# tests/utils/benchmarking/test_knn_classifier.py, test_linear_classifier.py


def test_knn_classifier_takes_the_module(trained, tmp_path):
    plain = DataLoader(fake(transform=ToTensor()), batch_size=2)
    knn = KNNClassifier(trained[0], 2, 1, 0.1, 0, 1, topk=(1, 2))
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.validate(knn, [plain, plain], verbose=False)
    values = {name.split("/")[0]: float(value) for name, value in trainer.callback_metrics.items()}
    assert values["val_knn_top1"] == pytest.approx(1.0), values
    assert values["val_knn_top2"] == pytest.approx(1.0)


@pytest.mark.parametrize("freeze", [True, False])
def test_linear_classifier_takes_the_module(trained, tmp_path, freeze):
    model = make_uic()
    model.load_state_dict(trained[0].state_dict())
    plain = DataLoader(fake(transform=ToTensor()), batch_size=2)
    before = model.backbone[1].weight.clone()
    kind = LinearClassifier if freeze else FinetuneClassifier
    linear = kind(model, 2, 0.1, feature_dim=16, num_classes=2, topk=(1, 2))
    head = linear.classification_head.weight.clone()
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(linear, plain, plain)
    assert torch.equal(before, model.backbone[1].weight) == freeze
    assert not torch.equal(head, linear.classification_head.weight)
    for name in ("train_loss", "train_top1", "val_loss", "val_top1", "val_top2"):
        assert name in trainer.callback_metrics


# tests/utils/benchmarking/test_benchmark_module.py


def test_benchmark_module_takes_the_backbone(trained, tmp_path):
    plain = DataLoader(fake(transform=ToTensor()), batch_size=2)
    module = BenchmarkModule(plain, num_classes=2, knn_k=1)
    module.backbone = trained[0].backbone
    make_trainer(tmp_path, max_epochs=1).validate(module, plain, verbose=False)
    assert module.max_accuracy == 1.0


# lightly/embedding, tests/utils/test_optim.py, checkpoints


def test_embedding_takes_the_module(trained):
    plain = DataLoader(fake(transform=ToTensor()), batch_size=2)
    embedding = SelfSupervisedEmbedding(trained[0], None, None, plain)
    features, targets, names = embedding.embed(plain, torch.device("cpu"))
    assert features.shape == (10, 16)
    assert len(targets) == len(names) == 10


def test_optimizer_groups_have_names_of_their_own(trained):
    optimizer = trained[1].optimizers[0]
    update_param_groups(optimizer, updates=[{"name": "head", "lr": 0.5}])
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert len(rates) == len(optimizer.param_groups)
    assert rates["head"] == 0.5


def test_weights_load_into_a_new_module(trained):
    make_uic().load_state_dict(trained[0].state_dict(), strict=True)


@pytest.mark.parametrize("is_trained", [False, True])
def test_module_can_be_copied(trained, is_trained):
    """As lightly's MoCo, BYOL and DINO copy theirs; Lightning leaves the trainer out of copies."""
    copied = copy.deepcopy(trained[0] if is_trained else make_uic())
    assert copied.backbone[1].weight.shape == (16, 3 * 32 * 32)


class Plain(LightningModule):
    """A module with no more than lightly's examples have, to compare."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16))

    def training_step(self, batch, batch_idx):
        return self.backbone(batch[0][0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_plain_module_can_be_copied_after_training(tmp_path):
    model = Plain()
    loader = DataLoader(fake(transform=UICTransform(32)), batch_size=2, shuffle=True)
    make_trainer(tmp_path, max_epochs=1).fit(model, loader)
    copy.deepcopy(model)


# tests/backbones/test_conformance.py, of lightly's main


def test_backbones_of_lightlys_main():
    backbones = pytest.importorskip("lightly.backbones", reason=f"not in {lightly.__version__}")
    assert backbones
