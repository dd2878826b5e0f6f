"""What a discovery may replace in its folder."""

import dataclasses
import json

import pytest

from uic_plugin.discovery.folder import (
    check_corrected,
    check_folder,
    check_search,
    free_folder,
    remove_old,
)
from uic_plugin.discovery.settings import DiscoverySettings

SETTINGS = DiscoverySettings()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "classes"


def finished(out, search="ab12", classes=3):
    out.mkdir(exist_ok=True)
    about = {"search": search, "asked": classes, "settings": dataclasses.asdict(SETTINGS)}
    (out / "discovery.json").write_text(json.dumps(about))


def unfinished(out, search="ab12"):
    (out / "unfinished").mkdir(parents=True)
    (out / "unfinished" / "identity").write_text(search)


def test_a_new_folder_and_one_with_other_files_are_taken(out):
    check_folder(out, 3, SETTINGS)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    check_folder(out, 3, SETTINGS)


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet", "classes.csv", "model.pt"])
def test_files_of_something_else_are_kept(out, name):
    out.mkdir()
    (out / name).write_text("my own annotations")
    with pytest.raises(FileExistsError, match=f"{name} is there and of no discovery"):
        check_folder(out, 3, SETTINGS)


def test_a_stopped_search_resumes(out):
    unfinished(out)
    (out / "labels.parquet").write_text("written just before the stop")
    check_folder(out, 3, SETTINGS)


def test_finished_classes_are_kept(out):
    finished(out)
    with pytest.raises(ValueError, match="holds classes: give another --out, or --overwrite"):
        check_folder(out, 3, SETTINGS)


def test_the_same_call_resumes_behind_its_results(out):
    finished(out)
    unfinished(out)
    check_folder(out, 3, SETTINGS)
    for classes, settings in ((5, SETTINGS), (None, SETTINGS), (3, DiscoverySettings(seed=1))):
        with pytest.raises(ValueError, match="holds classes"):
            check_folder(out, classes, settings)


def test_a_stopped_overwrite_does_not_give_the_old_classes_away(out):
    finished(out)
    unfinished(out, search="cd34")  # of other images or settings
    with pytest.raises(ValueError, match="holds classes"):
        check_folder(out, 3, SETTINGS)


def test_a_call_that_was_stopped_behind_its_results_does_not_give_them_to_another_search(out):
    check_search(out, lambda: pytest.fail("there is nothing to compare with"))
    finished(out)
    unfinished(out)
    check_search(out, lambda: "ab12")
    with pytest.raises(ValueError, match="holds classes: give another --out, or --overwrite"):
        check_search(out, lambda: "cd34")  # of other features or corrections
    (out / "discovery.json").write_text("{")
    with pytest.raises(ValueError, match="holds classes"):
        check_search(out, lambda: "ab12")


@pytest.mark.parametrize(
    "name", ["labels.csv", "labels.parquet", "page/new.csv", "finetuned/labels.parquet"]
)
def test_a_correction_is_not_replaced_by_what_starts_from_it(out, name):
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("corrected")
    beside = out / "new.csv"
    beside.symlink_to(out / name)
    for given in (out / name, beside):
        with pytest.raises(ValueError, match=f"--from {given} .* copy it elsewhere, or .* --out"):
            check_corrected(out, given)
    other = out.with_name("others")
    check_corrected(other, out / name)
    other.mkdir()
    (other / "labels.csv").symlink_to(out / name)
    with pytest.raises(ValueError, match="would be replaced"):
        check_corrected(other, out / name)


def test_a_correction_beside_the_results_is_taken(out):
    out.mkdir()
    (out / "labels.csv").write_text("found")
    (out / "new.csv").write_text("corrected")
    check_corrected(out, out / "new.csv")
    check_corrected(out, out / "none.csv")


def test_corrected_classes_have_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_folder("classes").name == "classes-2"
    finished(tmp_path / "classes-2")
    assert free_folder("classes").name == "classes-3"
    unfinished(tmp_path / "classes-2")  # stopped behind its results: the same call resumes there
    assert free_folder("classes").name == "classes-2"


def test_what_was_not_written_again_goes(out):
    finished(out)
    for name in ("labels.csv", "labels.parquet", "scores.csv", "notes.txt"):
        (out / name).write_text("x")
    (out / "page").mkdir()
    remove_old(out, {"labels.parquet", "scores.csv"})
    kept = {path.name for path in out.iterdir()}
    assert kept == {"discovery.json", "labels.parquet", "scores.csv", "notes.txt"}
