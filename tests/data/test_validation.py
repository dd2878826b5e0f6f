"""The share of the training images that judges settings."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import STL10

from uic_plugin.data.images import relative_paths
from uic_plugin.data.validation import held_out_numbers
from uic_plugin.runs.datasets import eval_datasets, pretrain_dataset
from uic_plugin.runs.settings import prepare_config


@given(count=st.integers(2, 500), share=st.floats(0.01, 0.49))
def test_every_image_is_in_one_part(count, share):
    held, rest = (held_out_numbers(count, share, part) for part in ("held_out", "rest"))
    assert sorted([*held, *rest]) == list(range(count))
    assert len(held) == max(1, round(share * count))
    assert np.array_equal(held, held_out_numbers(count, share, "held_out"))


@pytest.mark.parametrize("share", [1, -0.1, "a", True])
def test_impossible_shares_are_told(share):
    with pytest.raises(ValueError, match=r"data.held_out must be 0, or lie between 0 and 1"):
        held_out_numbers(10, share, "rest")
    with pytest.raises(ValueError, match="leaves none of the 1 images"):
        held_out_numbers(1, 0.5, "rest")


def paths(dataset):
    return set(relative_paths(dataset))


@pytest.mark.parametrize("more", [pytest.param([], marks=pytest.mark.slow), ["data.fraction=0.5"]])
def test_held_out_images_are_not_trained_on_and_no_test_image_is_read(
    recipe, digits, tmp_path, more
):
    shutil.copytree(digits, tmp_path / "data", symlinks=True)
    for path in (tmp_path / "data" / "val").rglob("*.png"):
        path.write_bytes(b"no image")
    where = [f"data.{part}_path={tmp_path / 'data' / part}" for part in ("train", "val")]
    cfg, source = prepare_config(recipe(*where, *more, "data.held_out=0.1"))
    whole, _ = prepare_config(recipe(*where, *more))
    trained = pretrain_dataset(cfg, source)
    rest, held_out = eval_datasets(cfg, source)
    assert paths(trained) == paths(rest)
    assert not paths(rest) & paths(held_out)
    assert paths(rest) | paths(held_out) == paths(pretrain_dataset(whole, source))
    assert len(held_out) == round(0.1 * len(pretrain_dataset(whole, source)))
    # of the training folder: no test image could be read
    assert all(view.shape == (3, 16, 16) for view, _ in held_out)


def test_stl10_whose_unlabelled_images_are_trained_on_has_none_held_out(
    recipe, tmp_path, monkeypatch
):
    """Its files, with six images in each, are read by the host and torchvision themselves."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 96, 96), dtype=np.uint8)
    for part in ("train", "test", "unlabeled"):
        pixels.tofile(folder / f"{part}_X.bin")
    for part in ("train", "test"):
        (np.arange(6, dtype=np.uint8) % 3 + 1).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\n")
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    given = ["data.dataset=stl10", f"data.train_path={tmp_path}", "data.fraction=-1"]
    cfg, source = prepare_config(recipe(*given))
    assert len(pretrain_dataset(cfg, source)) == 12
    assert [len(part) for part in eval_datasets(cfg, source)] == [6, 6]
    cfg.data.held_out = 0.2
    for read in (pretrain_dataset, eval_datasets):
        with pytest.raises(ValueError, match=r"data.held_out=0.2 does not work on STL-10: .* set"):
            read(cfg, source)


@pytest.mark.all_digits
def test_images_of_an_index(recipe, digits, tmp_path):
    from uic_plugin.data.index import write_index

    write_index(digits / "train", tmp_path / "train.index")
    given = [f"data.train_path={digits / 'train'}", f"data.val_path={digits / 'val'}"]
    cfg, source = prepare_config(
        recipe(*given, "data.held_out=0.25", f"data.index={tmp_path / 'train.index'}")
    )
    trained = pretrain_dataset(cfg, source)
    rest, held_out = eval_datasets(cfg, source)
    assert trained.names() == rest.names()
    assert not set(rest.names()) & set(held_out.names())
    assert trained.fingerprint == rest.fingerprint != held_out.fingerprint
    assert trained[3][0] == 3
    assert held_out[0][0].shape == (3, 16, 16)
