"""Features of real images: kept, resumed, added to, and bad images named."""

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from PIL import Image

from uic_plugin.data.folders import list_images
from uic_plugin.features import embedding, store
from uic_plugin.features.embedding import FrozenNetwork, embed_images
from uic_plugin.features.reading import FrozenImages, Preprocessing, collate
from uic_plugin.features.store import FeatureStore
from uic_plugin.networks.pretrained import load_pretrained
from uic_plugin.networks.registry import find_backbone
from uic_plugin.networks.weights import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "conv4.pth"
    save_weights(find_backbone("conv4")(), file)
    return file


@pytest.fixture
def backbone(weights):
    return load_pretrained("conv4", weights=weights, size=32)


@pytest.fixture
def folder(digits, tmp_path):
    shutil.copytree(digits / "val", tmp_path / "images")
    return tmp_path / "images"


def embed(backbone, folder, out, **kwargs):
    return embed_images(
        backbone,
        list_images(folder),
        out,
        **{"precision": "32", "num_workers": 0, "batch_size": 32, **kwargs},
    )


def test_features_are_those_of_the_network(backbone, folder, tmp_path):
    done = embed(backbone, folder, tmp_path / "store")
    assert done.added == len(list_images(folder).names)
    name = done.names[7]
    with torch.no_grad():
        view = backbone.transform(Image.open(folder / name).convert("RGB"))
        expected = backbone.network(view[None]).flatten(1)[0].numpy()
    found = done.store.features([name])[0].astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_workers_change_nothing(backbone, folder, tmp_path):
    one = embed(backbone, folder, tmp_path / "one")
    two = embed(backbone, folder, tmp_path / "two", num_workers=2)
    np.testing.assert_array_equal(one.store.features(one.names), two.store.features(two.names))


@pytest.mark.parametrize("ends", ["torchvision", "timm", "other"])
def test_views_of_a_batch_are_those_of_its_images(backbone, folder, ends):
    from timm.data import create_transform
    from torchvision import transforms

    statistics = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    crop = [transforms.Resize(12), transforms.CenterCrop(10)]
    whole = {
        "torchvision": transforms.Compose(
            [*crop, transforms.ToTensor(), transforms.Normalize(*statistics)]
        ),
        "timm": create_transform((3, 10, 10), mean=statistics[0], std=statistics[1]),
        "other": transforms.Compose([*crop, transforms.ToTensor()]),
    }[ends]
    names = list_images(folder).names[:6]
    dataset = FrozenImages(folder, names, dataclasses.replace(backbone, transform=whole))
    entries, views = collate([dataset[number] for number in range(6)])
    assert [entry.name for entry in entries] == names
    assert views.dtype == (torch.float32 if ends == "other" else torch.uint8)
    expected = torch.stack([whole(Image.open(folder / name).convert("RGB")) for name in names])
    torch.testing.assert_close(Preprocessing(whole).of_batch(views), expected, rtol=0, atol=0)


def test_a_packed_folder_has_the_same_features(backbone, folder, tmp_path):
    from uic_plugin.data.pack import PackSettings
    from uic_plugin.data.packing import pack_images

    (folder / "3" / "bad.png").write_text("no image")
    pack_images(folder, tmp_path / "packed", PackSettings(0, on_bad_image="skip", workers=0))
    files = embed(backbone, folder, tmp_path / "files")
    packed = embed(backbone, tmp_path / "packed", tmp_path / "store", num_workers=1)
    assert packed.names == files.names
    assert [bad.name for bad in packed.bad] == ["3/bad.png"]
    np.testing.assert_array_equal(
        packed.store.features(packed.names), files.store.features(files.names)
    )
    assert embed(backbone, tmp_path / "packed", tmp_path / "store").added == 0
    pack_images(folder, tmp_path / "smaller", PackSettings(6, on_bad_image="skip", workers=0))
    with pytest.raises(ValueError, match="another folder"):
        embed(backbone, tmp_path / "smaller", tmp_path / "store")


def test_only_new_and_changed_images_are_computed(backbone, folder, tmp_path):
    first = embed(backbone, folder, tmp_path / "store")
    assert embed(backbone, folder, tmp_path / "store").added == 0
    old, other = first.names[:2]
    shutil.copy(folder / other, folder / "new.png")
    shutil.copy(folder / other, folder / old)
    os.utime(folder / old, ns=(5, 5))
    (folder / first.names[2]).unlink()
    again = embed(backbone, folder, tmp_path / "store")
    assert again.added == 2
    assert first.names[2] not in again.names
    rows = again.store.features(["new.png", old, other]).astype(np.float32)
    np.testing.assert_allclose(rows[0], rows[2], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(rows[1], rows[2], rtol=1e-2, atol=1e-3)


def test_features_that_are_there_are_only_read(backbone, folder, tmp_path, monkeypatch):
    embed(backbone, folder, tmp_path / "store")

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(embedding, "writing", refuse)
    assert embed(backbone, folder, tmp_path / "store", precision="auto").added == 0
    (folder / "new.png").write_bytes((folder / list_images(folder).names[0]).read_bytes())
    with pytest.raises(PermissionError):
        embed(backbone, folder, tmp_path / "store")


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "denied"), OSError(errno.EROFS, "read-only")]
)
def test_known_bad_images_need_no_writing(backbone, folder, tmp_path, monkeypatch, error):
    (folder / "bad.png").write_text("no image")
    first = embed(backbone, folder, tmp_path / "store")

    def refuse(_):
        raise error

    monkeypatch.setattr(store, "_lock", refuse)
    again = embed(backbone, folder, tmp_path / "store")
    assert (again.names, again.bad, again.added) == (first.names, first.bad, 0)
    # one that was repaired is as good as new
    shutil.copy(folder / first.names[0], folder / "bad.png")
    with pytest.raises(type(error), match=error.strerror):
        embed(backbone, folder, tmp_path / "store")


