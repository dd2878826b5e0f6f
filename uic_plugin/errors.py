"""Endings of a run that are no mistakes."""


class Interrupted(Exception):  # not an error
    """The user stopped the run; the message says how to go on."""
