"""Methods of ours as lightly's modules: what a Trainer of lightly's benchmark can train."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch

from uic_plugin.data.images import annotations_of
from uic_plugin.hosts.attach import attach_method
from uic_plugin.hosts.hosted_method import HostedMethod
from uic_plugin.hosts.lightly_images import index_of, numbered_loader, parts_of
from uic_plugin.hosts.lightly_module import LightlyModule, Training
from uic_plugin.hosts.lightly_network import Backbone, build_backbone
from uic_plugin.hosts.online_classifier import keep_gradients_finite

_TRAINING = tuple(field.name for field in dataclasses.fields(Training))
# what messages call by the names of a recipe has names of its own here
_OWN_WORDS = {"method_kwargs.": "", "optimizer.batch_size": "batch_size"}


class LightlyMethod(HostedMethod, LightlyModule):  # type: ignore[misc]  # of their own `log`
    """Stands behind a class of `uic_plugin.methods`, `LightlyFront` before it."""

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The module's groups of parameters, and the head: one optimizer for all."""
        head = getattr(self, "head", None)
        groups = super().learnable_params
        return groups if head is None else [*groups, {"name": "head", "params": head.parameters()}]

    def setup(self, stage: str) -> None:
        """Find the images by their index, and take over their order.

        Raises:
            ValueError: for a loader whose images have no index, or an order of its own.
        """
        super().setup(stage)
        if stage != "fit":
            return
        source = self.trainer.fit_loop._data_source
        with nullcontext() if self.is_of_recipe else own_words():
            source.instance = numbered_loader(source.dataloader())
            _check_classes(source.instance.dataset, self.num_classes)
            source.name = ""  # no longer a method of a module or of a data module
            self.batch_size = source.instance.batch_size
            attach_method(self, source)


def _check_classes(dataset: Any, num_classes: int) -> None:
    """Refuse annotations, which the online classifier learns, of more classes than it has."""
    targets = annotations_of(dataset)
    most = -1 if targets is None or not len(targets) else int(targets.max())
    if most >= num_classes:
        raise ValueError(
            f"num_classes={num_classes}, but the images are annotated with {most + 1} classes: "
            f"pass num_classes={most + 1}, which only the online classifier and k-NN use"
        )


class LightlyFront:
    """Stands before a class of `uic_plugin.methods`: what lightly calls, in its signatures.

    Args:
        batch_size_per_device: images of a step of one rank; learning rates are scaled to it.
        num_classes: annotated classes, for the online classifier and k-NN alone.
        knn_k, knn_t: neighbors and temperature of the online k-NN.
        backbone: see `build_backbone`; lightly's benchmark has a ResNet-50.
        feature_dim: width of its features, where it does not say it.
        seed: of head, labels, order and views; by default that of `seed_everything`, or 0.
        training: optimizer and learning rate; by default those of UIC's paper.
        given: fields of `Training` to change, as `lr=0.2`, and options of the method, as
            `num_pseudo_classes=100`.

    Raises:
        ValueError: for an unknown name, listing the valid ones, or an impossible value.
    """

    name: ClassVar[str]

    def __init__(
        self,
        batch_size_per_device: int,
        num_classes: int,
        knn_k: int = 200,
        knn_t: float = 0.1,
        *,
        backbone: Backbone = "resnet50",
        feature_dim: int | None = None,
        backbone_kwargs: dict[str, Any] | None = None,
        seed: int | None = None,
        training: Training | None = None,
        **given: Any,
    ) -> None:
        changed = {name: given.pop(name) for name in _TRAINING if name in given}
        training = dataclasses.replace(training or Training(), **changed)
        module: Any = self  # with all the classes behind this one
        with own_words():
            options = module.make_options(given, num_classes)
        network, width = build_backbone(backbone, feature_dim, **(backbone_kwargs or {}))
        super().__init__(
            network,  # type: ignore[call-arg]
            width,
            num_classes=max(num_classes, 1),
            batch_size=batch_size_per_device,
            knn_k=knn_k,
            knn_t=knn_t,
            training=training,
        )
        if seed is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        keep_gradients_finite(module.online_classifier)
        module.build_head(width, options, seed)
        module.seed = seed
        kept: dict[str, Any] = {
            "batch_size_per_device": batch_size_per_device,
            "num_classes": num_classes,
        }
        kept |= {"knn_k": knn_k, "knn_t": knn_t, "seed": seed, **options.as_dict()}
        kept |= {"feature_dim": feature_dim, "backbone_kwargs": backbone_kwargs}
        if isinstance(backbone, str):  # else `load_from_checkpoint` has to be given it
            kept["backbone"] = backbone
        module.save_hyperparameters({**kept, **dataclasses.asdict(training)})

    @classmethod
    def with_defaults(cls, **defaults: Any) -> Any:
        """Return this class with other defaults: what goes into the `METHODS` of a benchmark.

        Args:
            defaults: see the class, as `backbone="resnet18", num_pseudo_classes=100`.
        """

        def __init__(
            self: Any,
            batch_size_per_device: int,
            num_classes: int,
            knn_k: int = 200,
            knn_t: float = 0.1,
            **given: Any,
        ) -> None:
            whole = {**defaults, **given}
            cls.__init__(self, batch_size_per_device, num_classes, knn_k, knn_t, **whole)

        names = {"__init__": __init__, "__module__": cls.__module__, "__doc__": cls.__doc__}
        return type(cls.__name__, (cls,), names)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D) of images (B, 3, H, W), which lightly's evaluators take."""
        return LightlyModule.forward(self, images)  # type: ignore[arg-type]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the method's own loss plus that of lightly's online classifier.

        Args:
            batch: [views, targets, file names, index], see `numbered_loader`; or this package's own
                [index, views, annotations].
            batch_idx: number of the batch within the epoch.

        Raises:
            ValueError: for a batch without indices, or with too few views.
        """
        module: Any = self
        index, views, annotations = parts_of(batch)
        options = module.options
        wanted = options.views + options.small_crops
        if len(views) < wanted:
            raise ValueError(
                f"views={options.views} needs {wanted} views of each image, the transform makes "
                f"{len(views)}: pass transform=UICTransform(views={wanted})"
            )
        step: Any = super().training_step  # type: ignore[misc]
        loss: torch.Tensor = step([index, views, annotations], batch_idx)
        if module.own_loss is not None:
            # lightly's name, which its benchmark watches
            module.log("train_loss", module.own_loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def index_of(self, batch: Any) -> torch.Tensor | None:
        """Return the indices (B,) of a batch's images, None where it has none."""
        return index_of(batch)


@functools.cache
def hosted(core: Any) -> Any:
    """Return a method of ours as a class of lightly's modules, the same one every time."""
    name = core.__name__.removeprefix("Varied")
    doc = f"{name} as a LightningModule of lightly's.{_ARGS}"
    names = {"__doc__": doc, "__module__": __name__}
    kind = type(name, (LightlyFront, core, LightlyMethod), names)
    setattr(sys.modules[__name__], name, kind)  # where pickle looks for it
    return kind


_ARGS = (LightlyFront.__doc__ or "").partition("signatures.")[2]


@contextmanager
def own_words() -> Iterator[None]:
    """Turn the names of a recipe in a message into those of arguments."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        for old, new in _OWN_WORDS.items():
            text = text.replace(old, new)
        raise ValueError(text) from error
