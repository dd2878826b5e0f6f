"""Which host, and what it needs: one list, in two places."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from uic_plugin.hosts.detect import _NEEDS, _at_least, find_host


def test_versions():
    assert _at_least("1.0.6", "1.0.6")
    assert _at_least("1.1", "1.0.6")
    assert not _at_least("1.0.5", "1.0.6")
    assert find_host().line in ("pypi", "main", "lightly")


@pytest.mark.parametrize("line", ["pypi", "main", "lightly"])
def test_the_extras_bring_what_doctor_asks_for(line):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML itself")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = [Requirement(text) for text in project["optional-dependencies"][line]]
    asked = {requirement.name: requirement.specifier for requirement in extra}
    asked.pop("wheel", None)  # needed to build the main line, not to run it
    assert {name: str(spec) for name, spec in asked.items()} == {
        name: str(Requirement(name + spec).specifier) for name, spec in _NEEDS[line].items()
    }
