# SPDX-License-Identifier: Apache-2.0
"""Plain data -> YAML text that the loader reads back as it was, with notes as comments."""

from __future__ import annotations

import re
from collections.abc import Mapping

from redpak.errors import TYPE_CHECKING
from redpak.values import dataclass

if TYPE_CHECKING:
    from typing import Any

# What may stand bare in any YAML reader's eyes, and what looks like no text to one.
_BARE = re.compile(r"[A-Za-z/$.][A-Za-z0-9/$._+%=-]*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "y", "n", "null"))


@dataclass(frozen=True)
class Noted:
    """A value with a note, which becomes a comment."""

    value: Any
    note: str


def _is_safe(character: str) -> bool:
    # Stricter than YAML 1.1 (5.1): no character that is invisible or could fold as a line break.
    return character.isprintable() and character not in '"\\'


def quote(text: str) -> str:
    """`text` as a double-quoted scalar (YAML 1.1, 5.7)."""
    return '"' + "".join(
        character if _is_safe(character) else
        _ESCAPES.get(character) or f"\\U{ord(character):08x}" for character in text) + '"'


def scalar(value: Any) -> str:
    """A string, number, boolean or None as YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if isinstance(value, int) or (_BARE.fullmatch(text) and text.lower() not in _WORDS):
        return text
    return quote(text)


def to_yaml(data: Any) -> str:
    """Plain data (mappings, lists, scalars, Noted) as a YAML document in block style."""
    if not data:
        return "{}\n" if isinstance(data, Mapping) else "[]\n"
    return "\n".join(_lines(data, "")) + "\n"


def _lines(data: Any, indent: str) -> list[str]:
    if isinstance(data, Mapping):
        return [line for key, value in data.items()
                for line in _entry(f"{indent}{scalar(key)}:", value, indent + "  ")]
    return [line for value in data for line in _item(value, indent)]


def _entry(head: str, value: Any, indent: str) -> list[str]:
    note = ""
    if isinstance(value, Noted):
        note = f"  # {_one_line(value.note)}" if value.note else ""
        value = value.value
    if isinstance(value, (Mapping, list, tuple)):
        if value:
            return [head + note, *_lines(value, indent)]
        return [f"{head} {'{}' if isinstance(value, Mapping) else '[]'}{note}"]
    return [f"{head} {scalar(value)}{note}"]


def _item(value: Any, indent: str) -> list[str]:
    inner = value.value if isinstance(value, Noted) else value
    if isinstance(inner, Mapping) and inner:
        comment = [f"{indent}# {_one_line(value.note)}"] if isinstance(value, Noted) else []
        first, *others = _lines(inner, indent + "  ")
        return [*comment, f"{indent}- {first.lstrip(' ')}", *others]
    return _entry(f"{indent}-", value, indent + "  ")


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def without_notes(data: Any) -> Any:
    """The data without its notes, fit for JSON."""
    if isinstance(data, Noted):
        return without_notes(data.value)
    if isinstance(data, Mapping):
        return {key: without_notes(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [without_notes(value) for value in data]
    return data
