"""The command in a process of its own that may be killed or find the disk full.

A fork takes no seconds to start, as another interpreter does.
"""

import multiprocessing
import os
import resource
import signal
import sys

from uic_plugin import cli


def run(arguments, folder, before=lambda: None):
    """Run the command in a process of its own, after `before`; return its exit code and stderr."""

    def work():
        os.chdir(folder)
        for number, name in ((1, os.devnull), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["uic", *map(str, arguments)]
        before()
        try:
            cli.main()
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode, (folder / "stderr.txt").read_text()


def limited(size):
    """Refuse files above this many bytes, as a full disk would."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
