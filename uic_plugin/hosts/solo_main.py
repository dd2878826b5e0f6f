"""Adapter for solo-learn main (1.0.6 and later): Hydra configs, Lightning 2."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import solo.args.pretrain
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from solo.data.classification_dataloader import prepare_transforms as _prepare_transforms
from solo.data.pretrain_dataloader import (
    FullTransformPipeline,
    NCropAugmentation,
    build_transform_pipeline,
    dataset_with_index,
    prepare_datasets,
)
from solo.methods import METHODS, LinearModel
from solo.methods.base import BaseMethod
from solo.utils.auto_resumer import AutoResumer
from torch import nn
from torchvision.transforms import Normalize

from uic_plugin.hosts.attach import attach_method
from uic_plugin.hosts.foreign import check_two_crops, own_options, set_views, without_dali
from uic_plugin.hosts.protocol import Augmentation, SizedDataset, View
from uic_plugin.hosts.schedules import LINEAR
from uic_plugin.hosts.solo_knn import collect_only, knn_accuracy
from uic_plugin.hosts.solo_loss import fix_deepclusterv2
from uic_plugin.hosts.solo_method import SoloMethod
from uic_plugin.hosts.solo_resumer import skip_damaged_checkpoints
from uic_plugin.methods import OWN_METHODS
from uic_plugin.methods.base import HostMethod
from uic_plugin.networks import BACKBONES, find_backbone

if TYPE_CHECKING:
    from uic_plugin.hosts.lightning import pl

__all__ = [
    "BACKBONE_KEY",
    "METHODS",
    "OPTIMIZERS",
    "SCHEDULERS",
    "UICMethod",
    "augmentation",
    "backbone_names",
    "build_method",
    "eval_transforms",
    "h5_dataset",
    "knn_accuracy",
    "linear_model",
    "pretrain_dataset",
    "register",
]

BACKBONE_KEY = "backbone"
OPTIMIZERS = tuple(BaseMethod._OPTIMIZERS)
# of those that it lists, what it builds; and ours
SCHEDULERS = ("none", "warmup_cosine", "step", LINEAR)


class _Adapter(SoloMethod, BaseMethod):
    """What a method of ours needs of this line; a class of `uic_plugin.methods` goes before it."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        given = dict(self.cfg.method_kwargs)
        options = self.make_options(given, self.cfg.data.num_classes)
        seed = int(OmegaConf.select(self.cfg, "seed", default=5))
        self.finish_building(options, seed)

    @classmethod
    def add_and_assert_specific_cfg(cls, cfg: DictConfig) -> DictConfig:
        """Fill in the host's defaults, the method's options, and its views.

        `main_pretrain.py` builds the augmentations from the same config after the method.
        """
        cfg = BaseMethod.add_and_assert_specific_cfg(cfg)
        given: Any = OmegaConf.to_container(cfg.method_kwargs, resolve=True)
        own = own_options(given, _command_line(), cls.options_class, cls.name)
        options = cls.make_options(own, cfg.data.num_classes)
        cfg.method_kwargs = options.as_dict()
        cfg.data.num_large_crops, cfg.data.num_small_crops = 1, 0  # the step is given one
        pipelines = cfg.get("augmentations") or ListConfig([])
        set_views(pipelines, options.views, options.small_crops)
        return cfg

    @property
    def _network(self) -> nn.Module:
        return self.backbone

    def setup(self, stage: str) -> None:
        """Take over the order of the training images, or count them."""
        super().setup(stage)
        if stage == "fit":
            attach_method(self, self.trainer.fit_loop._data_source)


def _command_line() -> list[str]:
    """Overrides that the user typed, where Hydra runs the program."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


HOSTED: dict[str, type[HostMethod]] = {
    name: type(f"Hosted{core.__name__}", (core, _Adapter), {}) for name, core in OWN_METHODS.items()
}
UICMethod = HOSTED["uic"]


def register() -> None:
    """Add our methods and networks to the host's registries."""
    if not isinstance(BaseMethod._BACKBONES, _Networks):  # the first time
        BaseMethod._BACKBONES = _Networks(BaseMethod._BACKBONES)
        solo.args.pretrain.add_and_assert_dataset_cfg = _fit_recipe(
            solo.args.pretrain.add_and_assert_dataset_cfg
        )
    METHODS.update(HOSTED)
    fix_deepclusterv2()
    skip_damaged_checkpoints(AutoResumer)


