"""Selective search: it finds digits, the same ones every time, and searches an image once."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from uic_plugin.data.voc_folder import VocObjects, find_voc
from uic_plugin.evaluation.voc.proposals import ProposalCache, selective_search
from uic_plugin.evaluation.voc.settings import ProposalSettings

pytest.importorskip("cv2.ximgproc", reason="needs opencv-contrib-python-headless")


@pytest.fixture(scope="module")
def images(voc_digits):
    return VocObjects(find_voc(voc_digits, "trainval"), "trainval")


def test_every_digit_has_a_region_and_none_leaves_the_image(images):
    found = []
    for number, objects in enumerate(images.objects):
        regions = torch.from_numpy(selective_search(images.image(number), ProposalSettings()))
        assert regions.min() >= 0
        assert (regions[:, 2:].amax(0) <= torch.tensor([112, 80])).all()
        found += box_iou(objects.boxes, regions.float()).amax(1).tolist()
    assert np.mean(found) > 0.5
    assert np.mean(np.asarray(found) >= 0.5) > 0.8


def test_the_same_regions_every_time_and_limits(images):
    image = images.image(1)
    first = selective_search(image, ProposalSettings())
    assert np.array_equal(first, selective_search(image, ProposalSettings()))
    few = selective_search(image, ProposalSettings(most=5))
    assert len(few) == 5
    large = selective_search(image, ProposalSettings(smallest=40))
    assert (large[:, 2:] - large[:, :2]).min() >= 40
    scaled = selective_search(image, ProposalSettings(side=160))
    assert scaled.max() <= 112


def test_an_image_is_searched_once(images, tmp_path):
    paths = images.reader.images[:3]
    told = []
    cache = ProposalCache(tmp_path, ProposalSettings())
    assert cache.compute(paths, 2, lambda done, total: told.append((done, total))) == 3
    assert told[-1] == (3, 3)
    assert cache.of(paths[0]).dtype == torch.float32
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(files) == 3
    again = ProposalCache(tmp_path, ProposalSettings())
    assert again.compute(paths, 2) == 0
    copy = tmp_path / "copy.jpg"  # another name, the same content
    copy.write_bytes(Path(paths[0]).read_bytes())
    assert again.compute([str(copy)], 1) == 0
    assert ProposalCache(tmp_path, ProposalSettings(smallest=20)).compute(paths[:1], 1) == 1
    assert all(path.stat().st_mtime_ns == when for path, when in files.items())


@pytest.mark.slow
def test_two_runs_search_the_same_images_at_once(images, tmp_path):
    caches = [ProposalCache(tmp_path, ProposalSettings()) for _ in range(2)]
    paths = images.reader.images
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda cache: cache.compute(paths, 2), caches))
    assert len(list(tmp_path.rglob("*.npy"))) == len(list(tmp_path.rglob("*.*"))) == len(paths)


def test_a_damaged_image_leaves_the_others(images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    cache = ProposalCache(tmp_path / "cache", ProposalSettings())
    with pytest.raises(OSError, match=r"broken\.jpg"):
        cache.compute([*images.reader.images[:1], str(broken)], 1)
    assert cache.compute(images.reader.images[:1], 1) == 0


def test_without_opencv_it_says_what_to_install(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"pip install 'uic-plugin\[voc\]'"):
        ProposalCache(tmp_path, ProposalSettings()).compute(images.reader.images[:1], 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"mode": "slow"}, "--proposals must be fast or quality"), ({"side": 3}, "--proposal-side")],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        ProposalSettings(**given)
