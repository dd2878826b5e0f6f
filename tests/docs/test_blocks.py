"""Every `bash` block of README.md and docs/ is run at small scale, or listed with the reason.

They run in the environment that `make demo` makes (`demo_environment.py`). `blocks.yaml` beside
this file says which, and what is scaled down: a new block that is in neither part of it fails, and
so does an entry whose block is gone.
"""

import csv
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from demo_environment import hidden_modules, hide_the_rest

from uic_plugin.hosts import find_host

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^[ \t]*```(\w+)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
SHELLS = {"sh", "shell", "console", "zsh"}  # a command in one of these would not be found
MARK = "cifar10 1"  # of a finished tree, see uic_plugin.data.cifar10

# A command of a block gets the entry's `add` behind its own: `uic pretrain` that of `pretrain`.
PRELUDE = r"""
set -euo pipefail
uic() { local more="ADD_${1//-/_}"; command uic "$@" ${!more-}; }
"""


@dataclass(frozen=True)
class Block:
    """A block of a page, and what is done with it.

    Attributes:
        page: relative to the root of the repository.
        name: a piece of its text that no other block of the page has.
        replace: text of the block to what stands in its place; all of it has to occur.
        add: subcommand of `uic` to words that every call of it gets behind its own.
        before: commands that make what the block takes for granted.
        makes: patterns of files that are there afterwards.
        says: what is in the output.
        extras: of this package that the page says to install.
        slow: whether it takes more than some seconds.
        minutes: after which it has failed.
    """

    page: str
    name: str
    replace: dict[str, str] = field(default_factory=dict)
    add: dict[str, str] = field(default_factory=dict)
    before: str = ""
    makes: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    slow: bool = False
    minutes: int = 10


@dataclass(frozen=True)
class Listed:
    """A block that is not run: why, and the digest of the text for which that was true."""

    page: str
    name: str
    why: str
    content: str


BLOCKS = [
    (page.relative_to(ROOT).as_posix(), text)
    for page in PAGES
    for language, text in FENCE.findall(page.read_text())
    if language == "bash"
]


def text_of(entry):
    """The text of the one block that an entry names."""
    found = [text for page, text in BLOCKS if page == entry.page and entry.name in text]
    assert len(found) == 1, f"{len(found)} blocks of {entry.page} have {entry.name!r} in them"
    return found[0]


def digest_of(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


TABLE = yaml.safe_load(Path(__file__).with_name("blocks.yaml").read_text())
RUN = [Block(**entry) for entry in TABLE["run"]]
LISTED = [Listed(**entry) for entry in TABLE["listed"]]


def test_every_block_is_run_or_listed():
    known = [(entry.page, text_of(entry)) for entry in [*RUN, *LISTED]]
    assert len(known) == len(set(known)), "a block has two entries"
    new = [block for block in BLOCKS if block not in known]
    assert not new, f"new blocks: run them, or say in blocks.yaml why not: {new}"
    assert all(entry.why.strip() for entry in LISTED)


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: f"{entry.page}: {entry.name}")
def test_the_reason_was_given_for_this_very_text(entry):
    assert digest_of(text_of(entry)) == entry.content, (
        "the block has changed: if the reason in blocks.yaml still holds, note its new digest"
    )


def test_commands_stand_in_bash_blocks():
    for page in PAGES:
        for language, text in FENCE.findall(page.read_text()):
            assert language not in SHELLS, f"{page}: a block of {language}: {text[:60]}"


def test_extras_that_are_named_are_there():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML itself")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert not [name for name, content in project["optional-dependencies"].items() if not content]
    sources = [*ROOT.glob("uic_plugin/**/*.py"), *ROOT.glob("recipes/**/*.yaml"), *PAGES]
    named = {
        extra
        for path in [*sources, ROOT / "pyproject.toml"]
        for group in re.findall(r"uic-plugin\[([\w,]+)\]", path.read_text())
        for extra in group.split(",")
    }
    assert {"voc", "datasets", "main", "pypi"} <= named
    assert named <= extras


def test_the_environment_of_the_demo():
    pytest.importorskip("tomllib", reason="Python 3.11 reads TOML itself")
    hidden = hidden_modules([find_host().line])
    assert {"pytest", "hypothesis", "cv2", "datasets"} <= hidden
    assert not {"torch", "solo", "hydra", "faiss", "pyarrow", "timm", "uic_plugin"} & hidden
    assert "cv2" not in hidden_modules([find_host().line, "voc"])


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """Folder with the `uic` of this checkout, to be put in front of PATH."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "uic"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m uic_plugin.cli "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def datasets(digits32, voc_digits, tmp_path_factory):
    """Digits where the blocks expect CIFAR-10, Imagenette, miniImageNet and PASCAL VOC."""
    root = tmp_path_factory.mktemp("datasets")
    for name in ("cifar10", "imagenette160"):
        (root / name).mkdir()
        for split in ("train", "val"):
            (root / name / split).symlink_to(digits32 / split)
    (root / "cifar10" / ".uic-complete").write_text(MARK)  # `uic data cifar10` finds it done
    (root / "VOCdevkit").symlink_to(voc_digits / "VOCdevkit")
    write_split(root / "miniimagenet", "train", digits32, range(5), 40)
    write_split(root / "miniimagenet", "test", digits32, range(5, 10), 20)
    return root


def write_split(folder, name, images, labels, count):
    """A split of miniImageNet: names and classes in a CSV file, all images in one folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for label in labels:
        for path in sorted((images / "train" / str(label)).glob("*.png"))[:count]:
            shutil.copy(path, folder / "images" / f"{label}-{path.name}")
            rows.append((f"{label}-{path.name}", label))
    with open(folder / f"{name}.csv", "w", newline="") as file:
        csv.writer(file).writerows([("filename", "label"), *rows])


@pytest.fixture(scope="session")
def finished_run(digits32, tmp_path_factory):
    """Folder of a run of UIC: a small AlexNet after an epoch on the enlarged digits."""
    from uic_plugin.recipes_path import compose_recipe
    from uic_plugin.report.progress import EpochReporter
    from uic_plugin.runs.training import pretrain

    folder = tmp_path_factory.mktemp("finished") / "RUN"
    overrides = [
        f"run_dir={folder}",
        "backbone.name=alexnet",
        "backbone.kwargs.image_size=32",
        "backbone.kwargs.width=0.1",
        "backbone.kwargs.fc_width=32",
        "data.dataset=custom",
        f"data.train_path={digits32 / 'train'}",
        f"data.val_path={digits32 / 'val'}",
        "augmentations.0.crop_size=32",
        "data.num_workers=0",
        "accelerator=cpu",
        "max_epochs=1",
    ]
    pretrain(compose_recipe("digits/uic", overrides), reporter=EpochReporter("blocks"))
    return folder


@pytest.fixture
def folder(tmp_path, digits32, datasets, block, request):
    """Where a block is run: the data that its commands name, a run, and what they need of this
    repository.

    Of docs/ and tests/ they get copies: commands write into docs/results.
    """
    (tmp_path / "images").symlink_to(digits32)
    (tmp_path / "datasets").mkdir()
    for entry in datasets.iterdir():
        (tmp_path / "datasets" / entry.name).symlink_to(entry)
    (tmp_path / "datasets" / "miniimagenet").unlink()  # commands write into this one
    shutil.copytree(datasets / "miniimagenet", tmp_path / "datasets" / "miniimagenet")
    if "RUN" in f"{block.before} {text_of(block)}".split():
        shutil.copytree(request.getfixturevalue("finished_run"), tmp_path / "RUN")
    for pattern in ("docs/results/*.yaml", "tests/benchmarks/scale.py"):
        for path in ROOT.glob(pattern):
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def script_of(block):
    """The block as it is run."""
    text = text_of(block)
    for old, new in block.replace.items():
        assert old in text, f"{old!r} is no longer in the block: fix blocks.yaml"
        text = text.replace(old, new)
    return f"{PRELUDE}{block.before}\n{text}"


def environment_of(block, program, folder):
    """That of a user: one thread, what `make demo` installs, and where the digits are kept."""
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    if sys.version_info >= (3, 11):  # which reads TOML itself
        hide_the_rest(folder, block.extras)
    added = {f"ADD_{name.replace('-', '_')}": words for name, words in block.add.items()}
    path = os.pathsep.join((str(program), str(Path(sys.executable).parent), os.environ["PATH"]))
    return {
        **os.environ,
        **added,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block,
            id=f"{block.page}: {block.name}",
            marks=[pytest.mark.timeout(60 * block.minutes + 30)]
            + ([pytest.mark.slow] if block.slow else []),
        )
        for block in RUN
    ],
)
def test_block(block, folder, program, tmp_path_factory):
    process = subprocess.Popen(
        ["bash", "-c", script_of(block)],
        cwd=folder,
        env=environment_of(block, program, tmp_path_factory.mktemp("site")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=60 * block.minutes)
    finally:
        if process.poll() is None:  # out of time: its commands, too
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-6000:]
    for pattern in block.makes:
        assert list(folder.glob(pattern)), f"there is no {pattern}: {output[-6000:]}"
    for text in block.says:
        assert text in output
