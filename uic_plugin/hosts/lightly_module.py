"""What every method under lightly has: backbone, online classifier, online k-NN, an optimizer.

To lightly what `BaseMethod` is to solo-learn, made of lightly's own parts, in the style of the
modules of its benchmark: `forward` returns features, `online_classifier` and `knn_classifier` are
what the benchmark's evaluators expect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from lightly.utils.benchmarking import KNNClassifier, OnlineLinearClassifier
from lightly.utils.lars import LARS
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

from uic_plugin.hosts.lightly_knn import OnlineKNN
from uic_plugin.hosts.lightning import pl
from uic_plugin.hosts.schedules import LINEAR, schedule_factor

OPTIMIZERS = ("sgd", "lars", "adam", "adamw")
SCHEDULERS = ("none", "warmup_cosine", "cosine", "step", LINEAR)
_TOP = 5  # of lightly's accuracies, with fewer classes all of them


@dataclass(frozen=True)
class Training:
    """The optimizer of a method and its learning rate; defaults follow UIC's paper (section 4.2).

    Attributes:
        optimizer: "sgd", "lars" (lightly's), "adam" or "adamw".
        lr: learning rate at `lr_images` images of all ranks, at least 0.
        classifier_lr: that of the online classifier; None: `lr`.
        lr_images: images of a step that the rates are meant for, to which they are scaled; None:
            they are meant as they are.
        weight_decay: of all parameters but the online classifier's; at least 0.
        optimizer_kwargs: further arguments of the optimizer; SGD and LARS have a momentum of 0.9.
        schedule: "linear", "warmup_cosine", "cosine", "step" or "none".
        interval: "step" or "epoch", after which the rate changes.
        warmup_epochs: of a linear warm-up from `warmup_start_lr`.
        min_lr: at the end of a cosine.
        lr_decay_steps: epochs after which "step" divides the rate by 10.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    classifier_lr: float | None = None
    lr_images: int | None = 256
    weight_decay: float = 1e-4
    optimizer_kwargs: dict[str, Any] = field(default_factory=dict)
    schedule: str = LINEAR
    interval: str = "step"
    warmup_epochs: float = 0
    warmup_start_lr: float = 3e-5
    min_lr: float = 0.0
    lr_decay_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULERS),
            ("interval", self.interval, ("step", "epoch")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        for name, rate in (("lr", self.lr), ("weight_decay", self.weight_decay)):
            if type(rate) not in (int, float) or not 0 <= rate < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0, got {rate!r}")


class _ReturningKNN(KNNClassifier):
    """lightly's k-NN in a module, which logs what it returns.

    Lightning lets no module within another log for itself.
    """

    def log_dict(self, *_: Any, **__: Any) -> None:
        """Leave it to the module around."""


class LightlyModule(pl.LightningModule):
    """Backbone, online parts and optimizer; a method of ours goes before it.

    Args:
        backbone: images (B, 3, H, W) to features.
        feature_dim: D of the features.
        num_classes: annotated ones.
        batch_size: images of a step of one rank.
        knn_k, knn_t: neighbors and temperature of the online k-NN.
        training: optimizer and learning rate.

    Attributes:
        lr, max_epochs, scheduler, ...: what a schedule has to know, under solo-learn's names.
    """

    is_of_recipe = False  # whether messages may speak of its keys
    knn_eval = False  # of a recipe: an online k-NN on training features of the epoch

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        num_classes: int,
        batch_size: int,
        knn_k: int,
        knn_t: float,
        training: Training,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.features_dim, self.num_classes = feature_dim, num_classes
        self.batch_size = self.batch_size_per_device = batch_size
        topk = tuple(sorted({1, min(_TOP, num_classes)}))
        self.online_classifier = OnlineLinearClassifier(feature_dim, num_classes, topk)
        self.online_classifier.criterion = nn.CrossEntropyLoss(ignore_index=-1)
        self.knn_classifier = _ReturningKNN(
            model=None,
            num_classes=num_classes,
            knn_k=knn_k,
            knn_t=knn_t,
            train_dataloader_idx=0,
            val_dataloader_idx=1,
            topk=topk,
        )
        self.knn = OnlineKNN(knn_k, knn_t)
        self.optimization = training
        self.scheduler, self.scheduler_interval = training.schedule, training.interval
        self.warmup_epochs, self.warmup_start_lr = training.warmup_epochs, training.warmup_start_lr
        self.lr, self.min_lr = training.lr, training.min_lr

    @property
    def classifier(self) -> nn.Module:
        """The online classifier, under solo-learn's name."""
        return self.online_classifier

    @property
    def _network(self) -> nn.Module:
        # the layers of a ResNet but its last, as in lightly's examples, put out (B, D, 1, 1)
        is_open = isinstance(self.backbone, nn.Sequential)
        return nn.Sequential(self.backbone, nn.Flatten(1)) if is_open else self.backbone

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole training.

        Raises:
            ValueError: for a Trainer without an end.
        """
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ValueError(f"a schedule needs an end: set the Trainer's max_epochs, got {epochs}")
        return epochs

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """Groups of parameters for the optimizer."""
        rate = self.optimization.classifier_lr
        return [
            {"name": "backbone", "params": self.backbone.parameters()},
            {
                "name": "classifier",
                "params": self.online_classifier.parameters(),
                "lr": self.optimization.lr if rate is None else rate,
                "weight_decay": 0.0,
            },
        ]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D) of images (B, 3, H, W)."""
        features: torch.Tensor = self.backbone(images)
        return features.flatten(start_dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the features of views, and the loss of the online classifier on them.

        Args:
            batch: [index (B,), views, annotations (B,)].
            batch_idx: number of the batch within the epoch.

        Returns:
            `feats`, a list of one (B, D) for each view, and `loss`, a scalar.
        """
        _, views, annotations = batch
        feats = [self.backbone(view).flatten(start_dim=1) for view in views]
        known = (torch.cat(feats).detach(), annotations.repeat(len(feats)))
        loss, metrics = self.online_classifier.training_step(known, batch_idx)
        # accuracies at the end of an epoch: read in a step they would be a wait for the device
        self.log_dict(
            metrics, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(annotations)
        )
        if self.knn_eval:
            self.knn(*known)
        return {"feats": feats, "loss": loss}

    def on_train_epoch_start(self) -> None:
        """Forget features of an epoch that nobody has validated."""
        self.knn.forget()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Build lightly's k-NN from a first loader, and test it and the online classifier.

        With one loader, of test images, there is no k-NN.
        """
        images, targets = batch[0], batch[1]
        known = (self.forward(images).detach(), targets)
        metrics: dict[str, Any] = {}
        if self._has_knn_images():
            metrics.update(
                self.knn_classifier.validation_step(known, batch_idx, dataloader_idx) or {}
            )
            if dataloader_idx == self.knn_classifier.train_dataloader_idx:
                return
        elif self.knn_eval:
            self.knn(test_features=known[0], test_targets=targets)
        metrics.update(self.online_classifier.validation_step(known, batch_idx)[1])
        self.log_dict(metrics, prog_bar=True, sync_dist=True, batch_size=len(targets))

    def on_validation_epoch_end(self) -> None:
        """Log the k-NN of a recipe, and forget the features of both."""
        self.knn_classifier.reset_storage()
        accuracy = self.knn.accuracy() if self.knn_eval else None
        if accuracy is not None:
            self.log("val_knn_acc1", accuracy)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        training = self.optimization
        scale = 1.0
        if training.lr_images:
            scale = self.batch_size_per_device * self.trainer.world_size / training.lr_images
        self.lr = training.lr * scale
        groups = [
            {**group, "lr": group["lr"] * scale if "lr" in group else self.lr}
            for group in self.learnable_params
        ]
        optimizer = _optimizer(training, groups)
        if self.scheduler == "none":  # also while a schedule of ours takes its place
            return optimizer
        if self.scheduler == "step":
            steps = list(training.lr_decay_steps)
            return [optimizer], [MultiStepLR(optimizer, steps)]
        progress = getattr(self, "progress", None)  # of a run with a budget of seconds
        factor = schedule_factor(self, self.scheduler, self.scheduler_interval, progress)
        when = "step" if progress else self.scheduler_interval
        return [optimizer], [{"scheduler": LambdaLR(optimizer, factor), "interval": when}]

    def _has_knn_images(self) -> bool:
        loaders = self.trainer.val_dataloaders
        return isinstance(loaders, (list, tuple)) and len(loaders) > 1


def _optimizer(training: Training, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer of groups of parameters with their learning rates."""
    given = {"weight_decay": training.weight_decay, **training.optimizer_kwargs}
    if training.optimizer in ("adam", "adamw"):
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        return kinds[training.optimizer](groups, lr=training.lr, **given)
    given.setdefault("momentum", 0.9)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.lr, **given)
    given.pop("clip_lr", None)  # of solo-learn's LARS alone
    if "eta" in given:
        given["trust_coefficient"] = given.pop("eta")
    without_norms = given.pop("exclude_bias_n_norm", False)
    return LARS(_without_decay(groups) if without_norms else groups, lr=training.lr, **given)


def _without_decay(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split groups so that biases and the parameters of normalisation have no weight decay."""
    split = []
    for group in groups:
        parameters = list(group["params"])
        plain = [parameter for parameter in parameters if parameter.ndim <= 1]
        rest = [parameter for parameter in parameters if parameter.ndim > 1]
        split.append({**group, "params": rest})
        split.append({**group, "params": plain, "weight_decay": 0.0, "name": f"{group['name']}_1d"})
    return split
