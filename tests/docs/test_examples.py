"""The examples of the docs run and learn."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_idea_in_one_file(capsys):
    nmi = load("uic_minimal").main(epochs=6)
    assert nmi[0] < 0.2 < nmi[-1]  # random labels at first, then classes
    assert capsys.readouterr().out.count("NMI") == 6
    assert len((EXAMPLES / "uic_minimal.py").read_text().splitlines()) <= 85


def test_the_readme_shows_the_file():
    file = (EXAMPLES / "uic_minimal.py").read_text()
    assert f"```python\n{file}```" in (EXAMPLES.parents[1] / "README.md").read_text()


def test_the_lists_of_images_make_the_folder_and_the_split(tmp_path):
    lists, (whole, out) = load("image_lists"), (tmp_path / "imagenette2-160", tmp_path / "out")
    rows = [line.split() for line in lists.LISTS.read_text().splitlines()]
    for split, name, *numbers in rows:
        (whole / split / name).mkdir(parents=True)
        for number in [*numbers, "123456789"]:  # one more than is listed
            stem = f"{name}_{number}"
            if number.startswith("v"):
                stem = f"ILSVRC2012_val_{number[1:]:0>8}"
            (whole / split / name / f"{stem}.JPEG").touch()
    assert lists.link_folder(whole, out) == 7500
    assert len([*out.glob("train/*/*.JPEG")]) == 6000
    assert len([*out.glob("val/*/*.JPEG")]) == 1500
    assert all(path.exists() for path in out.rglob("*.JPEG"))
    victim = next(out.glob("val/*/*")).resolve()
    victim.unlink()
    with pytest.raises(FileNotFoundError, match=victim.stem):
        lists.link_folder(whole, tmp_path / "again")
    assert not (tmp_path / "again").exists()

    source, split = tmp_path / "train.csv", tmp_path / "split" / "train.csv"
    named = [
        f"{row[1]}{int(n):08}.jpg,{row[1]}" for row in rows for n in row[2:] if "mini" in row[0]
    ]
    source.write_text(
        "\n".join(["filename,label", "n0153282900099999.jpg,n01532829", *named]) + "\n"
    )
    assert lists.write_split(source, split) == 9600
    assert split.read_text().splitlines() == ["filename,label", *named]
    source.write_text("\n".join(["filename,label", *named[1:]]) + "\n")
    with pytest.raises(ValueError, match=named[0].split(",")[0]):
        lists.write_split(source, tmp_path / "other.csv")


LIGHTLY = ("lightly_pytorch", "lightly_lightning", "lightly_distributed")
SMALLER = {"max_epochs=10": "max_epochs=1", "classes=100": "classes=20", "100, 10": "20, 1"}


@pytest.mark.skipif(importlib.util.find_spec("lightly") is None, reason="lightly is not installed")
@pytest.mark.parametrize(
    "name", [LIGHTLY[0], *(pytest.param(name, marks=pytest.mark.slow) for name in LIGHTLY[1:])]
)
def test_parts_for_a_loop_of_ones_own_with_lightly(name, digits, tmp_path):
    for part in LIGHTLY:
        text = (EXAMPLES / f"{part}.py").read_text()
        assert len(text.splitlines()) <= 40
        for old, new in SMALLER.items():
            text = text.replace(old, new)
        (tmp_path / f"{part}.py").write_text(text)
    for folder in (digits / "train").iterdir():
        (tmp_path / "images" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:13]:
            shutil.copy(path, tmp_path / "images" / folder.name)
    two = ["2"] if name == "lightly_distributed" else []
    done = subprocess.run(
        [sys.executable, f"{name}.py", "images", *two],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_the_page_shows_the_parts():
    page = (EXAMPLES.parent / "lightly.md").read_text()
    assert f"```python\n{(EXAMPLES / 'lightly_pytorch.py').read_text()}```" in page
