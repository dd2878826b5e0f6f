"""Options of a command that are the fields of a settings dataclass, with their help."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import typer

Command = Callable[..., None]


def options_of(
    settings: type[Any],
    name: str = "settings",
    *,
    leave_out: Collection[str] = (),
    defaults: Mapping[str, object] | None = None,
) -> Callable[[Command], Command]:
    """Give a command one option for each field of a dataclass; it gets them as one argument.

    A field's option has the field's type and default. Its help is the `help` of the field's
    metadata, else what the dataclass says of it under "Attributes". Numbers in a tuple are typed
    with commas; of a field of `float | str` what is no number stays a word.

    Args:
        settings: the dataclass.
        name: of the command's argument.
        leave_out: fields that are no options and keep their defaults.
        defaults: other defaults for this command.
    """
    fields = [field for field in dataclasses.fields(settings) if field.name not in leave_out]
    helps = _attributes(settings)
    hints = typing.get_type_hints(settings)
    tuples = {field.name for field in fields if typing.get_origin(hints[field.name]) is tuple}
    words = {field.name for field in fields if hints[field.name] == float | str}

    def parameter_of(field: dataclasses.Field[Any]) -> inspect.Parameter:
        hint, default = hints[field.name], (defaults or {}).get(field.name, field.default)
        if field.name in tuples:
            hint, default = str, ",".join(map(str, typing.cast("tuple[int, ...]", default)))
        elif field.name in words:
            hint, default = str, str(default)
        help_ = field.metadata.get("help") or helps.get(field.name)
        if help_ is None:
            raise TypeError(f"{settings.__name__}.{field.name} has no help: add it to Attributes")
        kind, option = inspect.Parameter.KEYWORD_ONLY, typer.Option(help=help_)
        return inspect.Parameter(
            field.name, kind, default=default, annotation=Annotated[hint, option]
        )

    options = [parameter_of(field) for field in fields]

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {field.name: given.pop(field.name) for field in fields}
            chosen.update({key: _numbers(key, chosen[key]) for key in tuples})
            chosen.update({key: _number_or_word(chosen[key]) for key in words})
            command(**given, **{name: settings(**chosen)})

        kept = [parameter for key, parameter in own.parameters.items() if key != name]
        by_name = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept]
        signature = inspect.Signature([*by_name, *options])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {key: p.annotation for key, p in signature.parameters.items()}
        return run

    return decorate


def _attributes(settings: type[Any]) -> dict[str, str]:
    """Return what a dataclass's docstring says of each field, as a sentence of its own."""
    text = inspect.getdoc(settings) or ""
    section = text.partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + section):
        names, colon, help_ = entry.strip().partition(":")
        if colon and entry.startswith("    "):
            sentence = " ".join(help_.split()).rstrip(".") + "."
            sentence = sentence[0].upper() + sentence[1:]
            found.update({part.strip(): sentence for part in names.split(",")})
    return found


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        option = name.replace("_", "-")
        raise ValueError(f"--{option} must be whole numbers with commas, got {text!r}") from None


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
