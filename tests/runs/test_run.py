"""A trained network as a library: `Run.open(...).predict(...)` and `.features(...)`."""

import numpy as np
import pytest
import torch
from PIL import Image

import uic_plugin
from uic_plugin.runs.labelling import label_images
from uic_plugin.runs.run import Run


@pytest.fixture
def run(recipe, tmp_path):
    result = uic_plugin.pretrain(recipe("max_epochs=1", f"run_dir={tmp_path / 'run'}"))
    assert isinstance(result, uic_plugin.PretrainResult)
    return Run.open(result.run_dir, ["accelerator=cpu"], needs_images=True)


def test_predictions_are_those_of_the_label_file(run, digits, tmp_path):
    table = label_images(run, tmp_path / "labels.csv", data=digits / "val")
    labels, confidence = run.predict(digits / "val")
    assert labels.tolist() == table.labels.tolist()
    np.testing.assert_allclose(confidence, table.confidence, rtol=1e-4)
    some = [digits / "val" / path for path in table.paths[:3]]
    assert run.predict(some)[0].tolist() == labels[:3].tolist()
    opened = [Image.open(path) for path in some]
    assert run.predict(opened)[0].tolist() == labels[:3].tolist()
    views = torch.stack([run.view(image.convert("RGB")) for image in opened])
    assert run.predict(views)[0].tolist() == labels[:3].tolist()
    assert run.features(views).shape == (3, 64)


def test_mistakes_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        run.predict([tmp_path / "nothing.png"])
    with pytest.raises(ValueError, match="no images"):
        run.predict([])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(OSError, match=r"text\.png"):
        run.predict(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError, match="no such run"):
        Run.open(tmp_path / "elsewhere")


def test_a_method_without_classes_has_features_alone(recipe, tmp_path, digits):
    cfg = recipe("max_epochs=1", f"run_dir={tmp_path / 'simclr'}", name="digits/simclr")
    uic_plugin.pretrain(cfg)
    run = Run.open(tmp_path / "simclr")
    assert run.features(digits / "val" / "0").shape[1] == 64
    with pytest.raises(ValueError, match="simclr has no pseudo classes"):
        run.predict(digits / "val" / "0")


def test_public_names_are_there():
    for name in uic_plugin.__all__:
        assert getattr(uic_plugin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = uic_plugin.nothing
