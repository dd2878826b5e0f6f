"""Packed folders: known pixels, kills, unreadable images, a full disk."""

import errno
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from uic_plugin.data import pack_work
from uic_plugin.data.folders import check_outside, images_below
from uic_plugin.data.images import BadImageError, fingerprint_of, path_of, relative_paths
from uic_plugin.data.index import write_index
from uic_plugin.data.pack import PackSettings
from uic_plugin.data.pack_pixels import CHUNK, fitted
from uic_plugin.data.packed import PackedImages, PackStore
from uic_plugin.data.packing import pack_images

ARRAYS = ("pixels.npy", "offsets.npy", "sizes.npy", "annotations.npy")
AS_THEY_ARE = PackSettings(0, workers=0)


def draw(path, height, width, seed=0):
    """Write an image of random pixels, and return them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def photos(tmp_path):
    """Three images of two classes in two sizes, and their pixels."""
    root = tmp_path / "photos"
    shapes = {"cat/1.png": (4, 6), "cat/2.png": (5, 3), "dog/deep/1.png": (4, 6)}
    return root, [
        draw(root / name, *shape, seed) for seed, (name, shape) in enumerate(shapes.items())
    ]


def same_files(one, two):
    for name in ARRAYS:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def forked(work, *arguments):
    """Run a function in a process of its own; return how that ended."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


class TestStore:
    def test_pixels_are_those_of_the_files(self, photos, tmp_path):
        root, pixels = photos
        store = pack_images(root, tmp_path / "packed", AS_THEY_ARE)
        assert [store.raw(number).tolist() for number in range(3)] == [p.tolist() for p in pixels]
        assert [np.asarray(store.image(n)).tolist() for n in range(3)] == [
            p.tolist() for p in pixels
        ]
        assert store.annotations.tolist() == [0, 0, 1]
        assert store.offsets.tolist() == [0, 72, 117]
        assert store.sizes.tolist() == [[4, 6], [5, 3], [4, 6]]
        assert not store.is_uniform
        found = store.raw_batch([2, 0])
        assert [image.tolist() for image in found] == [pixels[2].tolist(), pixels[0].tolist()]

    def test_numpy_opens_it_without_this_package(self, photos, tmp_path):
        root, pixels = photos
        pack_images(root, tmp_path / "packed", AS_THEY_ARE)
        flat, offsets, sizes, annotations = (
            np.load(tmp_path / "packed" / name, mmap_mode="r") for name in ARRAYS
        )
        height, width = sizes[1]
        image = flat[offsets[1] : offsets[1] + 3 * height * width].reshape(height, width, 3)
        assert image.tolist() == pixels[1].tolist()
        assert annotations.tolist() == [0, 0, 1]

    def test_images_of_one_size_are_one_array(self, photos, tmp_path):
        root, pixels = photos
        (root / "cat" / "2.png").unlink()
        store = pack_images(root, tmp_path / "packed", AS_THEY_ARE)
        assert np.load(tmp_path / "packed" / "pixels.npy").shape == (2, 4, 6, 3)
        batch = store.raw_batch(np.array([1, 0, 1]))
        assert batch.tolist() == [pixels[2].tolist(), pixels[0].tolist(), pixels[2].tolist()]
        batch[:] = 0  # a copy: the store does not change
        assert store.raw(0).tolist() == pixels[0].tolist()

    def test_it_counts_as_the_folder(self, photos, tmp_path):
        root, _ = photos
        packed = PackedImages(pack_images(root, tmp_path / "packed", AS_THEY_ARE), lambda i: i)
        folder = ImageFolder(str(root))
        assert fingerprint_of(packed) == fingerprint_of(folder)
        assert relative_paths(packed) == relative_paths(folder)
        assert path_of(packed, 2) == path_of(folder, 2)
        assert packed.targets.tolist() == folder.targets
        for (image, target), (other, annotation) in zip(packed, folder, strict=True):
            assert image.tobytes() == other.tobytes()
            assert target == annotation

    def test_a_part_counts_as_that_part(self, photos, tmp_path):
        root, pixels = photos
        packed = PackedImages(pack_images(root, tmp_path / "packed", AS_THEY_ARE), lambda i: i)
        folder = ImageFolder(str(root))
        packed.keep(np.array([2, 0]))
        folder.samples = [folder.samples[2], folder.samples[0]]
        assert fingerprint_of(packed) == fingerprint_of(folder)
        assert packed.names() == relative_paths(folder) == ["dog/deep/1.png", "cat/1.png"]
        assert packed.name(0) == "dog/deep/1.png"
        assert packed.raw(0).tolist() == pixels[2].tolist()
        assert packed.raw_batch([1, 0])[0].tolist() == pixels[0].tolist()
        assert [target for _, target in packed] == [1, 0]
        packed.keep(np.array([1]))
        assert packed.names() == ["cat/1.png"]

    def test_a_process_gets_the_path_and_not_the_pixels(self, digits, tmp_path):
        store = pack_images(digits / "val", tmp_path / "packed", AS_THEY_ARE)
        content = pickle.dumps(store)
        assert len(content) < 1000
        assert pickle.loads(content).raw(7).tolist() == store.raw(7).tolist()

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda f: os.truncate(f / "pixels.npy", 200), "is damaged .*pack the images anew"),
            (lambda f: os.truncate(f / "sizes.npy", 0), "is damaged .*pack the images anew"),
            (lambda f: (f / "sizes.npy").unlink(), "sizes.npy is missing: pack the images anew"),
            (lambda f: (f / "pack.json").write_text("{"), "pack.json is damaged"),
            (lambda f: np.save(f / "offsets.npy", np.zeros(2, int)), "do not fit together"),
            (lambda f: (f / "images.index").write_bytes(b"no"), "is no index"),
        ],
    )
    def test_damage_is_one_line(self, photos, tmp_path, damage, message):
        packed = tmp_path / "packed"
        pack_images(photos[0], packed, AS_THEY_ARE)
        damage(packed)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            PackStore.open(packed)


