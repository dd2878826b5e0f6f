"""Let OpenMP's threads sleep while they wait for work, instead of spinning on a core.

The threads of GNU OpenMP, which the usual builds of torch contain, spin for milliseconds after
every parallel region in case another one follows. A training step of a small network has hundreds
of short ones, so that the threads spin all the time and take CPU time from the loader's workers.
With `OMP_WAIT_POLICY=PASSIVE` they sleep instead. The library reads the variable when it is loaded,
together with torch; a later change has no effect.
"""

from __future__ import annotations

import functools
import logging
import os

WAIT_POLICY = "OMP_WAIT_POLICY"
_OWN_CHOICE = (WAIT_POLICY, "GOMP_SPINCOUNT")  # the second overrides the first


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has set `OMP_WAIT_POLICY`.

    Call it before torch is imported. Child processes inherit the setting.
    """
    os.environ.setdefault(WAIT_POLICY, "PASSIVE")


def spinning_advice() -> str | None:
    """Return what to set if torch's threads spin while they wait, else None.

    They do not spin if the user has chosen how they wait, if there is only one, or if torch was
    built with another OpenMP than GNU's. Imports torch.
    """
    import torch

    if any(name in os.environ for name in _OWN_CHOICE) or torch.get_num_threads() < 2:
        return None
    if not _torch_uses_gnu_openmp():
        return None
    return (
        f"the {torch.get_num_threads()} threads of GNU OpenMP spin while they wait, which slows "
        f"down small networks and busy machines: set {WAIT_POLICY}=PASSIVE before this script "
        f"starts ('uic pretrain' and 'python -m uic_plugin SCRIPT' do)"
    )


@functools.cache
def log_spinning_advice() -> None:
    """Log the advice once per process, if there is any."""
    advice = spinning_advice()
    if advice is not None:
        logging.getLogger(__name__).warning(advice)


def _torch_uses_gnu_openmp() -> bool:
    """Return whether torch's OpenMP is GNU's: the one in its folder, else all that are loaded.

    scikit-learn, faiss and others bring their own OpenMP.
    """
    import threadpoolctl
    import torch

    runtimes = threadpoolctl.threadpool_info()
    runtimes = [runtime for runtime in runtimes if runtime["user_api"] == "openmp"]
    folder = os.path.realpath(os.path.dirname(torch.__file__))
    own = [runtime for runtime in runtimes if runtime["filepath"].startswith(folder + os.sep)]
    prefixes = {runtime["prefix"] for runtime in own or runtimes}
    return prefixes == {"libgomp"}
