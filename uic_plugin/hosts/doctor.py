"""What is installed, what is missing, and the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
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
    "pyarrow": ">=15",
    "threadpoolctl": ">=3",
}
# modules of optional features, and the extra that brings them
_OPTIONAL = {
    "datasets": "datasets",
    "tensorboard": "tensorboard",
    "cv2.ximgproc": "voc",
    "faster_coco_eval": "voc",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report: what, the version found, "ok" or what is wrong, what to type."""

    name: str
    found: str
    state: str
    remedy: str = ""


def examine() -> tuple[list[Finding], bool]:
    """Return all findings, and whether training can start."""
    python = f"{platform.python_version()} ({sys.executable})"
    findings = [Finding("Python", python, "ok" if sys.version_info >= (3, 10) else "too old")]
    needs = dict(_OWN)
    try:
        host = find_host()
        name, _, line = host.name.partition(", ")
        findings.append(Finding(name, f"{host.version}{line and ', '}{line}", "ok"))
        needs |= {name: range_ for name, range_ in host.needs.items() if name != host.short_name}
    except HostError as error:
        findings.append(Finding("solo-learn", "-", "not usable", str(error)))
    findings += [_distribution(name, versions) for name, versions in needs.items()]
    if all(finding.state == "ok" for finding in findings):
        findings += [_import(), _device()]
    findings.append(_faiss())
    findings += [_optional(module, extra) for module, extra in _OPTIONAL.items()]
    findings.append(_weights())
    return findings, all(finding.state in ("ok", "optional") for finding in findings)


def _distribution(name: str, versions: str) -> Finding:
    remedy = f'pip install "{name}{versions}"'
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "-", "missing", remedy)
    if not SpecifierSet(versions).contains(found, prereleases=True):
        return Finding(name, found, f"needs {versions}", remedy)
    return Finding(name, found, "ok")


def _faiss() -> Finding:
    """Return which distribution brings faiss: several do, all with the same files."""
    found = sorted(set(importlib.metadata.packages_distributions().get("faiss", [])))
    if len(found) > 1:
        remedy = (
            f"each overwrote files of the other: pip uninstall {' '.join(found)}, then "
            f"pip install the one you want"
        )
        return Finding("faiss", " and ".join(found), "two at once", remedy)
    try:
        import faiss
    except ImportError:
        return Finding("faiss", "-", "missing", "pip install faiss-cpu, or faiss-gpu for GPUs")
    gpus = getattr(faiss, "get_num_gpus", int)()
    return Finding("faiss", f"{faiss.__version__} of {''.join(found)}, {gpus} GPUs", "ok")


def _optional(module: str, extra: str) -> Finding:
    if _is_there(module):
        return Finding(module, "there", "ok")
    remedy = f"pip install 'uic-plugin[{extra}]' for what needs it"
    return Finding(module, "-", "optional", remedy)


def _weights() -> Finding:
    """Pretrained networks that need no hub."""
    try:
        from uic_plugin.networks.pretrained import weights_at_hand

        names = weights_at_hand()
    except ImportError:  # torch is missing, which is told above
        names = []
    if names:
        return Finding("pretrained weights", ", ".join(names), "ok")
    remedy = "pip install 'uic-plugin[pretrained]' for those of uic discover's default network"
    return Finding("pretrained weights", "-", "optional", remedy)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of the package that it is in
        return False


def _import() -> Finding:
    from uic_plugin.hosts import load_host, register
    from uic_plugin.methods import OWN_METHODS

    try:
        register()
        methods = len(set(load_host().METHODS) - set(OWN_METHODS))
    except HostError as error:
        return Finding("registration", "-", "failed", str(error))
    own = ", ".join(OWN_METHODS)
    return Finding("registration", f"{own}, beside {methods} methods of the host", "ok")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding(
            "device", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}", "ok"
        )
    return Finding("device", f"CPU, {torch.get_num_threads()} threads", "ok")
