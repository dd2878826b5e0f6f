"""Clusters of features."""

import sys

import numpy as np
import pytest

from uic_plugin.pseudo_labels.kmeans import cluster_features, whiten


def blobs(spread=0.01):
    """Nine points around three corners of a triangle."""
    corners = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0]], np.float32)
    noise = np.random.default_rng(0).normal(0, spread, (9, 3)).astype(np.float32)
    return np.repeat(corners, 3, 0) + noise


@pytest.mark.parametrize("pca_dim", [None, 2])
def test_corners_are_found(pca_dim):
    labels = cluster_features(blobs(), 3, pca_dim=pca_dim).reshape(3, 3)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0])) == 3


def test_the_sum_of_squared_distances_is_the_least():
    points = np.array([[0.0], [2.0], [10.0], [14.0]], np.float32)
    labels = cluster_features(points, 2, pca_dim=None)
    centroids = np.array([points[labels == label].mean() for label in (0, 1)])
    distances = points[:, 0] - centroids[labels]
    assert (distances**2).sum() == pytest.approx(1 + 1 + 4 + 4)


def test_the_seed_decides():
    features = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    first, again = (cluster_features(features, 20, seed=3) for _ in range(2))
    assert (first == again).all()
    assert (first != cluster_features(features, 20, seed=4)).any()


def test_whitened_features_have_unit_length_and_equal_variance():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 4)).astype(np.float32) * [1, 5, 20, 100]
    white = whiten(features, 4)
    assert np.allclose(np.linalg.norm(white, axis=1), 1, atol=1e-5)
    assert np.allclose(white.T @ white / len(white), np.eye(4) / 4, atol=0.02)


def test_features_that_are_always_zero_are_left_out():
    features = np.zeros((100, 6), np.float32)
    features[:, :2] = np.random.default_rng(0).normal(size=(100, 2))
    white = whiten(features, 256)
    assert white.shape == (100, 2)
    assert np.isfinite(white).all()


def test_a_collapsed_network_is_named():
    with pytest.raises(ValueError, match="the network has collapsed"):
        cluster_features(np.ones((50, 4), np.float32), 3)


def test_impossible_input_is_named():
    with pytest.raises(ValueError, match="9 images cannot be put into 10 clusters"):
        cluster_features(blobs(), 10)
    broken = blobs()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        cluster_features(broken, 3)


def test_without_faiss_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="pip install faiss-cpu, or faiss-gpu"):
        cluster_features(blobs(), 3)


@pytest.mark.parametrize("pca_dim", [None, 2])
def test_a_sample_labels_all_images(monkeypatch, pca_dim):
    from uic_plugin.pseudo_labels import kmeans

    monkeypatch.setattr(kmeans, "_BLOCK", 7)
    corners = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0]], np.float32)
    noise = np.random.default_rng(0).normal(0, 0.01, (300, 3)).astype(np.float32)
    points = np.repeat(corners, 100, 0) + noise
    labels = cluster_features(points, 3, pca_dim=pca_dim, sample=30).reshape(3, 100)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0])) == 3
    again = cluster_features(points, 3, pca_dim=pca_dim, sample=30).reshape(3, 100)
    assert (labels == again).all()


def test_a_sample_is_no_smaller_than_the_clusters_and_of_all_images_changes_nothing():
    features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    assert len(set(cluster_features(features, 50, pca_dim=None, sample=1))) > 30
    whole = cluster_features(features, 5, seed=2)
    assert (whole == cluster_features(features, 5, seed=2, sample=60)).all()
