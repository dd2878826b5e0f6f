"""`uic knn`: the host's k-NN on a run's frozen features."""

from __future__ import annotations

from uic_plugin.cli.common import Overrides, RunPath, Stores, Untrained, terminal


def knn(
    run: RunPath,
    overrides: Overrides = None,
    untrained: Untrained = False,
    features: Stores = None,
) -> None:
    """The host's weighted k-NN accuracy on the frozen features of a run."""
    from uic_plugin.runs.evaluation import extract_features, knn_accuracy, read_features
    from uic_plugin.runs.run import Run

    opened = Run.open(run, overrides or [], untrained=untrained, needs_images=True)
    knn = opened.config.knn
    rows = read_features(opened, features) if features else extract_features(opened)
    accuracy = knn_accuracy(rows, **knn)
    terminal().print(f"k-NN top-1 {accuracy:.2f} %  (k={knn.k}, {knn.distance}) {opened.weights}")
