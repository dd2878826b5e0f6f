"""The map of the features: UMAP where it is installed, else principal components, as is said."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data.labels import LabelTable, write_labels
from uic_plugin.report.page import describe_map
from uic_plugin.report.page.projection import project


@pytest.fixture
def groups():
    """Three groups of 60 points in 24 dimensions, each in a tight ball of its own."""
    draw = np.random.default_rng(0)
    labels = np.arange(180) % 3
    return (5 * np.eye(3, 24)[labels] + 0.3 * draw.normal(size=(180, 24))), labels


@pytest.fixture
def no_umap(monkeypatch):
    """As if umap-learn were not installed."""
    find = importlib.util.find_spec

    def without(name, *more):
        return None if name == "umap" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)


def nearest_is_alike(positions, labels):
    distances = ((positions[:, None] - positions[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(labels[distances.argmin(1)] == labels))


def test_without_umap_principal_components_are_used_and_said(groups, no_umap):
    features, labels = groups
    found = project(features)
    assert found.kind == "pca"
    np.testing.assert_array_equal(found.map, project(features, kind="pca").map)
    assert nearest_is_alike(found.map, labels) == 1
    assert describe_map("auto") == "principal components (pip install umap-learn for UMAP)"
    assert describe_map("pca") == "principal components"
    with pytest.raises(ImportError, match="--map umap needs umap-learn: pip install umap-learn"):
        project(features, kind="umap")


def test_the_command_says_it(no_umap, tmp_path, uic):
    (tmp_path / "images").mkdir()
    paths = [f"{k}.png" for k in range(6)]
    for k, path in enumerate(paths):
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(tmp_path / "images" / path)
    scores = np.ones(6, np.float32)
    write_labels(tmp_path / "l.csv", LabelTable(paths, np.arange(6) % 2, scores, scores))
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=features, paths=np.array(paths))
    done = uic("classes", "l.csv", "images", "--features", "f.npz")
    assert done.returncode == 0, done.stderr
    assert "Map: principal components (pip install umap-learn for UMAP)" in done.stdout
    core = (tmp_path / "classes" / "files" / "core.js").read_text()
    assert json.loads(core[core.index("{") : core.rindex(")")])["map"]["kind"] == "pca"
    done = uic("classes", "l.csv", "images", "--features", "f.npz", "--map", "umap", "--out", "u")
    assert done.returncode == 1
    assert done.stderr == (
        "error: --map umap needs umap-learn: pip install umap-learn, or --map tsne\n"
    )
    assert not (tmp_path / "u").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # numba compiles it when it is imported
def test_umap_is_the_map_where_it_is_installed(groups):
    pytest.importorskip("umap", reason="pip install umap-learn")
    features, labels = groups
    found = project(features)
    assert found.kind == "umap"
    assert describe_map("auto") == "UMAP"
    assert found.map.shape == (180, 2)
    assert found.map.dtype == np.float32
    assert np.isfinite(found.map).all()
    assert nearest_is_alike(found.map, labels) == 1
    np.testing.assert_array_equal(found.map, project(features, kind="umap").map)  # same seed
    few = project(features[:3], kind="umap")
    assert few.kind == "pca"  # too few for neighbours
