"""Labels of equal class sizes."""

import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uic_plugin.pseudo_labels.sinkhorn import open_scores, sinkhorn_labels


def random_scores(images, classes, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(images, classes, generator=generator)


def plain(scores, power, iterations):
    """The definition, with the whole matrix and logarithms."""
    kernel = power * scores.double().log_softmax(1).numpy()
    images, classes = kernel.shape
    rows, columns = np.full(images, -np.log(images)), np.zeros(classes)
    for _ in range(iterations):
        columns = -np.log(classes) - np.logaddexp.reduce(kernel + rows[:, None], 0)
        rows = -np.log(images) - np.logaddexp.reduce(kernel + columns, 1)
    plan = np.exp(kernel + rows[:, None] + columns)
    return plan, plan.argmax(1)


def test_classes_that_are_next_to_impossible():
    scores = random_scores(120, 100)
    scores[:, :50] -= 60  # their powers are 1e-650
    found = sinkhorn_labels(scores, power=25.0, tolerance=1.0)
    assert float((found.class_mass * 100 - 1).abs().max()) < 0.2
    assert int((torch.bincount(found.labels, minlength=100)[:50] > 0).sum()) > 40


def test_sure_images_keep_their_classes():
    scores = torch.full((6, 3), -20.0)
    wanted = [2, 0, 1, 1, 0, 2]
    scores[range(6), wanted] = 20.0
    assert sinkhorn_labels(scores, power=1.0).labels.tolist() == wanted


def test_a_crowded_class_gives_its_least_sure_images_away():
    # all four prefer class 0, the last two less so
    scores = torch.tensor([[9.0, 0.0], [8.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert sinkhorn_labels(scores, power=25.0, tolerance=1e-6).labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("power", [1.0, 10.0, 25.0])
def test_the_plain_definition_gives_the_same(power):
    scores = random_scores(300, 7, scale=0.3)
    found = sinkhorn_labels(scores, power=power, tolerance=1e-8)
    plan, labels = plain(scores, power, found.iterations + 50)
    assert (found.labels.numpy() == labels).mean() > 0.99  # ties of rounding
    assert np.allclose(plan.sum(0), 1 / 7, atol=1e-6)
    assert torch.allclose(found.class_mass, torch.full((7,), 1 / 7).double(), atol=1e-9)


@given(
    images=st.integers(20, 120),
    classes=st.integers(2, 9),
    scale=st.floats(0.01, 30),
    power=st.sampled_from([1.0, 10.0, 25.0]),
    block=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
@pytest.mark.slow
def test_blocks_and_memory_change_nothing(images, classes, scale, power, block, seed):
    scores = random_scores(images, classes, scale, seed)
    options = {"power": power, "block_rows": block, "max_iterations": 40}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may need more iterations
        kept = sinkhorn_labels(scores, **options)
        streamed = sinkhorn_labels(scores, kept_bytes=0, **options)
    assert torch.equal(kept.labels, streamed.labels)
    assert torch.equal(kept.class_mass, streamed.class_mass)
    assert torch.isfinite(kept.class_mass).all()


@pytest.mark.slow
def test_ten_thousand_classes_at_power_25():
    scores = random_scores(10_500, 10_000)
    scores[:, :5000] -= 60  # half of the classes are next to impossible: their powers are 1e-650
    with pytest.warns(UserWarning, match="stopped after 40 iterations"):
        found = sinkhorn_labels(scores, max_iterations=40)
    assert torch.isfinite(found.class_mass).all()
    sizes = torch.bincount(found.labels, minlength=10_000)
    assert float((found.class_mass * 10_000 - 1).abs().mean()) < 0.1
    assert int((sizes[:5000] > 0).sum()) > 3000  # they are used all the same


def test_ranks_that_share_the_images_agree_with_one():
    """Sums and maxima over two halves, as the ranks of a job have them."""
    scores = random_scores(200, 5)
    whole = sinkhorn_labels(scores, power=10.0)
    barrier, box, results = threading.Barrier(2), [None, None], [None, None]

    def reduce_with(combine, rank):
        def reduce(values):
            box[rank] = values.clone()
            barrier.wait()
            combined = combine(box[0], box[1])
            barrier.wait()
            return combined

        return reduce

    def work(rank):
        results[rank] = sinkhorn_labels(
            scores[100 * rank : 100 * (rank + 1)],
            power=10.0,
            total=reduce_with(torch.add, rank),
            largest=reduce_with(torch.maximum, rank),
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    labels = torch.cat([result.labels for result in results])
    assert torch.equal(labels, whole.labels)
    assert results[0].iterations == results[1].iterations == whole.iterations


def test_scores_may_lie_on_disk():
    with open_scores(50, 4, kept_bytes=0) as scores:
        scores.copy_(random_scores(50, 4))
        on_disk = sinkhorn_labels(scores).labels
    assert torch.equal(on_disk, sinkhorn_labels(random_scores(50, 4)).labels)


def test_impossible_input_is_named():
    with pytest.raises(ValueError, match="images, classes"):
        sinkhorn_labels(torch.zeros(3))
    with pytest.raises(ValueError, match="power must be above 0, got 0"):
        sinkhorn_labels(torch.zeros(3, 2), power=0)
    with pytest.raises(ValueError, match="not finite"):
        sinkhorn_labels(torch.tensor([[0.0, float("nan")]]))
    with pytest.warns(UserWarning, match="stopped after 1 iterations"):
        sinkhorn_labels(random_scores(50, 4), tolerance=1e-9, max_iterations=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_callers_scores_stay_as_they_are(dtype):
    scores = random_scores(40, 5).to(dtype)
    kept = scores.clone()
    labels = sinkhorn_labels(scores, power=10.0, tolerance=1e-8).labels
    assert torch.equal(scores, kept)
    _, wanted = plain(kept, 10.0, 500)
    assert (labels.numpy() == wanted).mean() > 0.95  # ties of rounding


def test_an_error_that_is_no_number_does_not_count_as_converged():
    """As when the sums of another rank are NaN."""
    calls = []

    def total(values):
        calls.append(len(values))
        return values * float("nan") if len(calls) == 4 else values  # the first error

    with pytest.raises(ValueError, match=r"at power 25.0 .*NaN after 1 iterations"):
        sinkhorn_labels(random_scores(8, 3), total=total)


@pytest.mark.parametrize(("limit", "kind"), [(4 * 60, "meta"), (4 * 60 - 1, "cpu")])
def test_scores_lie_on_the_device_while_they_fit(limit, kind):
    with open_scores(10, 6, device=torch.device("meta"), device_bytes=limit) as scores:
        assert scores.device.type == kind
