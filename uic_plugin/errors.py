"""Expected errors that end a run; the command line shows their message without a traceback."""


class Interrupted(Exception):  # not an error
    """The user stopped the run; the message says how to resume it."""


class NonFiniteError(ValueError):
    """Loss or weights are NaN or infinite."""


class RankLostError(OSError):
    """Another rank of the job has ended, so that this one cannot continue."""
