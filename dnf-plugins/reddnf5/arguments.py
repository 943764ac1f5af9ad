# SPDX-License-Identifier: Apache-2.0
"""What the user asked of a red- command of dnf5.

A plugin cannot see dnf5's parsed command line: the alias file passes our options on as variables
of dnf5, and the words behind the command are read from the command line itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

from reddnf5.commands import VARIABLE, RedCommand, all_names, find_command
from redpak.errors import RedpakError

# Where their result goes is thrown away with the stage, or is no node's.
_REFUSED = ("--offline", "--transient", "--installroot")

Lookup = Callable[[str], Optional[str]]


@dataclass(frozen=True)
class NodeArguments:
    """The command, the words behind it that are no options, and the options of red- commands."""

    command: RedCommand
    words: Sequence[str]
    redpath: Optional[str]
    rmain: Optional[str]
    force: bool
    forcenode: bool
    plan: bool

    @property
    def changes_node(self) -> bool:
        """Whether the command changes the node."""
        changing = self.command.changing
        return changing is None or bool(changing & set(self.words[:1]))

    @classmethod
    def read(cls, variable: Lookup, argv: Sequence[str]) -> NodeArguments:
        """From the variables by name, and the command line. Raises RedpakError."""

        def told(name: str) -> Optional[str]:
            return variable(f"{VARIABLE}{name}")

        for word in argv:
            if word.partition("=")[0] in _REFUSED:
                raise RedpakError(f"{word.partition('=')[0]}: not for nodes", hint="leave it out")
        name = told("command")
        if name is None:
            raise RedpakError(
                "--redpath and its like go with the red- commands",
                hint="write red-install for install, and so on; red-manager for the options of it",
            )
        return cls(
            command=find_command(name),
            words=[word for word in words_of(argv) if not word.startswith("-")],
            redpath=told("redpath"),
            rmain=told("rmain"),
            force=told("node_force") is not None,
            forcenode=told("forcenode") is not None,
            plan=told("plan") is not None,
        )

    @property
    def package_files(self) -> list[str]:
        """The words that are package files."""
        return [word for word in self.words if word.endswith(".rpm") and os.path.isfile(word)]


def words_of(argv: Sequence[str]) -> list[str]:
    """What stands behind the red- command in a command line; without one, nothing."""
    names = all_names()
    for position, word in enumerate(argv):
        if position and word in names:
            return list(argv[position + 1 :])
    return []
