"""Which host is installed, a line of solo-learn or lightly, found without importing it."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

HOST_VARIABLE = "UIC_HOST"  # processes that a chosen host starts have to find the same one
PYPI_VERSION = "1.0.2"
MAIN_VERSION = "1.0.6"
INSTALL_PYPI = 'pip install "uic-plugin[pypi]" && pip install --no-deps solo-learn==' + PYPI_VERSION
INSTALL_MAIN = (
    'pip install "uic-plugin[main]" && pip install --no-deps --no-build-isolation '
    "git+https://github.com/vturrisi/solo-learn"
)


INSTALL_LIGHTLY = 'pip install "uic-plugin[lightly]"'
CHOICES = ("auto", "solo-learn", "lightly")


class HostError(ImportError):
    """No usable host; the message says what to install."""


@dataclass(frozen=True)
class HostInfo:
    """An installed host.

    Attributes:
        line: "main" (Hydra, Lightning 2) or "pypi" (argparse, Lightning 1), solo-learn's; or
            "lightly".
        version: of the host; "source" where it is imported from a folder that was not installed.
        needs: distributions that this line imports, with the version range.
    """

    line: str
    version: str
    needs: dict[str, str]

    @property
    def short_name(self) -> str:
        """Return what `host` in a recipe says: "lightly" or "solo-learn"."""
        return "lightly" if self.line == "lightly" else "solo-learn"

    @property
    def name(self) -> str:
        """Return the host's name and line, for people."""
        line = "" if self.line == "lightly" else f", the {self.line} line"
        return f"{self.short_name}{line}"


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
    "lightly": {
        "lightly": ">=1.5.24,<2",
        "pytorch-lightning": ">=2.2,<3",
        "timm": "",
    },
}


def choose_host(name: str) -> None:
    """Decide for this process and those that it starts which of several hosts counts.

    Args:
        name: "lightly" or "solo-learn"; "auto": solo-learn where it is installed, else lightly.

    Raises:
        ValueError: for another name.
    """
    if name not in CHOICES:
        raise ValueError(f"host must be one of {', '.join(CHOICES)}, got {name!r}")
    os.environ[HOST_VARIABLE] = name


def find_host() -> HostInfo:
    """Return the host that was chosen; else the installed line of solo-learn, or lightly.

    Raises:
        HostError: if there is none, or one of a version that is not supported.
    """
    chosen = os.environ.get(HOST_VARIABLE, "auto")
    if chosen not in CHOICES:
        raise HostError(
            f"the environment's {HOST_VARIABLE} must be one of {', '.join(CHOICES)}, got {chosen!r}"
        )
    has_solo, has_lightly = _exists("solo.methods.base"), _exists("lightly.loss")
    if chosen == "lightly" or (chosen == "auto" and has_lightly and not has_solo):
        return find_lightly()
    if not has_solo:
        raise HostError(
            f"solo-learn is not installed. Its PyPI line: {INSTALL_PYPI}   "
            f"Its main line: {INSTALL_MAIN}   lightly in its place: {INSTALL_LIGHTLY}"
        )
    return _find_solo()


def find_lightly() -> HostInfo:
    """Return the installed lightly.

    Raises:
        HostError: if there is none, or it or its Lightning has a version that is not supported.
    """
    needs = _NEEDS["lightly"]
    if not _exists("lightly.loss"):
        raise HostError(f"lightly is not installed: {INSTALL_LIGHTLY}")
    found = {name: _version(name) for name in ("lightly", "pytorch-lightning")}
    for name, version in found.items():
        if version != "source" and not SpecifierSet(needs[name]).contains(version, True):
            raise HostError(
                f"{name} {version} is not supported: this plugin runs on lightly "
                f"{needs['lightly']} with pytorch-lightning {needs['pytorch-lightning']}: "
                f'pip install "{name}{needs[name]}"'
            )
    return HostInfo("lightly", found["lightly"], needs)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "source"


def _find_solo() -> HostInfo:
    """Return the installed line of solo-learn.

    Raises:
        HostError: if it is neither of the two lines.
    """
    version = _version("solo-learn")
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
