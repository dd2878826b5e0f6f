"""Which line of solo-learn is installed, found without importing it."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
from dataclasses import dataclass

PYPI_VERSION = "1.0.2"
MAIN_VERSION = "1.0.6"
INSTALL_PYPI = 'pip install "uic-plugin[pypi]" && pip install --no-deps solo-learn==' + PYPI_VERSION
INSTALL_MAIN = (
    'pip install "uic-plugin[main]" && pip install --no-deps --no-build-isolation '
    "git+https://github.com/vturrisi/solo-learn"
)


class HostError(ImportError):
    """No usable solo-learn; the message says what to install."""


@dataclass(frozen=True)
class HostInfo:
    """An installed host.

    Attributes:
        line: "main" (Hydra, Lightning 2) or "pypi" (argparse, Lightning 1).
        version: of solo-learn; "source" where it is imported from a folder that was not installed.
        needs: distributions that this line imports, with the version range.
    """

    line: str
    version: str
    needs: dict[str, str]


_NEEDS = {
    "pypi": {
        "pytorch-lightning": ">=1.9,<2",
        "lightning-bolts": ">=0.7",
        "torchmetrics": ">=0.11,<0.12",
        "setuptools": "<81",
        "einops": "",
        "wandb": "",
        "scipy": "",
        "tqdm": "",
        "timm": "",
    },
    "main": {
        "lightning": ">=2.1,<3",
        "torchmetrics": ">=0.11,<0.12",
        "setuptools": "<82",
        "einops": "",
        "wandb": "",
        "scipy": "",
        "tqdm": "",
        "timm": "",
    },
}


def find_host() -> HostInfo:
    """Return the installed line of solo-learn.

    Raises:
        HostError: if there is none, or one that is neither of the two lines.
    """
    if not _exists("solo.methods.base"):
        raise HostError(
            f"solo-learn is not installed. Its PyPI line: {INSTALL_PYPI}   "
            f"Its main line: {INSTALL_MAIN}"
        )
    try:
        version = importlib.metadata.version("solo-learn")
    except importlib.metadata.PackageNotFoundError:
        version = "source"
    has_main, has_pypi = _exists("solo.args.pretrain"), _exists("solo.args.setup")
    if has_main and (version == "source" or _at_least(version, MAIN_VERSION)):
        return HostInfo("main", version, _NEEDS["main"])
    if has_pypi and not has_main and version in (PYPI_VERSION, "source"):
        return HostInfo("pypi", version, _NEEDS["pypi"])
    raise HostError(
        f"solo-learn {version} is not supported: this plugin runs on {PYPI_VERSION} from PyPI "
        f"({INSTALL_PYPI}) and on {MAIN_VERSION} or later from GitHub ({INSTALL_MAIN})"
    )


def _exists(module: str) -> bool:
    """Return whether a module can be found, importing no more than empty parent packages."""
    parts = module.split(".")
    spec = importlib.util.find_spec(parts[0])
    places = list(spec.submodule_search_locations or []) if spec else []
    for part in parts[1:]:
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return False
        places = list(spec.submodule_search_locations or [])
    return spec is not None


def _at_least(version: str, wanted: str) -> bool:
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    return numbers >= [int(part) for part in wanted.split(".")]
