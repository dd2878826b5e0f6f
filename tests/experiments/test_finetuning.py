"""Fine-tuning the default network on the classes of a few photographs' worth of digits."""

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data.labels import LabelTable, read_labels
from uic_plugin.experiments.finetuning import _forget_others, _identity, check_backbone
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.run import Run


@pytest.fixture
def folder(tmp_path):
    """Two easy classes, dark and bright noise, 24 images of 48 pixels each, and a text file."""
    rng = np.random.default_rng(0)
    for name, low, high in (("dark 'n' low", 0, 60), ("bright", 190, 255)):
        (tmp_path / "im ages" / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(low, high, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "im ages" / name / f"{number}.png")
    (tmp_path / "im ages" / "bright" / "broken.png").write_text("no image")
    return tmp_path / "im ages"


@pytest.mark.slow
def test_fine_tuned_labels_stand_beside_the_first(uic, folder, tmp_path):
    options = ["--classes", 2, "--size", 32, "--workers", 0, "--out", tmp_path / "classes"]
    done = uic("discover", folder, *options, "--finetune", 2, "--annotations", "--no-page")
    assert done.returncode == 0, done.stderr
    assert "of the images changed class" in done.stdout
    first = read_labels(tmp_path / "classes" / "labels.parquet")
    again = read_labels(tmp_path / "classes" / "finetuned" / "labels.parquet")
    assert sorted(again.paths) == sorted(first.paths)
    assert len(again.paths) == 48  # without the broken one
    methods = [row["method"] for row in read_csv(tmp_path / "classes" / "scores.csv")]
    assert methods == ["uic discover", "uic discover --finetune 2"]
    run = Run.open(tmp_path / "classes" / "finetuned" / "run")
    assert run.config.freeze == 2  # of five layers
    assert run.config.method_kwargs.fixed_labels == str(tmp_path / "classes" / "labels.parquet")


def test_a_run_is_trained_further_by_pretrain(tmp_path):
    with pytest.raises(ValueError, match="--finetune is for pretrained networks by name"):
        check_backbone(str(tmp_path))
    check_backbone("lite0")


def test_a_run_on_other_classes_is_not_resumed(tmp_path):
    half = np.full(2, 0.5, np.float32)
    one = LabelTable(["a", "b"], np.asarray([0, 1]), half, half)
    two = LabelTable(["a", "b"], np.asarray([1, 0]), half, half)
    recipe = compose_recipe("custom/uic_paper", ["run_dir=here", "data.num_workers=2"])
    run = tmp_path / "run"
    _forget_others(tmp_path, _identity(recipe, one))
    run.mkdir()
    moved = compose_recipe("custom/uic_paper", ["run_dir=elsewhere", "data.num_workers=0"])
    _forget_others(tmp_path, _identity(moved, one))
    assert run.is_dir()
    _forget_others(tmp_path, _identity(moved, two))
    assert not run.exists()
    run.mkdir()
    more = compose_recipe("custom/uic_paper", ["max_epochs=7"])
    _forget_others(tmp_path, _identity(more, two))
    assert not run.exists()
