"""Labels of the step: balanced, and nothing kept of an image."""

import numpy as np
import pytest
import torch

from uic_plugin.pseudo_labels import StepLabels, StepTelemetry, nmi, purity


def test_a_clear_answer_is_the_label():
    labels = StepLabels(100, 4, window=1000)
    answers = torch.eye(4).repeat(8, 1)
    for _ in range(3):
        found = labels.assign(10 * answers)
    assert found.tolist() == [0, 1, 2, 3] * 8


def test_a_class_that_is_always_the_answer_is_shared_out():
    """Images differ a little, but one class is far ahead in all of them."""
    generator = torch.Generator().manual_seed(0)
    labels = StepLabels(100, 10, window=10)
    for _ in range(200):
        logits = torch.randn(64, 10, generator=generator)
        logits[:, 3] += 20
        labels.assign(logits)
    labels.start_counts()
    for _ in range(50):
        logits = torch.randn(64, 10, generator=generator)
        logits[:, 3] += 20
        labels.assign(logits)
    sizes = labels.class_sizes().numpy()
    assert sizes.sum() == 50 * 64
    assert sizes.min() > 0.5 * sizes.mean()
    assert sizes.max() < 2 * sizes.mean()


def test_state_resumes():
    torch.manual_seed(0)
    first, second = StepLabels(100, 5), StepLabels(0, 5)
    first.assign(torch.randn(32, 5))
    first.commit()
    second.load_state_dict(first.state_dict())
    logits = torch.randn(32, 5)
    assert torch.equal(first.assign(logits), second.assign(logits))
    assert second.epoch == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"running": torch.zeros(3, 6)}, "6 pseudo classes, this run has 5"),
        ({"running": None}, "not trained with method_kwargs.label_source=step"),
        ({"running": torch.full((3, 5), float("nan"))}, "no such numbers"),
        ({"epoch": "1"}, "no such numbers"),
    ],
)
def test_another_state_is_refused(change, message):
    labels = StepLabels(100, 5)
    with pytest.raises(ValueError, match=message):
        labels.load_state_dict({**labels.state_dict(), **change})


def test_metrics_of_what_passed_by():
    telemetry = StepTelemetry(3, 2)
    annotations = np.array([0, 0, 1, 1, -1])
    given = np.array([2, 2, 0, 1, 1])
    telemetry.note(torch.from_numpy(given), torch.from_numpy(annotations))
    metrics = telemetry.summary()
    assert metrics["nmi"] == pytest.approx(nmi(annotations[:4], given[:4]))
    assert metrics["purity"] == purity(annotations[:4], given[:4]) == 1
    assert "nmi" not in telemetry.summary()