def test_another_process_at_work_is_said_of_known_bad_images(backbone, folder, tmp_path):
    (folder / "bad.png").write_text("no image")
    embed(backbone, folder, tmp_path / "store")
    with (
        store._lock(tmp_path / "store"),
        pytest.raises(OSError, match="another process is writing features there"),
    ):
        embed(backbone, folder, tmp_path / "store")


def test_bad_images_are_left_out_and_named(backbone, folder, tmp_path):
    names = list_images(folder).names
    (folder / "text.jpg").write_text("no image")
    (folder / names[0]).write_bytes((folder / names[0]).read_bytes()[:60])
    done = embed(backbone, folder, tmp_path / "store")
    assert sorted(bad.name for bad in done.bad) == sorted(["text.jpg", names[0]])
    assert "text.jpg" not in done.names
    assert len(done.names) == len(names) - 1
    # a fixed image gets its features
    shutil.copy(folder / names[1], folder / "text.jpg")
    assert "text.jpg" in embed(backbone, folder, tmp_path / "store").names


def test_no_image_at_all(backbone, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "readme.txt").write_text("text")
    with pytest.raises(FileNotFoundError, match="no images there"):
        embed(backbone, tmp_path / "images", tmp_path / "store")
    (tmp_path / "images" / "a.png").write_text("text")
    with pytest.raises(ValueError, match="none of the 1 images"):
        embed(backbone, tmp_path / "images", tmp_path / "store")


def test_store_of_another_network_is_refused(backbone, folder, tmp_path, weights):
    embed(backbone, folder, tmp_path / "store")
    torch.manual_seed(1)
    save_weights(find_backbone("conv4")(), tmp_path / "other.pth")
    other = load_pretrained("conv4", weights=tmp_path / "other.pth", size=32)
    with pytest.raises(ValueError, match="other weights"):
        embed(other, folder, tmp_path / "store")
    layer = load_pretrained("conv4", weights=weights, size=32, layer="conv3")
    with pytest.raises(ValueError, match="another layer"):
        embed(layer, folder, tmp_path / "store")


def test_any_layer(weights, folder, tmp_path):
    maps = load_pretrained("conv4", weights=weights, size=32, layer="conv2")
    assert embed(maps, folder, tmp_path / "store").store.identity.dim == 64  # its channels
    with pytest.raises(ValueError, match="unknown layer 'conv9'"):
        embed(load_pretrained("conv4", weights=weights, layer="conv9"), folder, tmp_path / "other")


def test_precision_is_measured_once(backbone, folder, tmp_path):
    first = embed(backbone, folder, tmp_path / "store", precision="auto")
    assert first.store.identity.precision in ("32", "bf16")
    again = embed(backbone, folder, tmp_path / "store", precision="auto")
    assert again.store.identity.precision == first.store.identity.precision


def test_bf16_is_near(backbone, folder, tmp_path):
    full = embed(backbone, folder, tmp_path / "full")
    half = embed(backbone, folder, tmp_path / "half", precision="bf16")
    a, b = (torch.from_numpy(np.array(d.store.features(d.names))).float() for d in (full, half))
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.99


def test_network_is_left_frozen(backbone):
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    FrozenNetwork(backbone)(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(before[k], v) for k, v in backbone.network.state_dict().items())


@pytest.mark.slow
def test_killed_process_resumes(backbone, weights, folder, tmp_path):
    whole = embed(backbone, folder, tmp_path / "whole", batch_size=8)
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        sys.path[:0] = {sys.path!r}
        import torch
        torch.set_num_threads(1)
        from uic_plugin.data.folders import list_images
        from uic_plugin.features.embedding import embed_images
        from uic_plugin.networks.pretrained import load_pretrained
        backbone = load_pretrained("conv4", weights=Path({str(weights)!r}), size=32)
        embed_images(
            backbone, list_images(Path({str(folder)!r})), Path({str(tmp_path / "part")!r}),
            precision="32", batch_size=8, num_workers=0,
            progress=lambda done, total: time.sleep(0.05),
        )
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    lines = tmp_path / "part" / "images.jsonl"
    while not (lines.is_file() and lines.read_bytes().count(b"\n") >= 40):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(FeatureStore.open(tmp_path / "part").names)
    assert 40 <= kept < len(whole.names)
    resumed = embed(backbone, folder, tmp_path / "part", batch_size=8)
    assert resumed.added == len(whole.names) - kept
    np.testing.assert_array_equal(
        resumed.store.features(resumed.names), whole.store.features(whole.names)
    )


def test_an_image_that_could_not_be_read_once_is_tried_again(
    backbone, folder, tmp_path, monkeypatch
):
    """A drive that was away, permissions: neither changes the file."""
    read, away = FrozenImages._image, sorted(list_images(folder).names)[3]

    def without(self, name):
        if name == away:
            raise PermissionError(13, "Permission denied")
        return read(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(FrozenImages, "_image", without)
        for _ in range(2):
            done = embed(backbone, folder, tmp_path / "store")
            assert [entry.name for entry in done.bad] == [away]
    lines = (tmp_path / "store" / "images.jsonl").read_text().splitlines()
    assert len(lines) == len(list_images(folder).names)  # said once
    done = embed(backbone, folder, tmp_path / "store")
    assert (done.added, done.bad) == (1, [])
    assert away in done.names
