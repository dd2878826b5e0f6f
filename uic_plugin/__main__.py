"""Run a script of solo-learn with `uic` registered.

    python -m uic_plugin main_knn.py --pretrained_checkpoint_dir trained_models/uic/...

The script runs unmodified, as `python main_knn.py ...` would run it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from uic_plugin.threads import wait_passively


def main() -> None:
    """Register, then run the script that the command line names."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m uic_plugin SCRIPT.py [its arguments]")
    script = Path(sys.argv[1])
    if not script.is_file():
        raise SystemExit(f"error: there is no script {script}: give the path of main_knn.py, say")
    wait_passively()  # registration imports torch, and so does the script
    from uic_plugin.hosts import HostError, register

    # `solo` may lie beside the script, in a clone that was never installed
    sys.path[0] = str(script.resolve().parent)
    try:
        register()
    except HostError as error:
        raise SystemExit(f"error: {error}") from None
    sys.argv = sys.argv[1:]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
