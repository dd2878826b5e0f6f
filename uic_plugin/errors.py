"""Endings of a run that are no programming mistakes."""


class Interrupted(Exception):  # not an error
    """The user stopped the run; the message says how to go on."""


class NonFiniteError(ValueError):
    """Loss or weights are NaN or infinite."""


class RankLostError(OSError):
    """Another rank of the job has ended, so that this one cannot go on."""
