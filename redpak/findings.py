# SPDX-License-Identifier: Apache-2.0
"""Where a configured value stands, and what is wrong with it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from redpak.values import dataclass


def printable(text: str) -> str:
    """`text` in one line, fit for a terminal and a stream: names of files and what configurations
    say are hostile. Control characters and lone surrogates are shown as escapes."""
    if text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown.encode(errors="backslashreplace").decode()


@dataclass(frozen=True)
class Origin:
    """The place a value was written: lines and columns count from 1, line 0 is "not in a file"."""

    file: str
    line: int
    column: int
    node: str  # the alias of the node, "redmain" for the core OS

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Severity(enum.Enum):
    """How bad a finding is: an error stops the work, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One fault of a configuration: what, where, under which key, and what to do about it."""

    severity: Severity
    message: str
    origin: Origin | None = None
    key: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where = ""
        if self.origin is not None:
            where = f"{self.origin}:{self.origin.column}: " if self.origin.line else (
                f"{self.origin}: ")
        text = f"{where}{self.message}"
        return printable(f"{text}; {self.hint}" if self.hint else text)


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` most likely meant, or "" when none is near."""
    import difflib  # only for mistakes: others need not pay for it
    near = difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.6)
    return near[0] if near else ""


def did_you_mean(word: str, known: Iterable[str], *, noun: str = "") -> str:
    """A hint for a misspelt word: the nearest known one, else the list of all of them."""
    names = list(known)
    near = closest(word, names)
    if near:
        return f'did you mean "{near}"?'
    return f"known{' ' + noun if noun else ''}: {', '.join(names)}"
