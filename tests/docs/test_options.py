"""The page of options is that of the docstrings."""

import dataclasses
import importlib.util
from pathlib import Path

from uic_plugin.methods import UICOptions

SCRIPT = Path(__file__).parents[2] / "docs" / "options.py"


def load():
    spec = importlib.util.spec_from_file_location("options_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    module = load()
    assert module.PAGE.read_text() == module.page(), "run: python docs/options.py"


def test_every_option_of_uic_is_described():
    names = {field.name for field in dataclasses.fields(UICOptions)}
    assert set(load().descriptions(UICOptions)) == names
