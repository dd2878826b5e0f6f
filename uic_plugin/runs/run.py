"""A run and its trained network.

run = Run.open("runs/digits")
labels, confidence = run.predict(["a.jpg", "b.jpg"])
features = run.features("my/images")
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from uic_plugin.data.center import center_view
from uic_plugin.data.folders import images_below
from uic_plugin.data.packed import PackedByPath, is_packed
from uic_plugin.data.resolve import DataSource
from uic_plugin.data.rgb import as_rgb
from uic_plugin.hosts import backbone_of, load_host
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.hosts.foreign import set_views
from uic_plugin.hosts.protocol import Augmentation, View
from uic_plugin.methods import has_pseudo_labels
from uic_plugin.methods.base import HostMethod
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.networks.layers import Encoder
from uic_plugin.runs.folder import open_recipe
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.runs.settling import take_settled

_Picture = Path | str | Image.Image | Callable[[], Image.Image]
Images = Path | str | Sequence[_Picture] | torch.Tensor
_BATCH = 256
_ONLINE_CLASSIFIERS = (  # of solo-learn, and of lightly
    "classifier.weight",
    "momentum_classifier.weight",
    "online_classifier.classification_head.weight",
)
# buffers that DeepCluster v2 and SwAV of the host add when training starts
_MADE_IN_TRAINING = ("local_memory_index", "local_memory_embeddings", "queue")


@dataclass(frozen=True)
class Run:
    """A recipe, where its images are, and the checkpoint that its training wrote.

    Attributes:
        config: the prepared recipe.
        source: where its images are; without paths where it was opened without images.
        folder: the run folder.
        checkpoint: its weights; None stands for the random ones of the recipe's seed.
        is_settled: whether to take its classifiers as settled, where they are, not as trained.
    """

    config: DictConfig
    source: DataSource
    folder: Path
    checkpoint: Path | None
    is_settled: bool = True

    @classmethod
    def open(
        cls,
        path: Path | str,
        overrides: Sequence[str] = (),
        *,
        untrained: bool = False,
        needs_images: bool = False,
    ) -> Run:
        """Open a run on this machine's own hardware.

        Args:
            path: a run folder, or a checkpoint in it.
            overrides: of its recipe, as `knn.k=10`; `+key=value` adds a setting.
            untrained: take the random weights of the recipe's seed.
            needs_images: whether the images that it was trained on have to be there.

        Raises:
            FileNotFoundError: if there is no such run, or its images are needed and gone.
            ValueError: for an override of something that the run does not have.
        """
        config, checkpoint = open_recipe(Path(path), overrides)
        folder, weights = checkpoint.parent, None if untrained else checkpoint
        return cls.of_recipe(config, folder, weights, needs_images=needs_images)

    @classmethod
    def of_recipe(
        cls,
        config: DictConfig,
        folder: Path,
        checkpoint: Path | None = None,
        *,
        needs_images: bool = True,
    ) -> Run:
        """Return the run of a composed recipe, see the class for its parts."""
        config, source = prepare_config(config, needs_images=needs_images)
        return cls(config, source, folder, checkpoint)

    def load(self) -> HostMethod:
        """Return the method with its weights, in eval mode; read once.

        Raises:
            ValueError: if the checkpoint's weights do not fit the recipe's network.
        """
        return self._method

    @cached_property
    def _method(self) -> HostMethod:
        config = copy.deepcopy(self.config)
        if self.checkpoint is None:
            return build_method(config).eval()
        state = read_checkpoint(self.checkpoint)["state_dict"]
        # the online classifier has as many outputs as the images that it was trained beside
        for name in _ONLINE_CLASSIFIERS:
            if name in state:
                config.data.num_classes = len(state[name])
        method = build_method(config)
        try:
            result = method.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {self.checkpoint} are of another network than the recipe's "
                f"{config.backbone.name}: {str(error).splitlines()[1].strip()}"
            ) from error
        unknown = [name for name in result.unexpected_keys if name not in _MADE_IN_TRAINING]
        if result.missing_keys or unknown:
            raise ValueError(
                f"the weights in {self.checkpoint} are not of method {config.method} with "
                f"{config.backbone.name}: missing {result.missing_keys[:2]}, unknown "
                f"{unknown[:2]}"
            )
        head = getattr(method, "head", None)
        if self.is_settled and isinstance(head, PseudoClassHead):
            take_settled(self, head)
        return method.eval()

    @property
    def backbone(self) -> nn.Module:
        """The network below all heads, images (B, 3, H, W) to features (B, D)."""
        return backbone_of(self.load())

    @property
    def encoder(self) -> Encoder:
        """The backbone, with the MLP of the head behind it where the head has one."""
        mlp = getattr(getattr(self.load(), "head", None), "mlp", None)
        return Encoder(self.backbone, mlp if mlp is not None and len(mlp) else None)

    @property
    def head(self) -> PseudoClassHead:
        """The head with the pseudo classes.

        Raises:
            ValueError: for a method without pseudo classes.
        """
        if not has_pseudo_labels(self.config.method):
            raise ValueError(
                f"{self.config.method} has no pseudo classes to label images with: give a run of "
                f"uic"
            )
        head = getattr(self.load(), "head", None)
        if not isinstance(head, PseudoClassHead):
            raise ValueError(f"{self.config.method} has a {type(head).__name__} for a head")
        return head

    @property
    def weights(self) -> str:
        """What its weights are, for people."""
        return str(self.checkpoint or f"random weights of seed {self.config.seed}")

    @property
    def device(self) -> torch.device:
        """The fastest device that the recipe allows."""
        on_gpu = torch.cuda.is_available() and self.config.accelerator != "cpu"
        return torch.device("cuda" if on_gpu else "cpu")

    @property
    def augmentation(self) -> Augmentation:
        """The host's augmentation of the recipe, making one view of an image."""
        config = copy.deepcopy(self.config)
        set_views(config.augmentations, 1)
        return load_host().augmentation(self.source.transforms, config.augmentations)

    @cached_property
    def view(self) -> View:
        """The centered view of the recipe's augmentation, an image to (3, H, W)."""
        return center_view(self.augmentation)

    def classifier(self, classes: int = 0) -> nn.Sequential:
        """Return a copy of the network with one of its classifiers, images to logits (B, K).

        They are divided by the temperature of the loss, as what was trained is their softmax.

        Args:
            classes: K of the classifier; 0 for the first one.

        Raises:
            ValueError: for a run without pseudo classes, or without such a classifier.
        """
        logits = self.first_logits()
        if classes:
            if classes not in self.head.sizes:
                sizes = ", ".join(map(str, self.head.sizes))
                raise ValueError(f"--classes {classes}: the run has classifiers of {sizes} classes")
            logits.number = self.head.sizes.index(classes)
        return copy.deepcopy(nn.Sequential(self.backbone, logits))

    def first_logits(self) -> FirstLogits:
        """Return the first of the head's classifiers, features to logits; see `classifier`."""
        return FirstLogits(self.head, float(self.config.method_kwargs.get("temperature", 1.0)))

    def predict(self, images: Images) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pseudo class of each image and how sure the classifier is.

        Args:
            images: a folder, also a packed one, or image files or PIL images, or functions that
                return one, which get the run's centered view; or views (N, 3, H, W) that are
                prepared already.

        Returns:
            Labels (N,) int64 in [0, K) and their probabilities (N,) float32, on the CPU.

        Raises:
            ValueError: for a method without pseudo classes.
            FileNotFoundError, OSError: for images that are not there or cannot be read.
        """
        probabilities = self._computed(self.classifier(), images).softmax(1)
        confidence, labels = probabilities.max(1)
        return labels, confidence

    def features(self, images: Images) -> torch.Tensor:
        """Return the backbone's features of images, (N, D) float32 on the CPU; see `predict`."""
        return self._computed(self.backbone, images)

    @torch.no_grad()
    def _computed(self, network: nn.Module, images: Images) -> torch.Tensor:
        if isinstance(images, (str, Path)):
            path = Path(images)
            if is_packed(path):
                packed = PackedByPath(path)
                images = [partial(packed.image, name) for name in packed.names]
            else:
                images = [path / name for name in images_below(path)] if path.is_dir() else [path]
        network = network.eval().to(self.device)
        outputs = []
        for first in range(0, len(images), _BATCH):
            batch = images[first : first + _BATCH]
            if not isinstance(batch, torch.Tensor):
                batch = torch.stack([_view_of(image, self.view) for image in batch])
            outputs.append(network(batch.to(self.device)).float().cpu())
        if not outputs:
            raise ValueError("there are no images: an empty list was given")
        return torch.cat(outputs)


class FirstLogits(nn.Module):
    """Logits (B, K) of one of a head's classifiers, of features (B, D).

    Args:
        head: all classifiers.
        temperature: divides the logits.

    Attributes:
        number: which classifier, the first at the start.
    """

    number = 0

    def __init__(self, head: PseudoClassHead, temperature: float = 1.0) -> None:
        super().__init__()
        self.head, self.temperature = head, temperature

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.head(features)[1]
        return self.head.per_head(logits)[self.number] / self.temperature


def _view_of(image: _Picture, view: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor:
    if callable(image):
        image = image()
    if isinstance(image, Image.Image):
        return view(as_rgb(image))
    with Image.open(image) as opened:
        return view(as_rgb(opened))
