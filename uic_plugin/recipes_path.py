"""Find recipes and compose them with Hydra."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

TYPED_KEY = "typed_overrides"  # of a composed recipe: what the user typed
_NETWORK = "backbone="  # an override that names a network, without its arguments


def recipes_dir() -> Path:
    """Return the folder of the packaged recipes, or of those of a source checkout."""
    package = Path(__file__).parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if (folder / "default" / "base.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'recipes'}: the recipes are missing; reinstall uic-plugin")


def list_recipes() -> list[str]:
    """Return the names that `--config-name` may have."""
    root = recipes_dir()
    names = (p.relative_to(root).with_suffix("").as_posix() for p in root.glob("*/*.yaml"))
    parts = ("default/", "methods/")
    return sorted(n for n in names if not n.startswith(parts) and not n.endswith("/data"))


def compose_recipe(name: str, overrides: list[str], config_dir: Path | None = None) -> DictConfig:
    """Compose a recipe with Hydra overrides.

    Args:
        name: for example `cifar10/uic`, from the packaged recipes or from `config_dir`.
        overrides: for example `optimizer.lr=0.2`.
        config_dir: the user's own folder of recipes, which may use the packaged groups.

    Raises:
        FileNotFoundError: if there is no such recipe or folder.
        ValueError: for an override that Hydra rejects, or a host that there is not.
    """
    cfg = _compose(name, overrides, config_dir)
    if cfg.get("host", "auto") != "auto":  # before anything of a host is imported
        from uic_plugin.hosts.detect import choose_host

        choose_host(cfg.host)
    cfg.pop("needs", None)
    cfg.pop("tune", None)
    cfg[TYPED_KEY] = overrides
    return cfg


def recipe_grid(name: str, overrides: list[str]) -> dict[str, list[Any]]:
    """Return what a packaged recipe's `tune` block says: options, and the values to choose from.

    An option with null for its values is not tuned: a recipe takes one out of its method's block.

    Raises:
        FileNotFoundError, ValueError: see `compose_recipe`; also for a block of another form, or an
            option that the recipe does not have.
    """
    from omegaconf import OmegaConf

    cfg = _compose(name, overrides)
    block = cfg.get("tune", {})
    if OmegaConf.is_config(block):
        block = OmegaConf.to_container(block)
    if not isinstance(block, dict):
        raise ValueError(f"recipe {name!r}: `tune` must map options to lists of values")
    grid = {str(option): values for option, values in block.items() if values is not None}
    for option, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(
                f"recipe {name!r}: `tune` must have a list of values for {option}, got {values!r}"
            )
        if OmegaConf.select(cfg, option, default=None) is None:
            raise ValueError(f"recipe {name!r}: {option} of its `tune` block is no setting of it")
    return grid


def _compose(name: str, overrides: list[str], config_dir: Path | None = None) -> DictConfig:
    """Compose a recipe with everything that stands in it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    own = config_dir.expanduser().resolve() if config_dir else None
    if own is not None and not own.is_dir():
        raise FileNotFoundError(f"--config-dir {config_dir}: there is no such folder")
    name = name.removesuffix(".yaml")
    folders = [folder for folder in (own, recipes_dir()) if folder]
    homes = [folder for folder in folders if (folder / f"{name}.yaml").is_file()]
    if not homes:
        raise FileNotFoundError(
            f"there is no recipe {name!r} in {' or '.join(map(str, folders))}; "
            f"the packaged ones: {', '.join(list_recipes())}"
        )
    others = [f"file://{folder}" for folder in folders if folder != homes[0]]
    search = [f"hydra.searchpath={typed_value(others)}"] if others else []
    network = _named_network(overrides, folders)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(homes[0]), version_base="1.3"):
            given = [o for o in overrides if network is None or not o.startswith(_NETWORK)]
            cfg = compose(name, overrides=[*search, *map(_open_group, map(_quoted, given))])
        if network is not None:
            _take_network(cfg, network, overrides)
        missing = sorted(OmegaConf.missing_keys(cfg))
        # keys that a recipe lists under `needs`: a default would replace Hydra's own `???`
        missing += [key for key in cfg.get("needs", ()) if OmegaConf.select(cfg, key) is None]
        if missing:
            raise ValueError(f"recipe {name!r} leaves {', '.join(missing)} open: set it")
        OmegaConf.resolve(cfg)
    except MissingConfigException as error:
        raise FileNotFoundError(str(error).splitlines()[0]) from error
    except (YAMLError, UnicodeError) as error:
        raise ValueError(f"recipe {name!r} is no YAML: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(
            f"recipe {name!r} with {' '.join(overrides) or 'no overrides'}: "
            f"{_explained(error, name, config_dir)}"
        ) from error
    OmegaConf.set_struct(cfg, False)
    return cfg


