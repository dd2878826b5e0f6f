"""A frozen network by whatever a user names: a pretrained one, or that of a run."""

from __future__ import annotations

from pathlib import Path

from uic_plugin.data.center import resized_side
from uic_plugin.methods import has_pseudo_labels
from uic_plugin.networks.layers import AUTO_LAYER, FEATURES, MLP
from uic_plugin.networks.pretrained import DEFAULT, Backbone, load_pretrained
from uic_plugin.networks.weights import weights_fingerprint


def open_backbone(
    name: str = DEFAULT,
    *,
    weights: Path | None = None,
    layer: str = FEATURES,
    size: int | None = None,
) -> Backbone:
    """Return a network with its weights and its preprocessing.

    Args:
        name: a run folder or a checkpoint in one; else see `load_pretrained`.
        weights, size: see `load_pretrained`; a run has weights of its own.
        layer: see `load_pretrained`; "auto" is what the classifiers of a run read, its MLP where it
            has one, and the features of other networks.

    Raises:
        ValueError, FileNotFoundError, ImportError: as `load_pretrained` and `Run.open`.
    """
    path = Path(name)
    if path.suffix in (".pth", ".pt", ".safetensors", ".bin") and path.is_file():
        raise ValueError(
            f"--backbone {name}: a file of weights does not say of which network it is: give "
            f"--backbone NAME --weights {name}"
        )
    if not path.is_dir() and path.suffix != ".ckpt":
        known = FEATURES if layer == AUTO_LAYER else layer
        return load_pretrained(name, weights=weights, layer=known, size=size)
    if weights is not None:
        raise ValueError(f"--backbone {name} is a run with weights of its own: leave out --weights")
    return _of_run(path, layer, size)


def _of_run(path: Path, layer: str, size: int | None) -> Backbone:
    from uic_plugin.runs.run import Run

    overrides = [] if size is None else [f"augmentations.0.crop_size={size}"]
    run = Run.open(path, overrides)
    encoder = run.encoder.eval().requires_grad_(False)
    view = run.view
    if layer == AUTO_LAYER:
        has_classes = has_pseudo_labels(run.config.method) and encoder.mlp is not None
        layer = MLP if has_classes else FEATURES
    return Backbone(
        name=str(path.resolve()),
        network=encoder,
        transform=view,
        shorter_side=resized_side(run.config.augmentations[0].crop_size),
        preprocessing=str(view),
        fingerprint=weights_fingerprint(encoder),
        layer=layer,
        size=size,
    )
