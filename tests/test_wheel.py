"""What a user gets from `pip install`: recipes, types, the hook for the host's own scripts."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_everything_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {file.relative_to(ROOT) for file in ROOT.glob("uic_plugin/**/*.py")}
    kept = {str(file) for file in modules if "hydra_entry" not in file.parts}
    assert kept - set(names) == set()  # a line of .gitignore would leave them out
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


def run(*command, cwd, env=None):
    """Output of a command that has to succeed."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Folder with what a release uploads: the sdist, and the wheel that is built from it."""
    for tool in ("hatchling", "build", "twine"):
        pytest.importorskip(tool, reason="the extra `test` brings what builds a release")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(release, tmp_path_factory):
    """Run a command where the wheel is installed, in an empty folder.

    A virtual environment of its own, which finds what the wheel requires in the environment of the
    tests, but not this checkout: a path file there is not followed from here. A checkout of
    solo-learn stands beside them where SOLO_LEARN names one.
    """
    venv, folder = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    python = venv / "bin" / "python"
    wheel = next(release.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    paths = [os.environ.get("SOLO_LEARN"), *(sysconfig.get_path(n) for n in ("purelib", "platlib"))]
    lines = dict.fromkeys(filter(None, paths))
    Path(site.strip(), "requirements.pth").write_text("".join(f"{line}\n" for line in lines))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["PATH"] = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def command(*words):
        return run(venv / "bin" / words[0], *words[1:], cwd=folder, env=env)

    command.venv, command.folder = venv, folder
    return command


@pytest.mark.slow
def test_release_is_fit_for_an_index(release):
    wheel, sdist = next(release.glob("*.whl")), next(release.glob("*.tar.gz"))
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=release)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "Makefile", "recipes/digits/uic.yaml"):
        assert name in names
    assert {"tests/test_wheel.py", "docs/examples/uic_minimal.py"} <= names
    assert "uic_plugin/py.typed" in zipfile.ZipFile(wheel).namelist()


@pytest.mark.slow
def test_installed_wheel_trains(installed):
    place = "import uic_plugin; print(uic_plugin.__file__)"
    assert installed("python", "-c", place).startswith(str(installed.venv))
    assert "digits/uic" in installed("uic", "recipes")
    assert "registration" in installed("uic", "doctor")
    small = ["max_epochs=1", "backbone.kwargs.width=8", "data.num_workers=0", "accelerator=cpu"]
    installed("uic", "pretrain", "--config-name", "digits/uic", *small)
    run_dir = installed.folder / "runs" / "digits-uic-seed0"
    assert (run_dir / "last.ckpt").is_file()
    assert len((run_dir / "epochs.csv").read_text().splitlines()) == 2  # names, one epoch
