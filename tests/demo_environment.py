"""The environment that `make demo` makes, within the larger one that the tests run in.

Modules of distributions that only the tests or an extra bring cannot be imported there: a command
that needs one of them fails in the tests as it would fail for a user.
"""

import functools
import importlib.metadata
import sysconfig
from collections import defaultdict
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from uic_plugin.hosts import find_host

INSTALLED = ("pretrained",)  # extras that `make install` brings beside that of the host's line
_NO_DEPS = ("solo-learn", "pip", "uic-plugin")  # installed without what they require
_HIDING = """
import sys
from importlib.machinery import PathFinder


class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if path is None and name in {hidden}:  # elsewhere it is there: setuptools has copies
            path = [entry for entry in sys.path if entry not in {folders}]
        return super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


def hide_the_rest(folder, extras):
    """Write a `sitecustomize.py` that hides what is not there, for `PYTHONPATH`.

    Args:
        folder: where to.
        extras: of this package, beside the one of the installed line of solo-learn.
    """
    hidden = sorted(hidden_modules([find_host().line, *INSTALLED, *extras]))
    program = _HIDING.replace("{hidden}", repr(set(hidden)))
    program = program.replace("{folders}", repr(sorted(_site_folders())))
    (folder / "sitecustomize.py").write_text(program)


def hidden_modules(extras):
    """Top-level modules of installed distributions that this package with these extras lacks."""
    there = installed_with(extras)
    return {
        module
        for module, distributions in _distributions_of_modules().items()
        if not distributions & there
    }


@functools.cache
def _distributions_of_modules():
    """Top-level modules in site-packages to the distributions that have files of them.

    Not all that can be imported here: setuptools puts what it has vendored on the path.
    """
    found = defaultdict(set)
    for distribution in importlib.metadata.distributions(path=sorted(_site_folders())):
        name = canonicalize_name(distribution.metadata["Name"])
        for line in (distribution.read_text("RECORD") or "").splitlines():
            first, below, _ = line.partition(",")[0].partition("/")
            module, _, ending = first.partition(".")
            if module.isidentifier() and (below or ending.endswith(("py", "so"))):
                found[module].add(name)
    return found


def _site_folders():
    """Folders that pip installs into."""
    return {sysconfig.get_path(name) for name in ("purelib", "platlib")}


def installed_with(extras):
    """Canonical names of all distributions that pip installs for this package and its host."""
    import tomllib

    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    for extra in extras:
        waiting += [Requirement(text) for text in project["optional-dependencies"][extra]]
    done = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in requirement.extras or {""}:
            if (name, extra) in done or not _applies(requirement, ""):
                continue
            done.add((name, extra))
            try:
                needed = map(Requirement, importlib.metadata.requires(name) or ())
            except importlib.metadata.PackageNotFoundError:
                continue
            waiting += [need for need in needed if _applies(need, extra) or _applies(need, "")]
    return {name for name, _ in done} | set(_NO_DEPS)


def _applies(requirement, extra):
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
