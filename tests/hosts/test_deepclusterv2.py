"""The host's DeepCluster v2, whose first epoch has no clusters, trains and is measured."""

import math

import pytest
import torch
from host_lines import needs_solo

from uic_plugin.experiments.compare.measure import measure_run
from uic_plugin.hosts import register
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.training import pretrain


@needs_solo
def test_the_loss_of_images_without_clusters_is_zero():
    register()
    from solo.methods.deepclusterv2 import deepclusterv2_loss_func as loss

    outputs = torch.randn(2, 2, 4, 5, requires_grad=True)
    nothing = loss(outputs, -torch.ones(2, 4, dtype=torch.long), 0.1)
    nothing.backward()
    assert float(nothing) == 0
    assert not outputs.grad.any()
    some = torch.tensor([[0, -1, -1, 2], [1, -1, -1, 0]])
    by_hand = [
        torch.nn.functional.cross_entropy(
            outputs[head][:, [0, 3]].reshape(-1, 5) / 0.1, some[head, [0, 3]].repeat(2)
        )
        for head in range(2)
    ]
    assert torch.allclose(loss(outputs, some, 0.1), sum(by_hand) / 2)


@pytest.mark.slow
def test_it_trains_in_cut_epochs_and_has_own_classes(recipe):
    cfg = recipe(
        "methods=deepclusterv2", "max_epochs=3", "method_kwargs.num_prototypes=[20,20]",
        "max_seconds=5", "linear.max_epochs=1", "backbone.kwargs.width=4", name="digits/any",
    )  # fmt: skip
    result = pretrain(cfg, reporter=EpochReporter("test"))
    rows = read_csv(result.run_dir / "epochs.csv")
    assert all(math.isfinite(float(row["train_deepcluster_loss_epoch"])) for row in rows)
    measures = measure_run(result.run_dir, clusters=20)
    assert measures["own_classes"] == 20
    assert 0 < measures["own_nmi"] < 1
    assert 0.1 < measures["own_accuracy_annotated"] <= 1
