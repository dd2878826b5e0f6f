"""Settings that were typed with a plus and that nothing reads."""

from __future__ import annotations

from collections.abc import Iterable

from uic_plugin.recipes_path import recipes_dir

# Settings that go to Lightning's Trainer as they are.
TRAINER_KEYS = (
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "num_nodes",
    "limit_train_batches",
    "limit_val_batches",
    "check_val_every_n_epoch",
    "log_every_n_steps",
    "deterministic",
)
# beside those of recipes/default/base.yaml
_MORE = {
    "": (*TRAINER_KEYS, "sync_batchnorm", "momentum", "augmentations", "debug_augmentations"),
    "optimizer": (),
    "scheduler": ("min_lr", "warmup_start_lr", "lr_decay_steps"),
}


def unread_settings(typed: Iterable[str]) -> list[str]:
    """Return the settings that overrides add to a recipe and that nothing reads.

    Args:
        typed: overrides; those that add a setting begin with a plus.
    """
    from omegaconf import OmegaConf

    base = OmegaConf.load(recipes_dir() / "default" / "base.yaml")
    found = []
    for override in typed:
        if not override.startswith("+"):
            continue
        key = override.lstrip("+").split("=")[0].split("@")[0]
        section, _, name = key.rpartition(".")
        if section not in _MORE or "/" in key:
            section, _, rest = key.partition(".")  # of a section whose keys are not known here
            if "/" in key or not rest or OmegaConf.select(base, section) is not None:
                continue
            section, name = "", section
        known = OmegaConf.select(base, section) if section else base
        if name not in known and name not in _MORE[section]:
            found.append(key)
    return found
