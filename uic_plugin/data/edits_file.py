"""Files of edits, as the page of classes saves them.

A file of edits is JSON: `format` "uic-edits", `version` 1, `labels` with `file`, `images` and
`fingerprint` of the label file, and `edits`, a list that is applied in order:

    {"do": "name",  "class": 3, "name": "church"}            an empty name removes it
    {"do": "merge", "classes": [3, 8], "into": 3}
    {"do": "split", "class": 3, "parts": [{"class": 30, "images": [PATH, ...]}, ...]}
    {"do": "move",  "images": [PATH, ...], "to": 5}          5 may be new
    {"do": "wrong", "images": [PATH, ...], "wrong": true}    false removes the mark
    {"do": "hide",  "class": 4, "hidden": true}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from uic_plugin.data.edits import Edit, Edits, Hide, Merge, Move, Name, Split, Wrong
from uic_plugin.data.labels import MOST_CLASSES

FORMAT, VERSION = "uic-edits", 1
Json = Mapping[str, object]


def read_edits(path: Path) -> Edits:
    """Read a file of edits, as the page saves it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no file of edits, or one of its edits is broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of edits")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of edits: save one on the page of classes")
    if content.get("version") != VERSION:
        version = content.get("version", "none")
        raise ValueError(f"{path} is of version {version}, known is {VERSION}: save it anew")
    labels, records = content.get("labels"), content.get("edits")
    if not isinstance(labels, dict) or not isinstance(records, list):
        raise ValueError(f"{path} is broken: it needs labels and a list of edits")
    fingerprint, images = labels.get("fingerprint"), labels.get("images")
    if not isinstance(fingerprint, str) or type(images) is not int:
        raise ValueError(f"{path} is broken: it does not say which label file it is of")
    edits = []
    for number, record in enumerate(records, 1):
        try:
            edits.append(_READERS[record["do"]](record))
        except (KeyError, TypeError) as error:
            shown = json.dumps(record)[:80]
            raise ValueError(f"{path}: edit {number} is broken: {shown}") from error
    return Edits(str(labels.get("file", "")), images, fingerprint, edits)


def _class(value: object) -> int:
    if type(value) is int and 0 <= value < MOST_CLASSES:
        return value
    raise TypeError(f"{value!r} is no class")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} is neither true nor false")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"{value!r} is no text")


def _written(value: object) -> str:
    """Return a text that a file can hold: paths may have lone surrogates, names may not."""
    text = _text(value)
    if text != text.encode(errors="replace").decode():
        raise TypeError(f"{text!r} is no UTF-8")
    return text


def _listed(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    raise TypeError(f"{value!r} is no list")


def _move(record: Json, to: str) -> Move:
    return Move([_text(path) for path in _listed(record["images"])], _class(record[to]))


def _part(value: object) -> Move:
    if isinstance(value, dict):
        return _move(value, "class")
    raise TypeError(f"{value!r} is no part of a class")


_READERS: dict[str, Callable[[Json], Edit]] = {
    "name": lambda r: Name(_class(r["class"]), _written(r["name"])),
    "merge": lambda r: Merge([_class(c) for c in _listed(r["classes"])], _class(r["into"])),
    "split": lambda r: Split([_part(part) for part in _listed(r["parts"])]),
    "move": lambda r: _move(r, "to"),
    "wrong": lambda r: Wrong([_text(p) for p in _listed(r["images"])], _flag(r["wrong"])),
    "hide": lambda r: Hide(_class(r["class"]), _flag(r["hidden"])),
}
