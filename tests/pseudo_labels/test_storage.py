"""Labels in memory and in files: the same, whoever writes them."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uic_plugin import EmptyClassFixer, PseudoLabelBank
from uic_plugin.methods.banks import make_banks
from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.pseudo_labels import storage as module
from uic_plugin.pseudo_labels.storage import allocate, choose_storage
from uic_plugin.ranks import RankInfo


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_files_hold_what_memory_holds(tmp_path_factory, data):
    num_images = data.draw(st.integers(2, 60))
    num_classes = data.draw(st.integers(2, num_images))
    init = data.draw(st.sampled_from(["random", "balanced"]))
    folder = tmp_path_factory.mktemp("bank")
    fixer = EmptyClassFixer(num_classes)
    memory = PseudoLabelBank(num_images, num_classes, seed=3, init=init)
    mapped = {"storage": "mmap", "folder": folder}
    files = PseudoLabelBank(num_images, num_classes, seed=3, init=init, **mapped)
    reader = PseudoLabelBank(num_images, num_classes, is_writer=False, **mapped)
    assert memory.fix_empty_classes(fixer) == files.fix_empty_classes(fixer)
    assert reader.fix_empty_classes(fixer) == 0
    for epoch in range(3):
        for bank in (memory, files, reader):
            assert torch.equal(bank.labels, memory.labels)
            assert bank.epoch == epoch
        count = data.draw(st.integers(0, num_images))
        index = torch.randint(num_images, (count,))
        labels = torch.randint(num_classes, (count,))
        for bank in (memory, reader, files):  # a reader's own writes go nowhere
            bank.update(index, labels)
        boundary = files.commit(fixer)
        assert memory.commit(fixer) == boundary
        reader.follow(boundary)
    state = memory.state_dict()
    other = PseudoLabelBank(num_images, num_classes, storage="mmap", folder=folder)
    other.load_state_dict(state)
    assert torch.equal(other.labels, memory.labels)


def test_blocks_change_nothing(monkeypatch):
    def committed():
        bank = PseudoLabelBank(1000, 40, seed=1)
        bank.update(torch.arange(0, 1000, 3), torch.zeros(334, dtype=torch.long))
        boundary = bank.commit(EmptyClassFixer(40))
        return boundary, bank.labels.clone()

    whole = committed()
    for name in ("bank", "empty_classes", "grouping"):
        monkeypatch.setattr(f"uic_plugin.pseudo_labels.{name}._BLOCK", 37)
    in_blocks = committed()
    assert in_blocks[0] == whole[0]
    # split classes are dealt in blocks of classes, so which half an image is in may differ
    assert torch.equal(in_blocks[1].bincount(), whole[1].bincount())


def test_initial_labels_do_not_depend_on_blocks(monkeypatch):
    whole = PseudoLabelBank(1000, 40, seed=1).labels.clone()
    monkeypatch.setattr("uic_plugin.pseudo_labels.bank._BLOCK", 37)
    assert torch.equal(PseudoLabelBank(1000, 40, seed=1).labels, whole)


def test_open_files_outlive_their_names(tmp_path):
    bank = PseudoLabelBank(100, 5, storage="mmap", folder=tmp_path)
    before = bank.labels.clone()
    for path in tmp_path.iterdir():
        path.unlink()
    bank.update(torch.arange(100), torch.ones(100, dtype=torch.long))
    assert torch.equal(bank.labels, before)
    bank.commit()
    assert bank.labels.unique().tolist() == [1]


def test_a_second_process_sees_the_labels(tmp_path):
    bank = PseudoLabelBank(1000, 5, storage="mmap", folder=tmp_path)
    program = (
        "import sys; from pathlib import Path; from uic_plugin import PseudoLabelBank;"
        "b = PseudoLabelBank(1000, 5, storage='mmap', folder=Path(sys.argv[1]), is_writer=False);"
        "print(b.labels.long().sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == bank.labels.long().sum().item()


def test_storage_by_size(monkeypatch):
    monkeypatch.setattr(module, "memory_bytes", lambda: 1000)
    cpu = torch.device("cpu")
    assert choose_storage(250, cpu) == "memory"
    assert choose_storage(251, cpu) == "mmap"
    assert choose_storage(100, cpu, ranks_per_node=3) == "mmap"


def test_unknown_storage_and_no_folder():
    with pytest.raises(ValueError, match="memory, device, mmap, got 'disk'"):
        PseudoLabelBank(5, 2, storage="disk")
    with pytest.raises(ValueError, match="need a folder"):
        allocate(("a",), 5, torch.int16, "mmap")


def test_a_mistyped_folder_is_not_made(tmp_path):
    def banks(folder):
        options = PseudoLabelOptions(
            num_pseudo_classes=5, bank_storage="mmap", bank_folder=str(folder)
        )
        return make_banks(options, 100, [0], rank=RankInfo())

    with pytest.raises(FileNotFoundError, match="dsik is no folder: make it, or give another"):
        banks(tmp_path / "dsik")
    assert not (tmp_path / "dsik").exists()
    (bank,) = banks(tmp_path)
    assert bank.storage == "mmap"
