# SPDX-License-Identifier: Apache-2.0
"""The Markdown of docs/: taken apart for manual pages, and its generated tables made anew.

A page says where the options of a command belong:

    <!-- options: red-conf tree -->
    (made by scripts/generate-docs)
    <!-- end of options -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reddocs.helptext import Option

_OPTIONS = re.compile(
    r"^<!-- options: (?P<words>[\w -]+) -->\n.*?^<!-- end of options -->",
    re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A piece of a page. kind: heading, text, list, code, table, options.

    level is a heading's depth; rows are the lines of a list or code, or the cells of a table.
    """

    kind: str
    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


def option_table(options: Sequence[Option]) -> str:
    """The options as a Markdown table."""
    lines = ["| option | meaning |", "| --- | --- |"]
    for option in options:
        names = ", ".join(f"`{spell(name, option)}`" for name in option.names)
        lines.append(f"| {names} | {escape(option.help)} |")
    return "\n".join(lines) + "\n"


def spell(name: str, option: Option) -> str:
    """A name with its value, as the first of the names has it."""
    if not option.value or name != option.names[0]:
        return name
    value = "|".join(option.choices) or option.value
    return (f"{name}={value}" if name.startswith("--") else f"{name} {value}").replace("|", "\\|")


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def replace_options(page: str, options_of: Callable[[Sequence[str]], Sequence[Option]]) -> str:
    """The page with its tables of options made anew."""
    def table(match: re.Match[str]) -> str:
        words = match["words"].split()
        return (f"<!-- options: {match['words']} -->\n{option_table(options_of(words))}"
                "<!-- end of options -->")
    return _OPTIONS.sub(table, page)


def parse_page(page: str) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        start = at
        at += 1
        options = re.fullmatch(r"<!-- options: ([\w -]+) -->", line)
        if options:
            at = lines.index("<!-- end of options -->", at) + 1
            yield Block("options", options[1])
        elif line.startswith("<!--"):
            while "-->" not in lines[at - 1]:
                at += 1
        elif line.startswith("```"):
            at = lines.index("```", at) + 1
            yield Block("code", line[3:], rows=tuple((text,) for text in lines[start + 1:at - 1]))
        elif line.startswith("#"):
            marks, _, text = line.partition(" ")
            yield Block("heading", text, len(marks))
        elif line.startswith("|"):
            at = _while(lines, at, lambda text: text.startswith("|"))
            yield Block("table", rows=tuple(_cells(text) for text in lines[start:at]
                                            if not re.match(r"\| *-", text)))
        elif re.match(r"(-|\d+\.) ", line):
            at = _while(lines, at, lambda text: bool(re.match(r"(-|\d+\.) | +\S", text)))
            yield Block("list", rows=tuple(_items(lines[start:at])))
        elif line.strip():
            at = _while(lines, at, lambda text: bool(text.strip())
                        and not re.match(r"(- |\d+\. |```|#|\||<!--)", text))
            yield Block("text", " ".join(text.strip() for text in lines[start:at]))


def _while(lines: Sequence[str], at: int, belongs: Callable[[str], bool]) -> int:
    while at < len(lines) and belongs(lines[at]):
        at += 1
    return at


def _cells(line: str) -> tuple[str, ...]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return tuple(cell.strip().replace("\\|", "|") for cell in cells)


def _items(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """(mark, text) of each item."""
    mark = ""
    words: list[str] = []
    for line in lines:
        found = re.match(r"(-|\d+\.) (.*)", line)
        if found:
            if words:
                yield mark, " ".join(words)
            mark, words = found[1], [found[2]]
        else:
            words.append(line.strip())
    yield mark, " ".join(words)
