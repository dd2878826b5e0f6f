"""Other methods of a recipe under lightly, of lightly's heads and losses.

SimCLR, MoCo v2, BYOL, SwAV and DINO take the options that solo-learn's methods of these names take,
so that a recipe trains under either host. `backbone` is the network that learns; the moving
average of MoCo, BYOL and DINO stands beside it.
"""

from __future__ import annotations

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
from torch import nn

from uic_plugin.hosts.lightly_comparator import Comparator

_HEAD = {"proj_hidden_dim": 2048, "proj_output_dim": 128}
_QUEUES = "moco_queues"  # in a checkpoint


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

    def own_logits(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits (B, K) of prototypes of unit length, as a training step has them."""
        unit = F.normalize(self.project(features), dim=1)
        heads: Any = self.head["prototypes"].heads
        return [F.linear(unit, F.normalize(part.weight, dim=1), part.bias) for part in heads]

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

    def own_logits(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits (B, K) of the projector's last layer, its prototypes."""
        return [self.project(features)]

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Shorten long gradients, and keep the last layer as it is in the first epochs.

        Here they are what they are; after the backward pass those of 16 bits are still scaled.
        """
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
