"""What every method of this plugin has, with labels of all images or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from uic_plugin.methods.options import MethodOptions

if TYPE_CHECKING:

    class HostMethod(nn.Module):
        """What a host's `BaseMethod` brings."""

        features_dim: int
        batch_size: int
        backbone: nn.Module
        encoder: nn.Module
        cfg: Any
        trainer: Any
        classifier: nn.Module
        knn: Any
        knn_eval: bool
        global_rank: int
        device: Any
        learnable_params: Any
        _network: nn.Module  # of the adapter

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
        name: of the method, in recipes and checkpoints.
        options_class: what a recipe may say.
        options: what it says.
    """

    name: ClassVar[str]
    options_class: ClassVar[type[MethodOptions]] = MethodOptions
    options: Any

    @classmethod
    def make_options(cls, given: Mapping[str, Any], num_classes: int) -> Any:
        """Options from a recipe.

        Args:
            given: the recipe's `method_kwargs`.
            num_classes: annotated classes of the dataset.

        Raises:
            ValueError: for an unknown name or an impossible value.
        """
        return cls.options_class.from_mapping(given, cls.name)

    def attach_images(self, num_samples: int) -> None:
        """Told the number of images, where a method keeps no labels of them."""
