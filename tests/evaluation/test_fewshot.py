"""Nearest class mean: known answers, and equality with an independent implementation."""

import numpy as np
import pytest
import torch

from uic_plugin.evaluation.fewshot import (
    EpisodeSettings,
    check_classes,
    draw_episode,
    evaluate_episodes,
    nearest_mean,
)


def test_nearest_mean_by_hand():
    support = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 4.0], [0.0, 6.0]]])  # (1,0), (0,5)
    query = torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.4, 0.5]])
    assert nearest_mean(support, query).tolist() == [0, 1, 0]
    assert nearest_mean(support, query, "cosine").tolist() == [0, 1, 1]


def test_an_episode_has_different_images_of_different_classes():
    members = [np.arange(20) + 20 * c for c in range(9)]
    settings = EpisodeSettings(ways=4, shots=3, queries=5)
    seen = set()
    for number in range(50):
        support, query = draw_episode(members, settings, number)
        assert support.shape == (4, 3)
        assert query.shape == (4, 5)
        both = np.concatenate([support, query], 1)
        assert len(np.unique(both)) == both.size
        classes = both // 20
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0])) == 4
        seen |= set(classes[:, 0].tolist())
    assert seen == set(range(9))
    again = draw_episode(members, settings, 7)
    assert np.array_equal(again[0], draw_episode(members, settings, 7)[0])
    other = EpisodeSettings(ways=4, shots=3, queries=5, seed=1)
    assert not np.array_equal(again[0], draw_episode(members, other, 7)[0])


def noisy_classes(spread, count=40, classes=8):
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(classes, 16, generator=generator)
    labels = torch.arange(classes).repeat_interleave(count)
    noise = torch.randn(len(labels), 16, generator=generator)
    return centers[labels] + spread * noise, labels.numpy()


def test_from_certain_to_guessing():
    settings = EpisodeSettings(episodes=200)
    assert evaluate_episodes(*noisy_classes(0.01), settings).mean == 100
    guessing = evaluate_episodes(*noisy_classes(1000.0), settings)
    assert abs(guessing.mean - 20) < 3
    assert 0.3 < guessing.interval < 1.5
    accuracies = guessing.accuracies
    assert guessing.interval == pytest.approx(1.96 * accuracies.std(ddof=1) / np.sqrt(200))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_equals_easyfsl(distance):
    methods = pytest.importorskip("easyfsl.methods")
    features, classes = noisy_classes(1.5)
    settings = EpisodeSettings(episodes=60, distance=distance)
    members = [np.flatnonzero(classes == c) for c in range(8)]
    theirs = []
    for number in range(settings.episodes):
        support, query = draw_episode(members, settings, number)
        model = methods.PrototypicalNetworks(torch.nn.Identity())
        labels = torch.arange(5).repeat_interleave(settings.shots)
        model.process_support_set(features[torch.from_numpy(support.ravel())], labels)
        rows = features[torch.from_numpy(query.ravel())]
        is_plain = distance == "euclidean"
        scores = model(rows) if is_plain else model.cosine_distance_to_prototypes(rows)
        truth = torch.arange(5).repeat_interleave(settings.queries)
        theirs.append(100 * (scores.argmax(1) == truth).double().mean().item())
    ours = evaluate_episodes(features, classes, settings).accuracies
    assert 30 < ours.mean() < 95
    assert ours.tolist() == theirs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ways": 1}, "--ways must be at least 2, got 1"),
        ({"shots": 0}, "--shots must be at least 1"),
        ({"episodes": 1}, "--episodes must be at least 2"),
        ({"distance": "manhattan"}, "euclidean, cosine, got 'manhattan'"),
    ],
)
def test_impossible_settings(given, message):
    with pytest.raises(ValueError, match=message):
        EpisodeSettings(**given)


def test_classes_that_are_too_few_or_too_small_are_named():
    classes = np.array([0] * 30 + [1] * 30 + [2] * 7)
    names = ["cat", "dog", "gnu"]
    with pytest.raises(ValueError, match="--ways 5 classes an episode, the images have 3"):
        check_classes(classes, names, EpisodeSettings())
    with pytest.raises(ValueError, match="'gnu' has 7 images, an episode takes 5 shots and 15"):
        check_classes(classes, names, EpisodeSettings(ways=3))
    check_classes(classes, names, EpisodeSettings(ways=3, shots=1, queries=6))
