"""`uic knn`: the host's k-NN on a run's frozen features."""

from __future__ import annotations

from uic_plugin.cli.common import Overrides, RunPath, Untrained, terminal


def knn(run: RunPath, overrides: Overrides = None, untrained: Untrained = False) -> None:
    """The host's weighted k-NN accuracy on the frozen features of a run."""
    from uic_plugin.runs.evaluation import extract_features, knn_accuracy
    from uic_plugin.runs.run import Run

    opened = Run.open(run, overrides or [], untrained=untrained, needs_images=True)
    knn = opened.config.knn
    accuracy = knn_accuracy(extract_features(opened), **knn)
    terminal().print(f"k-NN top-1 {accuracy:.2f} %  (k={knn.k}, {knn.distance}) {opened.weights}")
