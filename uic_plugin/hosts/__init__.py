"""The only place that imports solo-learn or Lightning.

host = load_host()     # the installed line; host.UICMethod, host.build_method, ...
register()             # makes `method=uic` and our networks known to it
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from uic_plugin.hosts.detect import HostError, HostInfo, find_host

__all__ = ["HostError", "HostInfo", "backbone_of", "find_host", "load_host", "register"]


def load_host() -> Any:
    """The adapter module of the installed line, `uic_plugin.hosts.solo_main` or `.pypi`.

    Raises:
        HostError: if no supported solo-learn can be imported.
    """
    info = find_host()
    try:
        module: ModuleType = importlib.import_module(f"uic_plugin.hosts.solo_{info.line}")
    except ImportError as error:
        needs = " ".join(f'"{name}{versions}"' for name, versions in info.needs.items())
        raise HostError(
            f"solo-learn {info.version} cannot be imported ({error}): "
            f"run 'uic doctor', or install what it needs: pip install {needs}"
        ) from error
    return module


def register() -> None:
    """Add `uic` to the host's method registry, and our networks where the line has one."""
    load_host().register()


def backbone_of(method: Any) -> Any:
    """The network below all heads of a method."""
    return getattr(method, load_host().BACKBONE_KEY)
