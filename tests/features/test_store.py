"""A store keeps rows and names together, whatever stops the process that writes."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from uic_plugin.features.store import (
    IMAGES_FILE,
    ROWS_FILE,
    Entry,
    FeatureStore,
    FileFacts,
    StoreIdentity,
    writing,
)

IDENTITY = StoreIdentity("lite0", None, None, "ab12", "features", "crop 224", "32", "/images", 3)


def entry(name, reason=""):
    return Entry(name, FileFacts(10, 20), None, reason)


def rows(*numbers):
    return np.asarray(numbers, np.float32)[:, None] * np.ones(3, np.float32)


@pytest.fixture
def path(tmp_path):
    with writing(tmp_path / "store", IDENTITY) as writer:
        writer.append([entry("a"), entry("bad", "not an image"), entry("c")], rows(1, 3))
    return tmp_path / "store"


def test_rows_belong_to_their_names(path):
    store = FeatureStore.open(path)
    assert store.names == ["a", "c"]
    assert store.features(["c", "a"])[:, 0].tolist() == [3, 1]
    assert store.features(["a", "c"]).dtype == np.float16
    assert [bad.reason for bad in store.bad(["a", "bad", "c"])] == ["not an image"]


@pytest.mark.parametrize("name", [ROWS_FILE, IMAGES_FILE])
def test_files_of_something_else_are_kept(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with (
        pytest.raises(FileExistsError, match=f"{name} is there and of no features of this program"),
        writing(tmp_path, IDENTITY),
    ):
        pass
    assert (tmp_path / name).read_bytes() == b"mine"


def test_numpy_reads_the_file(path):
    with writing(path, IDENTITY) as writer:
        writer.append([entry("d")], rows(4))
    assert np.load(path / ROWS_FILE, mmap_mode="r")[:, 2].tolist() == [1, 3, 4]


def test_changed_image_gets_a_new_row(path):
    with writing(path, IDENTITY) as writer:
        writer.append([entry("a")], rows(9))
    assert FeatureStore.open(path).features(["a", "c"])[:, 0].tolist() == [9, 3]


@pytest.mark.parametrize("tail", [b"", b'{"path": "d", "si'])
def test_unfinished_batch_is_written_over(path, tail):
    with open(path / ROWS_FILE, "ab") as file:
        file.write(b"\x00\x00\x01")  # half of a row
    with open(path / IMAGES_FILE, "ab") as file:
        file.write(tail)
    assert FeatureStore.open(path).names == ["a", "c"]
    with writing(path, IDENTITY) as writer:
        writer.append([entry("d")], rows(4))
    store = FeatureStore.open(path)
    assert store.names == ["a", "c", "d"]
    assert store.features(store.names)[:, 1].tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "cd34"}, "other weights"),
        ({"layer": "layer4"}, "another layer"),
        ({"folder": "/elsewhere"}, "another folder"),
        ({"preprocessing": "crop 160"}, "another preprocessing"),
        ({"precision": "bf16"}, "another precision"),
    ],
)
def test_other_features_are_refused(path, change, words):
    with (
        pytest.raises(ValueError, match=words),
        writing(path, dataclasses.replace(IDENTITY, **change)),
    ):
        pass
    assert FeatureStore.open(path).names == ["a", "c"]


def test_features_must_be_finite(path):
    with pytest.raises(ValueError, match="not finite"), writing(path, IDENTITY) as writer:
        writer.append([entry("d")], rows(1e6))  # above what 16 bits hold
    assert FeatureStore.open(path).names == ["a", "c"]


def test_one_writer_at_a_time(path):
    with (
        writing(path, IDENTITY),
        pytest.raises(OSError, match="another process"),
        writing(path, IDENTITY),
    ):
        pass


def test_missing_rows_are_told(path):
    os.truncate(path / ROWS_FILE, 128 + 6)
    with pytest.raises(ValueError, match="has 1 rows"):
        FeatureStore.open(path)


@pytest.mark.parametrize("line", [b"nothing\n", b'{"path": "x"}\n', b"3\n"])
def test_damaged_line_is_told(path, line):
    with open(path / IMAGES_FILE, "ab") as file:
        file.write(line)
    with pytest.raises(ValueError, match="line 4"):
        FeatureStore.open(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1, "backbone": "x"}'])
def test_damaged_head_is_told(path, content):
    (path / "store.json").write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        FeatureStore.open(path)


def test_full_disk_loses_nothing(path):
    """A limit on the size of files stands for a full disk: the system refuses the write."""
    script = textwrap.dedent(
        f"""
        import json, resource, sys
        import numpy as np
        sys.path[:0] = {sys.path!r}
        from uic_plugin.features.store import Entry, FileFacts, StoreIdentity, writing
        identity = StoreIdentity(**json.loads({json.dumps(dataclasses.asdict(IDENTITY))!r}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            with writing(__import__("pathlib").Path({str(path)!r}), identity) as writer:
                entries = [Entry(str(n), FileFacts(1, 1), None) for n in range(1000)]
                writer.append(entries, np.zeros((1000, 3)))
        except OSError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "make room" in done.stdout, done.stderr
    assert FeatureStore.open(path).features(["a", "c"])[:, 0].tolist() == [1, 3]
    with writing(path, IDENTITY) as writer:
        writer.append([entry("d")], rows(4))
    assert FeatureStore.open(path).features(["a", "c", "d"])[:, 0].tolist() == [1, 3, 4]
