# SPDX-License-Identifier: Apache-2.0
"""What a terminal is shown beside the text itself: colours, lines that fit, how far a command is.

Pipes and files get none of it. NO_COLOR (https://no-color.org) and TERM=dumb take the colours away,
COLUMNS says how wide the terminal is.
"""

from __future__ import annotations

import os
import time
from types import TracebackType

from redpak.errors import TYPE_CHECKING
from redpak.findings import printable as printable
from redpak.values import dataclass

if TYPE_CHECKING:
    from typing import TextIO

RED, GREEN, YELLOW, CYAN = "31", "32", "33", "36"
_PATIENCE = 0.3  # seconds; of what takes less, no progress is shown


@dataclass(frozen=True)
class Look:
    """How text for people is written: with colours or without, in so many columns (0: any)."""

    colour: bool = False
    columns: int = 0

    def paint(self, text: str, colour: str) -> str:
        """``text`` in a colour."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour else text

    def fill(self, text: str, indent: str) -> str:
        """``text`` in lines that fit, all but the first two deeper than ``indent``; a word, such
        as a path, is never broken."""
        if not self.columns or len(indent) + len(text) <= self.columns:
            return indent + text
        import textwrap
        return textwrap.fill(text, max(self.columns, 20), initial_indent=indent,
                             subsequent_indent=f"{indent}  ", break_long_words=False,
                             break_on_hyphens=False)

    def cut(self, text: str, taken: int, *, least: int = 24) -> str:
        """The end of ``text``, where ``taken`` columns are used for something else."""
        room = max(self.columns - taken, least)
        return text if not self.columns or len(text) <= room else f"...{text[3 - room:]}"


def look_of(stream: TextIO) -> Look:
    """How to write to a stream."""
    if not stream.isatty():
        return Look()
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    import shutil  # loads every compressor there is

    return Look(colour, shutil.get_terminal_size().columns)


class Progress:
    """One line of a terminal that says how far a command is; at the end it is gone."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        look = look_of(stream)
        self._stream = stream if look.columns and not quiet else None
        self._columns = look.columns
        self._start = time.monotonic()
        self._is_shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.clear()

    def show(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` are done, now it is the turn of ``what``."""
        if self._stream is None or time.monotonic() - self._start < _PATIENCE:
            return
        text = f"[{done}/{total}] {printable(what)}"[:self._columns - 1]
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
        self._is_shown = True

    def clear(self) -> None:
        """Remove the line, for others to write there."""
        if self._stream is not None and self._is_shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_shown = False
