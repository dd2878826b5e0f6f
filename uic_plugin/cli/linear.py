"""`uic linear`: the host's linear evaluation of a run."""

from __future__ import annotations

from uic_plugin.cli.common import Overrides, RunPath, Untrained, terminal


def linear(run: RunPath, overrides: Overrides = None, untrained: Untrained = False) -> None:
    """The host's linear evaluation on the frozen features of a run."""
    from uic_plugin.runs.evaluation import linear_accuracy
    from uic_plugin.runs.run import Run

    opened = Run.open(run, overrides or [], untrained=untrained, needs_images=True)
    epochs = opened.config.linear.max_epochs
    accuracy = linear_accuracy(opened)
    terminal().print(f"linear top-1 {accuracy:.2f} %  ({epochs} epochs) {opened.weights}")
