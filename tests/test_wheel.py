"""What a user gets from `pip install`: recipes, types, the hook for the host's own scripts."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_everything_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "uic_plugin/py.typed" in names
    assert "uic_plugin/recipes/default/base.yaml" in names
    assert "uic_plugin/recipes/cifar10/uic.yaml" in names
    for page in ("index.html.j2", "page.css", "main.js"):
        assert f"uic_plugin/report/page/static/{page}" in names
    assert "hydra_plugins/uic_registration.py" in names
    assert "hydra_plugins/__init__.py" not in names  # a namespace package
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {
        "uic_plugin",
        "hydra_plugins",
    }
    assert len(names) == len(set(names))


def test_installed_wheel_finds_its_recipes(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = "from uic_plugin.recipes_path import *; print(recipes_dir(), len(list_recipes()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
    )
    folder, count = done.stdout.split()
    assert folder == str(tmp_path / "site" / "uic_plugin" / "recipes"), done.stderr
    assert int(count) >= 12
