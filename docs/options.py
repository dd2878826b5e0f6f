"""Write docs/options.md from the docstrings of the options.

    python docs/options.py          # tests/docs/test_options.py says when it has to be run again

An option is described once, in the docstring of the class that adds it; defaults and allowed values
are those that the class itself checks.
"""

import dataclasses
import inspect
import re
from pathlib import Path

from uic_plugin.methods import OWN_METHODS, MethodOptions

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
<!-- Written by `python docs/options.py` from the docstrings in uic_plugin/methods/options.py. -->
# Options

What a recipe, or an override on the command line, sets under `method_kwargs`:
`uic pretrain --config-name cifar10/uic method_kwargs.num_pseudo_classes=30`. An unknown name or an
impossible value ends the command with one line. `recipes/methods` has a file of settings for each
method; those of solo-learn have the options that solo-learn gives them. The same classes in Python:
[reference](reference/methods.md).
"""


def option_classes():
    """Return the classes of options, each behind the one that it extends, the common one last."""
    found = {}
    for method in OWN_METHODS.values():
        for owner in reversed(method.options_class.__mro__):
            if issubclass(owner, MethodOptions) and owner is not MethodOptions:
                found.setdefault(owner)
    return [*found, MethodOptions]


def descriptions(options):
    """Return what the docstrings of a class and of those that it extends say of each option."""
    found = {}
    for owner in reversed(options.__mro__):
        _, _, attributes = (inspect.getdoc(owner) or "").partition("Attributes:\n")
        for entry in re.split(r"\n(?= {4}\S)", "\n" + attributes):
            name, colon, text = entry.strip().partition(": ")
            if colon:
                found[name] = " ".join(text.split())
    return found


def values_of(field):
    """Return what an option accepts: its choices as code, anything else in words."""
    choices = re.fullmatch(r"one of \[(.*)\]", field.metadata["wanted"])
    if not choices:
        return field.metadata["wanted"]
    return ", ".join(f"`{choice}`" for choice in choices.group(1).replace("'", "").split(", "))


def default_of(field):
    """Return a default as a recipe writes it."""
    if field.default is None or isinstance(field.default, bool):
        return {None: "null", True: "true", False: "false"}[field.default]
    return list(field.default) if isinstance(field.default, tuple) else field.default


def section(options):
    """Return the lines on the options that a class adds or changes."""
    first = inspect.getdoc(options).splitlines()[0]
    title = re.fullmatch(r"Options of (.*?)(;.*)?\.", first).group(1)
    methods = [n for n, m in OWN_METHODS.items() if issubclass(m.options_class, options)]
    lines = [
        f"## {title[0].upper()}{title[1:]}",
        "",
        f"{first} `method={'`, `'.join(methods)}`",
        "",
    ]
    lines += ["| option | default | values | |", "|---|---|---|---|"]
    text = descriptions(options)
    for field in dataclasses.fields(options):
        if field.name in vars(options)["__annotations__"]:
            said = re.sub(r'"(\w+)"', r"`\1`", text[field.name])
            cells = [f"`{field.name}`", f"`{default_of(field)}`", values_of(field)]
            lines.append(f"| {' | '.join(cells)} | {said[0].upper()}{said[1:]} |")
    return lines


def page():
    """Return the whole page."""
    lines = [HEAD]
    for options in option_classes():
        lines += [*section(options), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