class TestSize:
    @settings(max_examples=60, deadline=None)
    @given(
        width=st.integers(1, 70),
        height=st.integers(1, 70),
        size=st.integers(1, 40),
        square=st.booleans(),
    )
    def test_it_is_that_of_torchvision(self, width, height, size, square):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(pixels)
        expected = transforms.Resize(size)(image)
        if square:
            expected = transforms.CenterCrop(size)(expected)
        elif min(width, height) < size:
            expected = image
        found = fitted(image, size, square)
        assert found.size == expected.size
        assert found.tobytes() == expected.tobytes()

    def test_an_evaluation_finds_nothing_left_to_resize(self, tmp_path):
        draw(tmp_path / "photos" / "a.png", 50, 70)
        store = pack_images(tmp_path / "photos", tmp_path / "packed", PackSettings(32, workers=0))
        view = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
        with Image.open(tmp_path / "photos" / "a.png") as image:
            assert view(image).tobytes() == view(store.image(0)).tobytes()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"size": -1}, "--size must be at least 1, or 0 for all pixels, got -1"),
            ({"size": 0, "square": True}, "--size must be at least 1 for squares, got 0"),
            ({"size": 1, "on_bad_image": "no"}, "--on-bad-image must be stop or skip, got 'no'"),
            ({"size": 1, "max_bad_images": -1}, "--max-bad-images must be at least 0, got -1"),
        ],
    )
    def test_impossible_settings(self, given, message):
        with pytest.raises(ValueError, match=message):
            PackSettings(**given)


