"""What is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from uic_plugin.hosts.detect import HostError, find_host

_OWN = {
    "torch": ">=2.2",
    "torchvision": ">=0.17",
    "numpy": ">=1.26",
    "scikit-learn": ">=1.4",
    "hydra-core": ">=1.3,<2",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report: what, the version found, "ok" or what is wrong, what to type."""

    name: str
    found: str
    state: str
    remedy: str = ""


def examine() -> tuple[list[Finding], bool]:
    """All findings, and whether training can start."""
    python = f"{platform.python_version()} ({sys.executable})"
    findings = [Finding("Python", python, "ok" if sys.version_info >= (3, 10) else "too old")]
    needs = dict(_OWN)
    try:
        host = find_host()
        findings.append(Finding("solo-learn", f"{host.version}, the {host.line} line", "ok"))
        needs.update(host.needs)
    except HostError as error:
        findings.append(Finding("solo-learn", "-", "not usable", str(error)))
    findings += [_distribution(name, versions) for name, versions in needs.items()]
    if all(finding.state == "ok" for finding in findings):
        findings += [_import(), _device()]
    return findings, all(finding.state == "ok" for finding in findings)


def _distribution(name: str, versions: str) -> Finding:
    remedy = f'pip install "{name}{versions}"'
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "-", "missing", remedy)
    if not SpecifierSet(versions).contains(found, prereleases=True):
        return Finding(name, found, f"needs {versions}", remedy)
    return Finding(name, found, "ok")


def _import() -> Finding:
    from uic_plugin.hosts import load_host, register

    try:
        register()
        methods = len(load_host().METHODS)
    except HostError as error:
        return Finding("registration", "-", "failed", str(error))
    return Finding("registration", f"method=uic, beside {methods - 1} of the host", "ok")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding(
            "device", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}", "ok"
        )
    return Finding("device", f"CPU, {torch.get_num_threads()} threads", "ok")
