"""The examples of the docs run and learn."""

import importlib.util
from pathlib import Path

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