class TestSource:
    def test_a_flat_folder_has_no_annotations(self, tmp_path):
        root = tmp_path / "flat"
        pixels = [draw(root / f"{n}.png", 2, 2, n) for n in range(3)]
        (root / "notes.txt").write_text("no image")
        store = pack_images(root, tmp_path / "packed", AS_THEY_ARE)
        assert list(store.index.names()) == ["0.png", "1.png", "2.png"]
        assert store.annotations.tolist() == [-1, -1, -1]
        assert store.raw_batch([1]).tolist() == [pixels[1].tolist()]

    def test_an_index(self, photos, tmp_path):
        root, pixels = photos
        write_index(root, tmp_path / "photos.index")
        draw(root / "ape" / "0.png", 2, 2)  # not in the list
        store = pack_images(tmp_path / "photos.index", tmp_path / "a", AS_THEY_ARE, folder=root)
        assert store.annotations.tolist() == [0, 0, 1]
        assert store.index.classes == ["cat", "dog"]
        assert store.raw(2).tolist() == pixels[2].tolist()
        with pytest.raises(FileNotFoundError, match=r"has no cat/1.png, .* give their folder"):
            pack_images(tmp_path / "photos.index", tmp_path / "b", AS_THEY_ARE)
        root.rename(tmp_path / "images")  # found beside the index
        same = pack_images(tmp_path / "photos.index", tmp_path / "b", AS_THEY_ARE)
        assert same.about.fingerprint == store.about.fingerprint

    def test_a_split(self, photos, tmp_path):
        root, pixels = photos
        rows = "filename,label\ndog/deep/1.png,n2\ncat/1.png,n1\n"
        (root / "train.csv").write_text(rows)
        store = pack_images(root / "train.csv", tmp_path / "packed", AS_THEY_ARE)
        assert list(store.index.names()) == ["cat/1.png", "dog/deep/1.png"]
        assert store.annotations.tolist() == [0, 1]
        assert store.raw(1).tolist() == pixels[2].tolist()
        with pytest.raises(FileNotFoundError, match=r"--folder .*: is for an index file"):
            pack_images(root / "train.csv", tmp_path / "more", AS_THEY_ARE, folder=root)

    def test_what_cannot_be_packed(self, photos, tmp_path):
        root, _ = photos
        with pytest.raises(FileNotFoundError, match="there is no such folder of images, index or"):
            pack_images(tmp_path / "none", tmp_path / "packed", AS_THEY_ARE)
        with pytest.raises(ValueError, match="whose class folder it would be"):
            pack_images(root, root / "packed", AS_THEY_ARE)
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match=r"empty: no images there"):
            pack_images(tmp_path / "empty", tmp_path / "packed", AS_THEY_ARE)
        with pytest.raises(FileExistsError, match="holds something else"):
            pack_images(tmp_path / "empty", root, AS_THEY_ARE)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos"]

    def test_commands_that_need_files_say_so(self, photos, tmp_path):
        pack_images(photos[0], tmp_path / "packed", AS_THEY_ARE)
        with pytest.raises(FileNotFoundError, match=f"made of, {photos[0].resolve()}"):
            images_below(tmp_path / "packed")

    def test_pictures_do_not_go_among_the_originals(self, photos, tmp_path):
        root, _ = photos
        packed = tmp_path / "packed"
        pack_images(root, packed, AS_THEY_ARE)
        for out, folder in ((packed / "x", packed), (root / "cat" / "x", root)):
            with pytest.raises(ValueError, match=f"lies in {folder}, and its pictures .* --out"):
                check_outside(out, packed)
        check_outside(tmp_path / "x", packed)
        shutil.rmtree(root)
        check_outside(root / "x", packed)  # where no originals are left

    def test_what_is_there_stays(self, photos, tmp_path):
        root, _ = photos
        packed = tmp_path / "packed"
        pack_images(root, packed, AS_THEY_ARE)
        before = (packed / "pixels.npy").stat()
        pack_images(root, packed, PackSettings(0))
        with pytest.raises(FileExistsError, match=r"has other settings .--size 0, of"):
            pack_images(root, packed, PackSettings(3, workers=0))
        first = next(path for path in sorted(root.rglob("*.png")))
        times = first.stat()
        os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
        with pytest.raises(FileExistsError, match="packed before some of its images changed"):
            pack_images(root, packed, AS_THEY_ARE)
        os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
        draw(root / "cat" / "3.png", 2, 2)
        with pytest.raises(FileExistsError, match="holds other images"):
            pack_images(root, packed, AS_THEY_ARE)
        assert (packed / "pixels.npy").stat() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "photos"]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_processes_changes_nothing(digits, tmp_path, workers):
    pack_images(digits / "val", tmp_path / "alone", AS_THEY_ARE)
    counts = []
    pack_images(
        digits / "val",
        tmp_path / "packed",
        PackSettings(0, workers=workers),
        progress=lambda done, total: counts.append((done, total)),
    )
    same_files(tmp_path / "alone", tmp_path / "packed")
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == ((0, 355), (355, 355))


def pack_and_die(source, out, at, workers):
    pack_work._SAFE_SECONDS = 0.0

    def die(done, total):
        if done >= at:
            os.kill(os.getpid(), signal.SIGKILL)

    pack_images(source, out, PackSettings(0, workers=workers), progress=die)


