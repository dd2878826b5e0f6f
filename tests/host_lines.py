"""What tests have to know of the installed host: there are three lines of hosts."""

import pytest

from uic_plugin.hosts import HostError, find_host


def host_line():
    """Name the installed host's line; empty without one, for tests that need none."""
    try:
        return find_host().line
    except HostError:
        return ""


LINE = host_line()
ONLINE = "online_classifier" if LINE == "lightly" else "classifier"  # learns from annotations
needs_solo = pytest.mark.skipif(LINE == "lightly", reason="about solo-learn alone")


def answers(method, images):
    """Return a method's features, and the logits of its head where it has one of ours.

    solo-learn's methods return a dictionary, lightly's the features.
    """
    out = method(images)
    if LINE != "lightly":
        return out["feats"], out.get("pseudo_logits")
    head = getattr(method, "head", None)
    return out, head(out)[1] if hasattr(head, "per_head") else None
