"""The only place that imports solo-learn, lightly or Lightning.

host = load_host()     # the adapter of the installed host, see `protocol.Host`
register()             # makes `method=uic` and our networks known to it
"""

from __future__ import annotations

from torch import nn

from uic_plugin.hosts.detect import HostError, HostInfo, find_host
from uic_plugin.hosts.protocol import Host

__all__ = ["Host", "HostError", "HostInfo", "backbone_of", "find_host", "load_host", "register"]


def load_host() -> Host:
    """Return the adapter of the installed host.

    Raises:
        HostError: if no supported host can be imported.
    """
    info = find_host()
    try:
        if info.line == "lightly":
            from uic_plugin.hosts import lightly_host

            return lightly_host
        if info.line == "main":
            from uic_plugin.hosts import solo_main

            return solo_main
        from uic_plugin.hosts import solo_pypi

        return solo_pypi
    except ImportError as error:
        needs = " ".join(f'"{name}{versions}"' for name, versions in info.needs.items())
        raise HostError(
            f"{info.short_name} {info.version} cannot be imported ({error}): "
            f"run 'uic doctor', or install what it needs: pip install {needs}"
        ) from error


def register() -> None:
    """Add our methods to the host's registry, and our networks where the host has one."""
    load_host().register()


def backbone_of(method: nn.Module) -> nn.Module:
    """Return the network below all heads of a method."""
    backbone: nn.Module = getattr(method, load_host().BACKBONE_KEY)
    return backbone