class TestKill:
    @pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
    def test_a_killed_call_resumes(self, digits, tmp_path, workers):
        source, out = digits / "train", tmp_path / "packed"
        pack_images(source, tmp_path / "whole", AS_THEY_ARE)
        at = 0
        for _ in range(2):
            at += 5 * CHUNK
            assert forked(pack_and_die, source, out, at, workers) == -signal.SIGKILL
            assert not out.exists()
        counts = []
        pack_images(
            source,
            out,
            PackSettings(0, workers=workers),
            progress=lambda done, total: counts.append(done),
        )
        assert counts[0] >= 5 * CHUNK  # what was safe by then
        same_files(out, tmp_path / "whole")
        assert (out / "pack.json").read_text() == (tmp_path / "whole" / "pack.json").read_text()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["packed", "whole"]

    def test_half_a_line_and_a_changed_file(self, digits, tmp_path):
        source, out = tmp_path / "digits", tmp_path / "packed"
        shutil.copytree(digits / "train", source)
        forked(pack_and_die, source, out, 6 * CHUNK, 0)
        journal = tmp_path / ".packed.part" / "journal.jsonl"
        lines = journal.read_text().splitlines(True)
        assert len(lines) >= 5
        journal.write_text("".join(lines) + lines[0][:9])
        names = sorted(source.rglob("*.png"))
        draw(names[3 * CHUNK], 8, 8)  # of the same size, in a chunk that was done
        counts = []
        store = pack_images(
            source, out, AS_THEY_ARE, progress=lambda done, total: counts.append(done)
        )
        assert counts[0] == 3 * CHUNK
        with Image.open(names[3 * CHUNK]) as image:
            assert store.image(3 * CHUNK).tobytes() == image.tobytes()

    def test_half_a_file_of_sizes(self, digits, tmp_path):
        out = tmp_path / "packed"
        forked(pack_and_die, digits / "val", out, 2 * CHUNK, 0)
        os.truncate(tmp_path / ".packed.part" / "sizes.npy", 200)
        pack_images(digits / "val", out, AS_THEY_ARE)
        pack_images(digits / "val", tmp_path / "whole", AS_THEY_ARE)
        same_files(out, tmp_path / "whole")

    @pytest.mark.parametrize("held", [None, 200, 128 + 3 * CHUNK * 192 + 5])
    def test_lost_pixels_are_decoded_again(self, digits, tmp_path, held):
        """Half a file of pixels was filled up with zeros: black images."""
        source, out = digits / "train", tmp_path / "packed"
        forked(pack_and_die, source, out, 6 * CHUNK, 0)
        pixels = tmp_path / ".packed.part" / "pixels.npy"
        os.truncate(pixels, held) if held else pixels.unlink()
        counts = []
        pack_images(source, out, AS_THEY_ARE, progress=lambda done, total: counts.append(done))
        assert counts[0] == (3 * CHUNK if held and held > 200 else 0)
        pack_images(source, tmp_path / "whole", AS_THEY_ARE)
        same_files(out, tmp_path / "whole")

    def test_unfinished_work_of_another_command_stays(self, digits, tmp_path, uic):
        left = tmp_path / ".packed.part" / "train" / "cat.png"
        draw(left, 8, 8)
        done = uic("data", "pack", digits / "val", "packed", "--size", "8")
        assert done.returncode == 1
        assert done.stderr.strip() == (
            "error: .packed.part holds unfinished work of another command, as train: give another "
            "folder, or remove that one"
        )
        assert [path.name for path in left.parents[1].iterdir()] == ["train"]
        assert left.exists()
        shutil.rmtree(left.parents[1])
        left.parents[1].write_text("a file")
        with pytest.raises(FileExistsError, match=r"\.packed\.part holds unfinished work"):
            pack_images(digits / "val", tmp_path / "packed", AS_THEY_ARE)

    def test_other_settings_begin_anew(self, digits, tmp_path):
        source, out = digits / "train", tmp_path / "packed"
        forked(pack_and_die, source, out, 2 * CHUNK, 0)
        counts = []
        pack_images(
            source,
            out,
            PackSettings(4, workers=0),
            progress=lambda done, total: counts.append(done),
        )
        assert counts[0] == 0
        pack_images(source, tmp_path / "whole", PackSettings(4, workers=0))
        same_files(out, tmp_path / "whole")

    def test_two_at_once(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(pack_work, "_PATIENCE", 0.1)
        with (
            pack_work.own_folder(tmp_path / ".packed.part"),
            pytest.raises(OSError, match="another process is packing there"),
        ):
            pack_images(digits / "val", tmp_path / "packed", AS_THEY_ARE)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_full_disk_is_one_line(self, digits, tmp_path, workers):
        source, out = digits / "train", tmp_path / "packed"
        said = tmp_path / "said"

        def pack_with_little_room():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            try:
                pack_images(source, out, PackSettings(0, workers=workers))
            except OSError as error:
                said.write_text(str(error))

        assert forked(pack_with_little_room) == 0
        reason = os.strerror(errno.EFBIG)
        assert said.read_text() == (
            f"{out}: {reason}; make room, the same command resumes from what is there"
        )
        assert not out.exists()
        counts = []
        pack_images(source, out, AS_THEY_ARE, progress=lambda done, total: counts.append(done))
        assert counts[0] >= CHUNK

    @pytest.mark.parametrize("dying", [1, 2])
    def test_a_process_that_dies(self, digits, tmp_path, dying):
        def stop_worker(done, total):
            for process in multiprocessing.active_children()[:dying]:
                os.kill(process.pid, signal.SIGKILL)

        with pytest.raises(OSError, match="has ended before its time"):
            pack_images(
                digits / "train",
                tmp_path / "packed",
                PackSettings(0, workers=2),
                progress=stop_worker,
            )
        assert not multiprocessing.active_children()
        assert len(pack_images(digits / "train", tmp_path / "packed", AS_THEY_ARE)) == 1442


class TestBadImages:
    @pytest.fixture
    def broken(self, digits, tmp_path):
        """Digits of which two cannot be read."""
        root = tmp_path / "digits"
        shutil.copytree(digits / "val", root)
        names = sorted(root.rglob("*.png"))
        names[100].write_bytes(b"no image at all")
        names[200].write_bytes(b"P6\n8 ")  # a header that is cut off
        return root, names

    @pytest.mark.parametrize("workers", [0, 2])
    def test_stop(self, broken, tmp_path, workers):
        root, names = broken
        out = tmp_path / "packed"
        with pytest.raises(
            BadImageError, match=rf"cannot read .*({names[100].name}|{names[200].name})"
        ):
            pack_images(root, out, PackSettings(0, workers=workers))
        assert not out.exists()
        for name in (100, 200):
            draw(names[name], 8, 8)
        store = pack_images(root, out, PackSettings(0, workers=workers))
        assert (len(store), store.about.bad) == (355, [])

    @pytest.mark.parametrize("workers", [0, 2])
    def test_skip(self, broken, tmp_path, workers):
        root, names = broken
        skip = PackSettings(0, on_bad_image="skip", max_bad_images=2, workers=workers)
        store = pack_images(root, tmp_path / "packed", skip)
        assert [number for number, _ in store.about.bad] == [100, 200]
        assert store.about.bad[0][1] == "not an image"
        assert store.about.fingerprint == fingerprint_of(ImageFolder(str(root)))
        assert store.pixels.shape == (353, 8, 8, 3)
        for number in (99, 101, 199, 201, 354):
            with Image.open(names[number]) as image:
                assert store.image(number).tobytes() == image.convert("RGB").tobytes()
        assert store.raw_batch([101, 354])[1].tolist() == store.raw(354).tolist()
        with pytest.raises(OSError, match="not an image"):
            store.raw(100)
        with pytest.raises(OSError, match="not an image"):
            store.raw_batch([3, 100])

    def test_a_limit(self, broken, tmp_path):
        root, _ = broken
        few = PackSettings(0, on_bad_image="skip", max_bad_images=1, workers=0)
        with pytest.raises(BadImageError, match=r"2 images cannot be read.*--max-bad-images 1"):
            pack_images(root, tmp_path / "packed", few)
        skip = PackSettings(0, on_bad_image="skip", workers=0)
        with pytest.raises(BadImageError, match="cannot read"):  # what was kept does not hide it
            pack_images(root, tmp_path / "packed", AS_THEY_ARE)
        assert len(pack_images(root, tmp_path / "packed", skip).about.bad) == 2

    def test_none_can_be_read(self, tmp_path):
        root = tmp_path / "photos"
        root.mkdir()
        (root / "a.png").write_bytes(b"no image")
        skip = PackSettings(0, on_bad_image="skip", workers=0)
        with pytest.raises(ValueError, match=r"none of the 1 images of .* a.png .not an image"):
            pack_images(root, tmp_path / "packed", skip)


class TestCommand:
    def test_it_packs_and_says_how_to_continue(self, digits, uic):
        done = uic("data", "pack", digits / "val", "packed", "--size", "8")
        assert done.returncode == 0, done.stderr
        assert "images packed: 355 of 355" in done.stdout
        assert "packed: 355 images, 8 x 8 pixels" in done.stdout
        assert "data.format=packed data.train_path=packed" in done.stdout

    def test_mistakes_are_one_line(self, digits, uic):
        done = uic("data", "pack", digits / "val", "packed", "--size", "-3")
        assert done.returncode == 1
        assert done.stderr.strip() == (
            "error: --size must be at least 1, or 0 for all pixels, got -3"
        )
        done = uic("data", "pack", "nowhere", "packed", "--size", "8")
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)


def test_facts_are_plain_json(photos, tmp_path):
    pack_images(photos[0], tmp_path / "packed", AS_THEY_ARE)
    about = json.loads((tmp_path / "packed" / "pack.json").read_text())
    assert about["folder"] == str(photos[0].resolve())
    assert about["size"] == 0
