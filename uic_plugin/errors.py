"""Endings of a run that are no mistakes."""


class Interrupted(Exception):  # noqa: N818  # not an error
    """The user stopped the run; the message says how to go on."""