def _named_network(overrides: list[str], folders: list[Path]) -> str | None:
    """Return the network of the last override backbone=NAME.

    Not where `backbone` is a group of recipe files, from which Hydra chooses one.
    """
    if any((folder / "backbone").is_dir() for folder in folders):
        return None
    names = [o.removeprefix(_NETWORK) for o in overrides if o.startswith(_NETWORK)]
    return names[-1] if names else None


def _take_network(cfg: DictConfig, network: str, overrides: list[str]) -> None:
    """Put a network in the place of a recipe's, with the arguments that were typed behind it."""
    start = "backbone.kwargs."
    last = max(number for number, o in enumerate(overrides) if o.startswith(_NETWORK))
    behind = [o for o in overrides[last:] if o.startswith(start)]
    typed = {o.split("=")[0].removeprefix(start) for o in behind}
    kept = {key: value for key, value in cfg.backbone.kwargs.items() if key in typed}
    cfg.backbone = {"name": network, "kwargs": kept}


def _explained(error: Exception, name: str, config_dir: Path | None) -> str:
    """Return Hydra's message in a line; for a setting that there is not, those that are meant."""
    text = " ".join(str(error).split())
    found = re.match(r"Could not override '([\w.]+)'", text)
    if found is None:
        return text
    key = found.group(1)
    known = [n for n in _names_in(_compose(name, [], config_dir)) if not n.startswith("tune.")]
    last = key.rpartition(".")[2]
    meant = [other for other in known if other.rpartition(".")[2] == last]
    if not meant and key.startswith("optimizer."):
        meant = [f"optimizer.kwargs.{last}"]
    meant = meant or difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    return f"there is no setting {key}{hint}"


def _names_in(cfg: DictConfig, above: str = "") -> list[str]:
    """Return the dotted names of all settings of a recipe."""
    names = []
    for name, value in cfg.items():
        key = above + str(name)
        names.append(key)
        if isinstance(value, DictConfig):
            names += _names_in(value, f"{key}.")
    return names


def _open_group(override: str) -> str:
    """Allow new keys in groups whose valid keys are known to the method or network only."""
    is_open = override.startswith(("method_kwargs.", "backbone.kwargs.", "optimizer.kwargs."))
    return f"++{override}" if is_open else override


def typed_value(value: Any) -> str:
    """Return a value, as YAML reads it, as Hydra reads it on a command line."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value, re.ASCII):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(map(typed_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{typed_value(part)}" for key, part in value.items()) + "}"
    return "null" if value is None else str(value)


def path_override(key: str, path: Path) -> str:
    """Return the override that sets a path, whatever characters are in it."""
    return f"{key}={typed_value(str(path))}"


def _quoted(override: str) -> str:
    """Quote a value that Hydra could not read, as a path with a space or an umlaut."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, separator, value = override.partition("=")
    if not separator or value.startswith(("'", '"', "[", "{", "$")):
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}={typed_value(value)}"
    return override


def evaluation_defaults() -> DictConfig:
    """Return settings that a checkpoint of the host's own scripts does not bring along."""
    from omegaconf import OmegaConf

    base = DictConfig(OmegaConf.load(recipes_dir() / "default" / "base.yaml"))
    keep = ["accelerator", "devices", "precision", "knn", "linear", "knn_eval", "strategy", "data"]
    cfg = OmegaConf.masked_copy(base, keep)
    del cfg.data.dataset
    return cfg
