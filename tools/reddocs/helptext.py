# SPDX-License-Identifier: Apache-2.0
"""A command's --help, read back: whatever parser a command uses, this text is what it offers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

# "  -x, --long VALUE, --other=VALUE  help": the help may also be on the next, deeper lines.
_OPTION = re.compile(r"^ {1,8}(?=-)(?P<names>.*?)(?: {2,}(?P<help>\S.*))?$")
_NAME = re.compile(
    r"(?P<name>--?[A-Za-z0-9?][\w-]*)(?:\[?[ =](?P<value>\{[^}]*\}|(?:[^,]|,(?! ))+))?(?:, |$)")
_COMMAND = re.compile(r"^ {4}(?P<name>[a-z][\w-]*)(?: {2,}(?P<help>\S.*))?$")
_ARGUMENT = re.compile(r"^ {2}(?P<name>[A-Za-z][\w-]*)(?: {2,}(?P<help>\S.*))?$")


@dataclass(frozen=True)
class Option:
    """One option: its names, what its value is called ("" for a switch), and its help."""

    names: tuple[str, ...]
    value: str
    help: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it may have, when they are listed."""
        return tuple(self.value[1:-1].split(",")) if self.value.startswith("{") else ()


@dataclass(frozen=True)
class Help:
    """A --help text taken apart. Titles of groups are as written, without the colon."""

    usage: str
    about: str
    groups: dict[str, list[Option]] = field(default_factory=dict)
    commands: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[tuple[str, str]] = field(default_factory=list)
    after: str = ""

    @property
    def options(self) -> list[Option]:
        """The options of all groups."""
        return [option for group in self.groups.values() for option in group]


def parse_help(text: str) -> Help:
    """Take a --help text apart. Raises ValueError when it has no usage."""
    paragraphs = text.strip("\n").split("\n\n")
    usage = re.sub(r"\s+", " ", paragraphs[0])
    if not usage.lower().startswith("usage: "):
        raise ValueError(f"no usage in: {paragraphs[0][:80]}")
    found = Help(usage[len("usage: "):], "")
    about: list[str] = []
    after: list[str] = []
    group = "Options"
    for paragraph in paragraphs[1:]:
        lines = paragraph.splitlines()
        if re.fullmatch(r"\S.*:", lines[0]):
            group = lines.pop(0)[:-1]
        if _read_entries(lines, group, found):
            continue
        (after if found.groups else about).append(re.sub(r"\s+", " ", paragraph).strip())
    return Help(found.usage, "\n\n".join(about), found.groups, found.commands, found.arguments,
                "\n\n".join(after))


def _read_entries(lines: Sequence[str], group: str, into: Help) -> bool:
    """Read options, commands and arguments; False when there are none in these lines."""
    head: Optional[re.Match[str]] = None
    kind = ""
    words: list[str] = []
    known = False

    def flush() -> None:
        if head is None:
            return
        text = " ".join(words)
        if kind == "option":
            into.groups.setdefault(group, []).append(_option(head["names"], text))
        else:
            getattr(into, f"{kind}s").append((head["name"], text))

    for line in lines:
        for kind_here, pattern in (("option", _OPTION), ("command", _COMMAND),
                                   ("argument", _ARGUMENT)):
            match = pattern.match(line)
            if match:
                flush()
                head, kind, known = match, kind_here, True
                words = [match["help"]] if match["help"] else []
                break
        else:
            words.append(line.strip())
    # "  COMMAND" over the list of commands is its heading, without a help of its own.
    if kind != "argument" or words:
        flush()
    into.arguments[:] = [one for one in into.arguments if one[1]]
    return known


def _option(text: str, help_text: str) -> Option:
    found = list(_NAME.finditer(text.strip()))
    if not found:
        raise ValueError(f"no option in: {text}")
    value = next((match["value"] for match in found if match["value"]), "")
    return Option(tuple(match["name"] for match in found), value.strip(), help_text)
