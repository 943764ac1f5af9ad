# SPDX-License-Identifier: Apache-2.0
"""The command lines in the text of a page, outside its blocks: `red-check --redpath=NODE`.

They have placeholders, so they are not run as they stand: a block of some page must run the same
command with the same options, on real nodes, or a test that is named must.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from support.console import read_steps

# What redpak has, and what its pages tell people to type beside that.
_PROGRAM = re.compile(r"(dnf5?|red-[a-z-]+|scripts/[a-z0-9-]+|sudo|apt|apt-get|pip|make|python3|man"
                      r"|systemd-run|rpm)(?= |$)")
_OPTION_TABLE = re.compile(r"<!-- options: .*?<!-- end of options -->", re.DOTALL)
_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_WORD = re.compile(r"--?[\w][\w-]*|[\w./-]+")


@dataclass(frozen=True)
class Mention:
    """A command line in a sentence or a table."""

    line: int
    text: str

    def is_within(self, command: str) -> bool:
        """Whether a command has all words of this one but its placeholders."""
        return _words(self.text) <= _words(command)


def read_mentions(page: str) -> Iterator[Mention]:
    """The command lines in the text of a page; a command's mere name is none, but a script's."""
    for pattern in (_OPTION_TABLE, _BLOCK):
        page = pattern.sub(lambda match: "\n" * match[0].count("\n"), page)
    for span in _SPAN.finditer(page):
        text = " ".join(span[1].split())
        program = _PROGRAM.match(text)
        if program and (" " in text or program[0].startswith("scripts/")) and not _is_stock(text):
            yield Mention(page.count("\n", 0, span.start()) + 1, text)


def commands_run(pages: Iterable[str]) -> list[str]:
    """The simple commands in what the blocks of the pages run, whoever runs it."""
    lines = (step.command for page in pages for step in read_steps(page))
    return [part for line in lines for part in re.split(r"[;&|()'\"\n]", line)]


def _is_stock(text: str) -> bool:
    """dnf's and rpm's own commands are named to compare."""
    program, _, rest = text.partition(" ")
    return program in ("dnf", "dnf5", "rpm") and not re.search(r"\bred|_redpath|^r\w\w$", rest)


def _words(command: str) -> set[str]:
    """The program, commands and options; red-dnf may be left out, or be plain dnf."""
    words = set(_WORD.findall(re.sub(r"=\S+", " ", command)))
    literal = {word for word in words if word != word.upper() and not re.search(r"[A-Z]{3}", word)}
    options = {word for word in words if re.fullmatch(r"-\w", word)}
    return (literal | options) - {"dnf", "dnf5", "red-dnf", "sudo"}
