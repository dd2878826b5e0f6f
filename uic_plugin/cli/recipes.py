"""`uic recipes`: the packaged recipes."""

from __future__ import annotations

from uic_plugin.cli.common import terminal


def recipes() -> None:
    """List the packaged recipes."""
    from uic_plugin.recipes_path import list_recipes, recipes_dir

    for name in list_recipes():
        terminal().print(name)
    terminal().print(f"({recipes_dir()})")
