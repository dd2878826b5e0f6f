"""Fine-tune a pretrained network on the classes that were found on its features, and label again.

The later half of the network learns the classes of a label file, from strongly augmented images, in
the host and by its own `uic`: an image's class then has to follow from any crop of it, which the
frozen features do not demand. The run lies in `OUT/finetuned/run`, its labels beside it.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console

from uic_plugin.data.index import save_index
from uic_plugin.data.labels import LabelTable, read_labels
from uic_plugin.files import replacing
from uic_plugin.networks.layers import FEATURES, MLP, layer_modules
from uic_plugin.networks.pretrained import DEFAULT, LITE0, Backbone
from uic_plugin.networks.registry import BACKBONES, TIMM_PREFIX
from uic_plugin.recipes_path import TYPED_KEY, compose_recipe
from uic_plugin.report.progress import EpochReporter, counting
from uic_plugin.runs.labelling import label_images
from uic_plugin.runs.run import Run
from uic_plugin.runs.training import pretrain

FOLDER, RUN, LABELS = "finetuned", "run", "labels.parquet"
_INDEX, _IDENTITY = "images.index", "identity"


@dataclass(frozen=True)
class FineTuning:
    """What is fine-tuned, and on which labels.

    Attributes:
        backbone: the frozen network that the classes were found with.
        root: folder of the images.
        names: N paths below it.
        labels: label file of these images.
        num_classes: K.
        epochs: of the training, at least 1.
        seed: of the training.
        workers: processes that read images.
        out: folder of the classes.
    """

    backbone: Backbone
    root: Path
    names: list[str]
    labels: Path
    num_classes: int
    epochs: int
    seed: int
    workers: int
    out: Path


def check_backbone(name: str) -> None:
    """Check that a network can be fine-tuned.

    Raises:
        ValueError: for a run folder, which `uic pretrain` trains further.
    """
    if Path(name).is_dir() or name.endswith(".ckpt"):
        raise ValueError(
            f"--finetune is for pretrained networks by name, {name} is a run: uic pretrain trains "
            f"it further, with weights={name} method_kwargs.fixed_labels=labels.parquet"
        )


def recipe_of(tuning: FineTuning) -> DictConfig:
    """Return the recipe that trains the network: later half of the layers, layer-wise rates."""
    backbone = tuning.backbone
    folder = (tuning.out / FOLDER).resolve()
    bare = backbone.name.removeprefix(TIMM_PREFIX)
    name = LITE0 if bare == DEFAULT else bare
    count = len(tuning.names)
    layers = [layer for layer in layer_modules(backbone.network) if layer not in (FEATURES, MLP)]
    size = int(backbone.transform(Image.new("RGB", (64, 64))).shape[-1])
    cfg = compose_recipe(
        "custom/uic_paper",
        [
            "name=finetuned",
            f"seed={tuning.seed}",
            f"max_epochs={tuning.epochs}",
            "data.no_labels=true",
            f"data.num_workers={tuning.workers}",
            f"backbone={name if name in BACKBONES else TIMM_PREFIX + name}",
            f"pretrained={str(backbone.weights is None).lower()}",
            f"freeze={len(layers) // 2}",
            "layer_decay=0.8",
            "optimizer.lr=0.05",
            f"optimizer.batch_size={min(count, max(8, min(64, count // 8)))}",
            f"augmentations.0.crop_size={size}",
            f"augmentations.0.mean={list(backbone.mean)}",
            f"augmentations.0.std={list(backbone.std)}",
            f"method_kwargs.num_pseudo_classes={tuning.num_classes}",
        ],
    )
    # not as overrides: a path may have any character in it
    cfg.run_dir = str(folder / RUN)
    cfg.data.train_path = str(tuning.root.resolve())
    cfg.data.index = str(folder / _INDEX)
    cfg.weights = backbone.weights
    cfg.method_kwargs.fixed_labels = str(tuning.labels.resolve())
    return cfg


def fine_tune(tuning: FineTuning, console: Console) -> LabelTable:
    """Train the network on the classes and label the images with it; a killed call resumes.

    Returns:
        The labels, which are also written to `OUT/finetuned/labels.parquet`.

    Raises:
        ValueError, OSError: as `pretrain`.
    """
    folder = tuning.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_index(folder / _INDEX, [("", tuning.names)])
    recipe = recipe_of(tuning)
    _forget_others(folder, _identity(recipe, read_labels(tuning.labels)))
    result = pretrain(recipe, reporter=EpochReporter("fine-tuning"))
    run = Run.open(result.run_dir, needs_images=True)
    with counting("images labelled", console) as progress:
        return label_images(run, folder / LABELS, progress=progress)


def _identity(recipe: DictConfig, labels: LabelTable) -> str:
    """Identify a run by its classes and by what changes its result, which no path does."""
    settings = copy.deepcopy(recipe)
    settings.pop(TYPED_KEY, None)  # stands in the settings themselves
    settings.run_dir = settings.data.train_path = settings.data.index = settings.weights = None
    settings.method_kwargs.fixed_labels = settings.data.num_workers = None
    return f"labels: {labels.fingerprint}\n{OmegaConf.to_yaml(settings)}"


def _forget_others(folder: Path, identity: str) -> None:
    """Remove a run on other classes, or with other settings, than these."""
    mark = folder / _IDENTITY
    if not mark.is_file() or mark.read_text() != identity:
        if (folder / RUN).exists():
            shutil.rmtree(folder / RUN)
        with replacing(mark) as part:
            part.write_text(identity)
