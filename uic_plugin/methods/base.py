"""What every method of this plugin has, with labels of all images or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from uic_plugin.methods.options import MethodOptions
from uic_plugin.seeding import derive_seed, seed_step

if TYPE_CHECKING:
    from uic_plugin.data.views import SharedCount

    class HostMethod(nn.Module):
        """What a host's `BaseMethod` brings."""

        features_dim: int
        batch_size: int
        num_classes: int  # annotated ones
        backbone: nn.Module
        encoder: nn.Module
        cfg: Any
        trainer: Any
        classifier: nn.Module
        knn: Any
        knn_eval: bool
        global_rank: int
        device: Any
        image_name: Callable[[int], str]  # path of an image by its index
        bad_images: SharedCount  # counts unreadable images of an epoch

        @property
        def learnable_params(self) -> Any: ...  # noqa: D102
        @property
        def _network(self) -> nn.Module: ...  # of the adapter
        def configure_callbacks(self) -> Any: ...  # noqa: D102
        def configure_optimizers(self) -> Any: ...  # noqa: D102
        def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None: ...  # noqa: D102
        def setup(self, stage: Any) -> None: ...  # noqa: D102
        def log(self, *args: Any, **kwargs: Any) -> None: ...  # noqa: D102
        def log_dict(self, *args: Any, **kwargs: Any) -> None: ...  # noqa: D102
        def on_train_epoch_start(self) -> None: ...  # noqa: D102
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None: ...  # noqa: D102
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None: ...  # noqa: D102
        def training_step(self, batch: Any, batch_idx: int) -> Any: ...  # noqa: D102

else:
    HostMethod = nn.Module


class OwnMethod:
    """A method without a host; an adapter in `uic_plugin.hosts` puts a `BaseMethod` behind it.

    An adapter calls `make_options` and `build_head(features_dim, options, seed)` in its
    constructor.

    Attributes:
        name: name of the method, in recipes and checkpoints.
        options_class: what a recipe may say.
        options: what it says.
        seed: of what it draws.
        own_loss: loss of the last step, without the host's online classifier.
    """

    name: ClassVar[str]
    options_class: ClassVar[type[MethodOptions]] = MethodOptions
    options: Any
    seed: int
    own_loss: torch.Tensor | None = None

    @classmethod
    def make_options(cls, given: Mapping[str, Any], num_classes: int) -> Any:
        """Return the options of a recipe.

        Args:
            given: the recipe's `method_kwargs`.
            num_classes: annotated classes of the dataset.

        Raises:
            ValueError: for an unknown name or an impossible value.
        """
        return cls.options_class.from_mapping(given, cls.name)

    def build_head(self, features_dim: int, options: Any, seed: int) -> None:
        """Add what the method puts on the host's backbone.

        Args:
            features_dim: width of the backbone's features.
            options: of the recipe, see `make_options`.
            seed: that the head's weights depend on.
        """
        raise NotImplementedError

    def attach_images(self, num_samples: int, fingerprint: str) -> None:
        """Take note of the images and their order, where a method keeps no labels of them."""

    def seed_draws(self, batch_idx: int) -> None:
        """Seed what a training step draws, by the step, the rank, and the batch within the step.

        Args:
            batch_idx: number of the batch within the epoch.
        """
        trainer = self.trainer  # type: ignore[attr-defined]
        within = (batch_idx,) if trainer.accumulate_grad_batches > 1 else ()
        rank = self.global_rank  # type: ignore[attr-defined]
        seed_step(derive_seed(self.seed, "step", trainer.global_step, rank, *within))

    def log_loss(self, loss: torch.Tensor) -> None:
        """Log the method's own loss; on a progress bar only where the host shows one.

        Lightning reads what is meant for a bar in every step, shown or not, and waits for it.

        Args:
            loss: scalar.
        """
        has_bar = self.trainer.progress_bar_callback is not None  # type: ignore[attr-defined]
        name = f"train_{self.name}_loss"
        self.log(  # type: ignore[attr-defined]
            name, loss.detach(), on_epoch=True, sync_dist=True, prog_bar=has_bar
        )

    def with_online_loss(
        self, own: torch.Tensor, online: torch.Tensor, annotations: torch.Tensor
    ) -> torch.Tensor:
        """Return the method's own loss plus that of the host's online classifier.

        The latter is NaN, with a gradient of 0, where no image of the batch is annotated, and
        counts as 0 then. Any other NaN or infinity stays: the classifier has diverged, and the run
        has to stop and say so.

        Args:
            own: scalar; what the method learns from, also kept in `own_loss`.
            online: scalar; the host's loss.
            annotations: (B,) classes by people, -1 for none.
        """
        self.own_loss = own.detach()
        return own + torch.where((annotations >= 0).any(), online, torch.zeros_like(online))