def _fit_recipe(check: Callable[[DictConfig], DictConfig]) -> Callable[[DictConfig], DictConfig]:
    """Wrap the host's first look at a recipe, with ours after it.

    `main_pretrain.py` asserts two crops before it builds a method, and takes the format of the
    images for granted.
    """

    def fit(cfg: DictConfig) -> DictConfig:
        cfg = check(cfg)
        if OmegaConf.select(cfg, "method") in OWN_METHODS and "augmentations" in cfg:
            without_dali(cfg.data)
            try:
                check_two_crops(cfg.augmentations)
            except ValueError as error:  # in a script of the host, where nobody catches it
                raise SystemExit(f"error: {error}") from None
        return cfg

    return fit


class _Networks(dict[str, Callable[..., nn.Module]]):
    """The host's networks and ours, timm's among them, which are too many to be put in."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or find_backbone(str(name)) is not None

    def __missing__(self, name: str) -> Callable[..., nn.Module]:
        network = find_backbone(name)
        if network is None:
            raise KeyError(name)

        def build(method: str, **kwargs: Any) -> nn.Module:
            return network(**kwargs)

        return build


def build_method(cfg: DictConfig) -> HostMethod:
    """Build a method of the registry from a composed recipe, learning rates as they are."""
    method = METHODS[cfg.method](cfg)
    _warn_of_unused_crops(method, cfg)
    collect_only(method)
    return method


def _warn_of_unused_crops(method: BaseMethod, cfg: DictConfig) -> None:
    """Say that a method computes features of small crops and learns nothing from them."""
    is_used = type(method).multicrop_forward is not BaseMethod.multicrop_forward
    if not method.multicrop or is_used:
        return
    learners = [
        name
        for name, kind in METHODS.items()
        if issubclass(kind, BaseMethod)
        and kind.multicrop_forward is not BaseMethod.multicrop_forward
    ]
    warnings.warn(
        f"{cfg.method} of solo-learn learns nothing from its {cfg.data.num_small_crops} small "
        f"crops ({', '.join(sorted(learners))} do): set num_crops=0 of the pipelines whose "
        f"crop_size is not {cfg.augmentations[0].crop_size}",
        stacklevel=2,
    )


def backbone_names() -> list[str]:
    """Return the names that `backbone.name` may have, beside timm's."""
    return [*BaseMethod._BACKBONES, *BACKBONES]


def augmentation(dataset: str, pipelines: Sequence[DictConfig]) -> Augmentation:
    """Return the host's augmentation: an image to a list of crops."""
    crops = []
    for cfg in pipelines:
        pipeline = build_transform_pipeline(dataset, cfg)
        for part in pipeline.transforms:
            if isinstance(part, Normalize):
                # the host hands on the config's own lists, which take longer to read, image by
                # image, than a small image takes to augment
                part.mean, part.std = list(part.mean), list(part.std)
        crops.append(NCropAugmentation(pipeline, cfg.num_crops))
    return FullTransformPipeline(crops)


def pretrain_dataset(
    dataset: str, transform: Augmentation, path: Path, *, no_labels: bool
) -> SizedDataset[tuple[int, list[torch.Tensor], int]]:
    """Return the host's training dataset, items [index, crops, annotation]."""
    return prepare_datasets(dataset, transform, train_data_path=path, no_labels=no_labels)


def h5_dataset(
    path: Path, transform: Augmentation | View, *, labelled: bool, with_number: bool
) -> SizedDataset[tuple[object, ...]]:
    """Return the images of an HDF5 file, items (view, class), or (index, view, class).

    Raises:
        ValueError: if the host's own list of the file's images is of another file.
    """
    import h5py
    from solo.data.h5_dataset import H5Dataset

    kind = dataset_with_index(H5Dataset) if with_number else H5Dataset
    dataset = kind("imagenet", str(path), transform)  # the name under which it takes all classes
    with h5py.File(path) as file:
        sizes = {folder: len(file[folder]) for folder in file}
    if sizes != Counter(folder for folder, _, _ in dataset._data):
        # the host writes it once, for every file of this name, and never looks whether it fits
        kept = Path.home() / f"{path.stem}.txt"
        raise ValueError(
            f"{kept}, the host's list of the images in {path.name}, is of another file: remove it, "
            f"the host makes it anew"
        )
    if not labelled:
        dataset._data = [(folder, name, -1) for folder, name, _ in dataset._data]
    return dataset


def eval_transforms(dataset: str) -> tuple[View, View]:
    """Return the host's transforms for linear training and for evaluation."""
    return _prepare_transforms(dataset)


def linear_model(backbone: nn.Module, cfg: DictConfig) -> pl.LightningModule:
    """Return the host's linear evaluation of a frozen backbone."""
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    return LinearModel(backbone, cfg=cfg)
