"""Damaged and hostile files: loaded correctly, or refused in one line; never executed.

pytest -m slow tests/test_fuzz.py      # 12,500 files
"""

import os
import pickle
import random
import shutil
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from uic_plugin import PseudoLabelBank
from uic_plugin.data.index import read_index, save_index
from uic_plugin.data.labels import LabelTable, read_labels, write_labels
from uic_plugin.hosts.checkpoint_files import read_checkpoint
from uic_plugin.networks.weights import read_state
from uic_plugin.recipes_path import compose_recipe, recipes_dir
from uic_plugin.runs.settings import prepare_config

REFUSED = (ValueError, FileNotFoundError)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to four random changes: bits, bytes, cuts, insertions, repetitions, blocks of zeros."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data) + 1)
        length = draw.choice((1, 1, 2, 8, 64, 1000))
        kind = draw.randrange(7)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = draw.randrange(256)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = draw.randbytes(length)
        elif kind == 5:
            data[place:place] = data[place : place + length]
        else:
            data[place : place + length] = bytes(min(length, len(data) - place))
    return bytes(data)


def fuzz(path, read, unharmed, count, seed=0):
    """Read so many mutations of a file; what is not refused has to be unharmed."""
    whole = path.read_bytes()
    draw = random.Random(seed)
    outcomes = {"refused": 0, "loaded": 0}
    for number in range(count):
        content = mutated(whole, draw)
        path.write_bytes(content)
        try:
            found = read(path)
        except REFUSED:
            outcomes["refused"] += 1
            continue
        assert unharmed(found), f"mutation {number} of {path.name} was loaded, but is not whole"
        outcomes["loaded"] += 1
    path.write_bytes(whole)
    assert outcomes["refused"] > 0
    return outcomes


@pytest.fixture(params=[pytest.param(60), pytest.param(2500, marks=pytest.mark.slow)])
def count(request):
    return request.param


def test_checkpoints(tmp_path, count):
    path = tmp_path / "last.ckpt"
    bank = PseudoLabelBank(200, 7, seed=1, fingerprint="a" * 16)
    weights = {"backbone.weight": torch.arange(300.0), "backbone.bias": torch.ones(3)}
    labels = {"bank": bank.state_dict(), "more_banks": [], "steps_done": 0, "method": "uic"}
    torch.save({"state_dict": weights, "epoch": 3, "uic": labels}, path)

    def unharmed(content):
        for name, weight in content["state_dict"].items():
            assert torch.equal(weight, weights[name])
        other = PseudoLabelBank(200, 7, seed=2, fingerprint="a" * 16)
        other.load_state_dict(content["uic"]["bank"])
        return torch.equal(other.labels, bank.labels)

    fuzz(path, read_checkpoint, unharmed, count)


def test_labels_of_any_values_are_checked(count):
    """Not the bytes of a file are changed but the values in it, as a program with a fault would."""
    draw = random.Random(1)
    whole = PseudoLabelBank(50, 5, seed=1, fingerprint="a").state_dict()
    odd = [None, -1, 0, 1.5, "x", [], {}, 1 << 70, float("nan"), torch.zeros(50), torch.ones(2)]
    odd += [torch.full((50,), value) for value in (-2, 5, 1 << 40)]
    for _ in range(count):
        state = dict(whole)
        for name in draw.sample(sorted(state), draw.randint(1, 3)):
            if draw.random() < 0.2:
                del state[name]
            else:
                state[name] = draw.choice(odd)
        bank = PseudoLabelBank(50, 5, seed=2, fingerprint="a")
        before = bank.labels.clone()
        try:
            bank.load_state_dict(state)
        except ValueError:
            assert torch.equal(bank.labels, before)
            assert bank.epoch == 0
            continue
        assert int(bank.labels.min()) >= 0
        assert int(bank.labels.max()) < 5
        bank.commit()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_label_files(tmp_path, count, ending):
    path = tmp_path / f"labels.{ending}"
    names = [f"a/{number:03d}.png" for number in range(40)]
    scores = np.linspace(0, 1, 40, dtype=np.float32)
    write_labels(path, LabelTable(names, np.arange(40) % 7, scores, scores))

    def unharmed(table):
        # a text file has no checksum: what is read has to be a table all the same
        assert len(table.paths) == len(table.labels) == len(table.confidence)
        assert len(set(table.paths)) == len(table.paths)
        assert not any(p.startswith("/") or ".." in p.split("/") for p in table.paths)
        return table.labels.dtype == np.int64 and (len(table) == 0 or table.labels.min() >= 0)

    fuzz(path, read_labels, unharmed, count)


def test_image_indexes(tmp_path, count):
    path = tmp_path / "images.index"
    groups = [(c, [f"{c}/{number}.png" for number in range(15)]) for c in "abc"]
    save_index(path, groups)
    names = [name for _, group in groups for name in group]

    def unharmed(index):
        # the names of classes and their sizes are checked against the names of images
        return list(index.names()) == names and len(index.targets()) == len(names)

    fuzz(path, read_index, unharmed, count)


def test_recipes(tmp_path, digits, count):
    home = tmp_path / "recipes" / "own"
    home.mkdir(parents=True)
    path = home / "uic.yaml"
    shutil.copy(recipes_dir() / "digits" / "uic.yaml", path)

    def read(_):
        cfg = compose_recipe("own/uic", ["accelerator=cpu"], tmp_path / "recipes")
        return prepare_config(cfg)[0]

    assert read(path).method == "uic"
    before = sorted(tmp_path.rglob("*"))
    fuzz(path, read, lambda cfg: OmegaConf.to_yaml(cfg) != "", count)
    assert sorted(tmp_path.rglob("*")) == before


class Harm:
    """What a hostile pickle would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_nothing_in_a_file_is_executed(tmp_path):
    harm = tmp_path / "harmed"
    files = {
        "pickle.ckpt": lambda p: p.write_bytes(pickle.dumps({"state_dict": Harm(harm)})),
        "torch.ckpt": lambda p: torch.save({"state_dict": {"a": Harm(harm)}}, p),
        "labels.ckpt": lambda p: torch.save({"state_dict": {}, "uic": Harm(harm)}, p),
        "old.ckpt": lambda p: torch.save(
            {"state_dict": Harm(harm)}, p, _use_new_zipfile_serialization=False
        ),
    }
    for name, write in files.items():
        write(tmp_path / name)
        for read in (read_checkpoint, read_state):
            with pytest.raises(ValueError, match=name):
                read(tmp_path / name)
        assert not harm.exists()
    torch.load(tmp_path / "torch.ckpt", weights_only=False)
    assert harm.exists()  # it would have


def test_names_outside_of_the_folder(tmp_path):
    table = LabelTable(["../out.png"], np.array([0]), np.ones(1), np.ones(1))
    write_labels(tmp_path / "labels.csv", table)
    with pytest.raises(ValueError, match="outside of the images' folder"):
        read_labels(tmp_path / "labels.csv")
    # an archive of torch's format with a name that climbs
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as file:
        file.writestr("../../climbed/data.pkl", pickle.dumps({"state_dict": {}}))
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"a\.ckpt"):
        read_checkpoint(tmp_path / "a.ckpt")
    assert sorted(tmp_path.parent.rglob("*")) == before
