# SPDX-License-Identifier: Apache-2.0
"""YAML text -> a tree of scalars as text, each with its place; hostile input is refused.

The C parser's events are turned into the tree here, not by PyYAML's composer: that keeps text as
it was written, knows where each scalar stands, bounds depth and size before memory is spent, and
is faster. Of YAML's features anchors, aliases and tags are refused: every value of a certified
configuration stands on its own line, and nothing can multiply itself.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator

import yaml

from redpak.errors import TYPE_CHECKING, ConfigError, RedpakError
from redpak.findings import Finding, Origin, Severity

if TYPE_CHECKING:
    from typing import Any, Union

MAX_BYTES = 256 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 16

# What YAML calls non-printable (YAML 1.1, 5.1), refused before the parser sees it.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


class Scalar:
    """A value: its text, and its place (both counted from 1). `bare` is an empty plain one."""

    __slots__ = ("bare", "column", "line", "text")

    def __init__(self, text: str, line: int, column: int, *, bare: bool = False) -> None:
        self.text = text
        self.line = line
        self.column = column
        self.bare = bare


class Sequence:
    """A list of values."""

    __slots__ = ("column", "items", "line")

    def __init__(self, line: int, column: int) -> None:
        self.items: list[Tree] = []
        self.line = line
        self.column = column


class Mapping:
    """Keys with their values, in the order of the file; keys may repeat here."""

    __slots__ = ("column", "flow", "items", "line")

    def __init__(self, line: int, column: int, *, flow: bool) -> None:
        self.items: list[tuple[Scalar, Tree]] = []
        self.line = line
        self.column = column
        self.flow = flow  # written as {...}


if TYPE_CHECKING:
    Tree = Union[Scalar, Sequence, Mapping]
else:
    Tree = object

# Without libyaml PyYAML has the same events from a parser of its own.
_Parser: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def read_text(path: str, check: Callable[[os.stat_result], None] | None = None) -> bytes:
    """The content of a configuration file. Raises RedpakError: unreadable, too big, no file.

    `check` sees the status of the very file that is read, and may raise.
    """
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise RedpakError(f"cannot read {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RedpakError(f"cannot read {path}: not a regular file")
        if check is not None:
            check(status)
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise RedpakError(f"{path} is too big for a configuration",
                          hint=f"the limit is {MAX_BYTES // 1024} KiB")
    return data


def parse_tree(data: bytes, file: str) -> Tree | None:
    """The tree of one YAML document; None for an empty one. Raises ConfigError with one finding."""
    if len(data) > MAX_BYTES:
        raise _fault(file, 1, 1, "is too big for a configuration",
                     f"the limit is {MAX_BYTES // 1024} KiB")
    _check_characters(data, file)
    try:
        return _build(_events(data, file), file)
    except yaml.YAMLError as error:
        raise _syntax_fault(error, data, file) from error


def _fault(file: str, line: int, column: int, message: str, hint: str = "") -> ConfigError:
    return ConfigError([Finding(Severity.ERROR, message, Origin(file, line, column, ""),
                                hint=hint)])


def _too_deep(file: str, line: int, column: int) -> ConfigError:
    return _fault(file, line, column, f"nests deeper than {MAX_DEPTH} levels")


def _place(text: str, position: int) -> tuple[int, int]:
    line = text.count("\n", 0, position) + 1
    return line, position - text.rfind("\n", 0, position)


def _check_characters(data: bytes, file: str) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place(data[:error.start].decode("utf-8"), error.start)
        raise _fault(file, line, column, f"is not UTF-8 text (byte 0x{data[error.start]:02x})",
                     "save the file as UTF-8") from error
    found = _CONTROL.search(text)
    if found:
        line, column = _place(text, found.start())
        raise _fault(file, line, column, f"has the control character U+{ord(found[0]):04X}",
                     "remove it")


# libyaml's words for what it was in the middle of, where the start tells more than the end.
_UNCLOSED = {
    "while scanning a quoted scalar": "the quote that opens here is not closed",
    "while parsing a flow sequence": "the [ that opens here is not closed",
    "while parsing a flow mapping": "the { that opens here is not closed",
}


def _syntax_fault(error: yaml.YAMLError, data: bytes, file: str) -> ConfigError:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if "nesting depth" in problem:
        # libyaml from 0.2.6 on has a limit too, met where it reads ahead of the events.
        return _too_deep(file, line, column)
    unclosed = _UNCLOSED.get(getattr(error, "context", None) or "")
    if unclosed:
        mark = error.context_mark  # type: ignore[attr-defined]
        return _fault(file, mark.line + 1, mark.column + 1, f"is no valid YAML: {unclosed}",
                      "close it, and quote text that has quotes, brackets or braces")
    lines = data.decode("utf-8").split("\n")
    indent = re.match(r"\s*", lines[line - 1] if line <= len(lines) else "")
    hint = "check the indentation, quotes and colons here and in the line before"
    if indent and "\t" in indent[0]:
        hint = "indent with spaces, YAML knows no tabs"
    return _fault(file, line, column, f"is no valid YAML: {problem}", hint)


def _events(data: bytes, file: str) -> Iterator[Any]:
    """The events of the one document, checked for what is refused. Raises ConfigError."""
    parser = _Parser(data)
    documents = depth = values = 0
    while True:
        event = parser.get_event()
        kind = type(event)
        if kind is yaml.ScalarEvent:
            values += 1
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            values += 1
            depth += 1
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            depth -= 1
        elif kind is yaml.StreamEndEvent:
            return
        elif kind is yaml.DocumentStartEvent:
            documents += 1
        elif kind is not yaml.AliasEvent:
            continue
        mark = event.start_mark
        if documents > 1:
            raise _fault(file, mark.line + 1, mark.column + 1, "starts a second YAML document",
                         "write one document per file")
        if kind is yaml.DocumentStartEvent:
            continue
        if getattr(event, "anchor", None) is not None:
            raise _fault(file, mark.line + 1, mark.column + 1,
                         f"uses the YAML anchor or alias {event.anchor[:40]!a}",
                         "write the value itself; quote text that starts with & or *")
        if getattr(event, "tag", None) is not None:
            raise _fault(file, mark.line + 1, mark.column + 1,
                         f"uses the YAML tag {event.tag[:40]!a}",
                         "write plain values; quote text that starts with !")
        if depth > MAX_DEPTH:
            raise _too_deep(file, mark.line + 1, mark.column + 1)
        if values > MAX_VALUES:
            raise _fault(file, mark.line + 1, mark.column + 1,
                         f"has more than {MAX_VALUES} values")
        yield event


def _build(events: Iterator[Any], file: str) -> Tree | None:
    """Put the tree together, with a stack of our own: no recursion that input could exhaust."""
    root: Tree | None = None
    stack: list[tuple[Mapping | Sequence | None, Scalar | None]] = []
    open_tree: Mapping | Sequence | None = None
    key: Scalar | None = None
    for event in events:
        kind = type(event)
        mark = event.start_mark
        tree: Tree
        if kind is yaml.ScalarEvent:
            text = event.value
            tree = Scalar(text, mark.line + 1, mark.column + 1,
                          bare=not text and event.implicit[0])
        elif kind is yaml.MappingStartEvent:
            tree = Mapping(mark.line + 1, mark.column + 1, flow=bool(event.flow_style))
        elif kind is yaml.SequenceStartEvent:
            tree = Sequence(mark.line + 1, mark.column + 1)
        else:
            open_tree, key = stack.pop()
            continue
        if type(open_tree) is Mapping:
            if key is None:
                if type(tree) is not Scalar:
                    raise _fault(file, mark.line + 1, mark.column + 1,
                                 "has a list or a mapping as a key", "write KEY: VALUE")
                key = tree
                continue
            open_tree.items.append((key, tree))
            key = None
        elif type(open_tree) is Sequence:
            open_tree.items.append(tree)
        else:
            root = tree
        if type(tree) is not Scalar:
            stack.append((open_tree, key))
            open_tree, key = tree, None  # type: ignore[assignment]
    return root
