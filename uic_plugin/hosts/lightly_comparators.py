"""Other methods of a recipe under lightly, of lightly's heads and losses.

SimCLR, MoCo v2, BYOL, SwAV and DINO take the options that solo-learn's methods of these names take,
so that a recipe trains under either host. `backbone` is the network that learns; the moving
average of MoCo, BYOL and DINO stands beside it.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss, SwaVLoss
from lightly.models.modules import (
    BYOLPredictionHead,
    BYOLProjectionHead,
    DINOProjectionHead,
    MoCoProjectionHead,
    SimCLRProjectionHead,
    SwaVProjectionHead,
    SwaVPrototypes,
)
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from uic_plugin.hosts.hosted_method import HostedMethod
from uic_plugin.hosts.lightly_images import parts_of
from uic_plugin.hosts.lightly_module import LightlyModule, Training
from uic_plugin.hosts.lightly_network import build_backbone
from uic_plugin.hosts.online_classifier import keep_gradients_finite

_HEAD = {"proj_hidden_dim": 2048, "proj_output_dim": 128}
_MOMENTUM = {"base_tau": 0.99, "final_tau": 1.0}
_QUEUES = "moco_queues"  # in a checkpoint


class Comparator(HostedMethod, LightlyModule):  # type: ignore[misc]  # of their own `log`
    """A backbone and a method's own parts, learned from two views of each image.

    Args:
        batch_size_per_device, num_classes, knn_k, knn_t: see `LightlyModule`.
        backbone, backbone_kwargs: see `build_backbone`.
        training: optimizer and learning rate.
        given: options of the method; `defaults` has their names.

    Attributes:
        defaults: options and their values.
        head: what the method puts on the backbone and learns.
        averaged: moving average of backbone and projector, of methods that have one.

    Raises:
        ValueError: for an unknown option.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    has_average: ClassVar[bool] = False
    averaged: nn.Sequential | None

    def __init__(
        self,
        batch_size_per_device: int,
        num_classes: int,
        knn_k: int,
        knn_t: float,
        *,
        backbone: str,
        backbone_kwargs: dict[str, Any],
        training: Training,
        **given: Any,
    ) -> None:
        network, width = build_backbone(backbone, **backbone_kwargs)
        super().__init__(
            network,
            width,
            num_classes=max(num_classes, 1),
            batch_size=batch_size_per_device,
            knn_k=knn_k,
            knn_t=knn_t,
            training=training,
        )
        known = {**self.defaults, **(_MOMENTUM if self.has_average else {})}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(
                f"{self.name} of lightly does not take {', '.join(unknown)}: it takes "
                f"{', '.join(known)}"
            )
        self.given = {**known, **given}
        keep_gradients_finite(self.online_classifier)
        self.head = self.make_head(width)
        self.averaged = None
        if self.has_average:
            # made anew: weight normalisation, which DINO's has, does not let itself be copied
            projector = self.make_head(width)["projector"]
            projector.load_state_dict(self.head["projector"].state_dict())
            parts = nn.Sequential(copy.deepcopy(network), projector)
            self.averaged = parts.requires_grad_(False)

    @property
    def momentum_backbone(self) -> nn.Module | None:
        """The moving average of the backbone, under solo-learn's name; None without one."""
        return None if self.averaged is None else self.averaged[0]

    def make_head(self, width: int) -> nn.ModuleDict:
        """Return the method's parts, `projector` among them, for features (B, width)."""
        raise NotImplementedError

    def own(self, views: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """Return the method's loss, a scalar.

        Args:
            views: (B, C, H, W) each.
            features: (B, D) of each view.
        """
        raise NotImplementedError

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The module's groups of parameters, and the head."""
        return [*super().learnable_params, {"name": "head", "params": self.head.parameters()}]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the method's loss plus that of lightly's online classifier.

        Raises:
            ValueError: for fewer than two views of each image.
        """
        index, views, annotations = parts_of(batch)
        if len(views) < 2:
            raise ValueError(
                f"{self.name} learns from two views of each image, the augmentation makes "
                f"{len(views)}: set augmentations.0.num_crops=2"
            )
        if self.averaged is not None:
            self._move_average(self.averaged)
        outs = super().training_step([index, views, annotations], batch_idx)
        loss = self.own(views, outs["feats"])
        self.log_loss(loss)
        return self.with_online_loss(loss, outs["loss"], annotations)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Return projections (B, P) of features (B, D)."""
        projections: torch.Tensor = self.head["projector"](features)
        return projections

    @torch.no_grad()
    def teach(self, view: torch.Tensor) -> torch.Tensor:
        """Return projections (B, P) of a view by the moving average."""
        network, projector = self.averaged.children()  # type: ignore[union-attr]
        projections: torch.Tensor = projector(network(view).flatten(start_dim=1))
        return projections

    def _move_average(self, averaged: nn.Sequential) -> None:
        """Move the average towards the present weights."""
        momentum = cosine_schedule(
            step=min(self.trainer.global_step, int(self.trainer.estimated_stepping_batches)),
            max_steps=int(self.trainer.estimated_stepping_batches),
            start_value=self.given["base_tau"],
            end_value=self.given["final_tau"],
        )
        network, projector = averaged.children()
        update_momentum(self.backbone, network, m=momentum)
        update_momentum(self.head["projector"], projector, m=momentum)


class SimCLR(Comparator):
    """Chen et al. (2020): the other view of an image among all views of the batch."""

    name = "simclr"
    defaults: ClassVar[dict[str, Any]] = {**_HEAD, "temperature": 0.1}

    def make_head(self, width: int) -> nn.ModuleDict:
        """Return lightly's projector."""
        given = self.given
        self.criterion = NTXentLoss(given["temperature"], gather_distributed=dist.is_available())
        sizes = (width, given["proj_hidden_dim"], given["proj_output_dim"])
        return nn.ModuleDict({"projector": SimCLRProjectionHead(*sizes)})

    def own(self, views: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """Return NT-Xent of the two views."""
        first, second = self.project(torch.cat(features[:2])).chunk(2)
        loss: torch.Tensor = self.criterion(first, second)
        return loss


class MoCo(Comparator):
    """He et al. (2020), v2: the average's projection of the other view among those of a queue."""

    name = "mocov2plus"
    has_average = True
    defaults: ClassVar[dict[str, Any]] = {**_HEAD, "temperature": 0.2, "queue_size": 65536}

    def make_head(self, width: int) -> nn.ModuleDict:
        """Return lightly's projector."""
        given = self.given
        if not hasattr(self, "criteria"):
            # a queue for each view: in a common one a view meets its own key as another image's
            self.criteria = nn.ModuleList(self._criterion() for _ in range(2))
        sizes = (width, given["proj_hidden_dim"], given["proj_output_dim"])
        return nn.ModuleDict({"projector": MoCoProjectionHead(*sizes)})

    def _criterion(self) -> NTXentLoss:
        given = self.given
        return NTXentLoss(
            given["temperature"],
            memory_bank_size=(given["queue_size"], given["proj_output_dim"]),
            gather_distributed=dist.is_available(),
        )

    def _queues(self) -> dict[str, torch.Tensor]:
        """Return the queues and their positions, which lightly keeps out of a module's state."""
        return {
            name: tensor
            for name, tensor in self.criteria.named_buffers()
            if name.endswith(("bank", "bank_ptr"))
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the queues."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[_QUEUES] = {name: tensor.clone() for name, tensor in self._queues().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the queues over; a checkpoint of an earlier release has none."""
        super().on_load_checkpoint(checkpoint)
        own = self._queues()
        for name, tensor in checkpoint.get(_QUEUES, {}).items():
            own[name].copy_(tensor)

    def own(self, views: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss of both views, each against the other's projection."""
        pairs = ((features[0], views[1]), (features[1], views[0]))
        losses = [
            criterion(self.project(seen), self.teach(view))
            for criterion, (seen, view) in zip(self.criteria, pairs, strict=True)
        ]
        return torch.stack(losses).mean()


class BYOL(Comparator):
    """Grill et al. (2020): predict the average's projection of the other view."""

    name = "byol"
    has_average = True
    defaults: ClassVar[dict[str, Any]] = {**_HEAD, "pred_hidden_dim": 4096}

    def make_head(self, width: int) -> nn.ModuleDict:
        """Return lightly's projector and predictor."""
        given = self.given
        hidden, output = given["proj_hidden_dim"], given["proj_output_dim"]
        self.criterion = NegativeCosineSimilarity()
        return nn.ModuleDict(
            {
                "projector": BYOLProjectionHead(width, hidden, output),
                "predictor": BYOLPredictionHead(output, given["pred_hidden_dim"], output),
            }
        )

    def own(self, views: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """Return the distance of both predictions, each from the other's projection."""
        pairs = ((features[0], views[1]), (features[1], views[0]))
        losses = [
            2 * self.criterion(self.head["predictor"](self.project(seen)), self.teach(view))
            for seen, view in pairs
        ]
        return torch.stack(losses).sum()


class SwAV(Comparator):
    """Caron et al. (2020): predict the other view's balanced assignment to prototypes."""

    name = "swav"
    defaults: ClassVar[dict[str, Any]] = {
        **_HEAD,
        "num_prototypes": 3000,
        "temperature": 0.1,
        "freeze_prototypes_epochs": 1,
        "sk_iters": 3,
        "sk_epsilon": 0.05,
        "queue_size": 0,
        "epoch_queue_starts": 0,
    }

    def make_head(self, width: int) -> nn.ModuleDict:
        """Return lightly's projector and prototypes."""
        given = self.given
        if given["queue_size"]:
            raise ValueError(
                f"swav of lightly has no queue here: set method_kwargs.queue_size=0, got "
                f"{given['queue_size']}"
            )
        self.criterion = SwaVLoss(
            temperature=given["temperature"],
            sinkhorn_iterations=given["sk_iters"],
            sinkhorn_epsilon=given["sk_epsilon"],
            sinkhorn_gather_distributed=dist.is_available(),
        )
        output = given["proj_output_dim"]
        prototypes = SwaVPrototypes(output, given["num_prototypes"])
        projector = SwaVProjectionHead(width, given["proj_hidden_dim"], output)
        return nn.ModuleDict({"projector": projector, "prototypes": prototypes})

    def own(self, views: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """Return the swapped prediction's loss."""
        prototypes: Any = self.head["prototypes"]
        prototypes.normalize()
        logits = [prototypes(F.normalize(self.project(seen), dim=1)) for seen in features[:2]]
        loss: torch.Tensor = self.criterion(logits, [])
        return loss

    def on_after_backward(self) -> None:
        """Keep the prototypes as they are in the first epochs.

        They have gradients all the same: several ranks wait for those of every parameter.
        """
        if self.current_epoch < self.given["freeze_prototypes_epochs"]:
            for parameter in self.head["prototypes"].parameters():
                parameter.grad = None


class DINO(Comparator):
    """Caron et al. (2021): predict the average's centered, sharpened answer to the other view."""

    name = "dino"
    has_average = True
    defaults: ClassVar[dict[str, Any]] = {
        "proj_hidden_dim": 2048,
        "proj_output_dim": 256,
        "num_prototypes": 65536,
        "clip_grad": 0,
        "freeze_last_layer": 1,
        "norm_last_layer": True,
        "use_bn_in_head": True,
        "student_temperature": 0.1,
        "teacher_temperature": 0.07,
        "warmup_teacher_temperature": 0.04,
        "warmup_teacher_temperature_epochs": 0,
    }

    def make_head(self, width: int) -> nn.ModuleDict:
        """Return lightly's projector, prototypes included."""
        given = self.given
        self.criterion = DINOLoss(
            output_dim=given["num_prototypes"],
            warmup_teacher_temp=given["warmup_teacher_temperature"],
            teacher_temp=given["teacher_temperature"],
            warmup_teacher_temp_epochs=given["warmup_teacher_temperature_epochs"],
            student_temp=given["student_temperature"],
        )
        projector = DINOProjectionHead(
            width,
            given["proj_hidden_dim"],
            given["proj_output_dim"],
            given["num_prototypes"],
            batch_norm=given["use_bn_in_head"],
            freeze_last_layer=given["freeze_last_layer"],
            norm_last_layer=given["norm_last_layer"],
        )
        return nn.ModuleDict({"projector": projector})

    def own(self, views: list[torch.Tensor], features: list[torch.Tensor]) -> torch.Tensor:
        """Return the cross-entropy of each view with the average's answer to the other."""
        answers = [self.project(seen) for seen in features[:2]]
        taught = [self.teach(view) for view in views[:2]]
        loss: torch.Tensor = self.criterion(taught, answers, epoch=self.current_epoch)
        return loss

    def on_after_backward(self) -> None:
        """Shorten long gradients, and keep the last layer as it is in the first epochs."""
        if self.given["clip_grad"]:
            parts = (self.backbone, self.head)
            found = [p.grad for part in parts for p in part.parameters() if p.grad is not None]
            norms = torch.stack(torch._foreach_norm(found))
            factors = (self.given["clip_grad"] / (norms + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(found, list(factors.unbind()))
        projector: Any = self.head["projector"]
        projector.cancel_last_layer_gradients(self.current_epoch)


COMPARATORS: dict[str, type[Comparator]] = {
    kind.name: kind for kind in (SimCLR, MoCo, BYOL, SwAV, DINO)
}
