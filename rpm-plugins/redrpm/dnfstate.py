# SPDX-License-Identifier: Apache-2.0
"""dnf4 and dnf5 in turn on one node: who wrote its reasons last.

dnf4 keeps the reasons of packages in history.sqlite, dnf5 in files beside its own history. Each
reads the other's by its own means when the other one worked on the node last, which a file says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

DNF4 = "dnf4"
DNF5 = "dnf5"
# Below an installroot; the first is part of what the view and a commit take for dnf's state.
STATE_DIR = "var/lib/dnf"
DNF5_STATE_DIR = f"{STATE_DIR}/libdnf5"
_WRITER = "redpak-writer"
# dnf5 writes one entry a line; tomllib comes with Python 3.11 only.
_ENTRY = re.compile(r'^"(?P<key>[^"]+)" = \{\w+ = "(?P<value>[^"]*)"\}$', re.MULTILINE)


def last_writer(state: str) -> str:
    """Who changed the state directory ``state`` last."""
    try:
        with open(f"{state}/{_WRITER}", encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return DNF4


def note_writer(state: str, writer: str) -> None:
    """``writer`` changes the state directory ``state``. Raises OSError."""
    if last_writer(state) == writer:
        return
    with open(f"{state}/{_WRITER}", "w", encoding="utf-8") as stream:
        stream.write(f"{writer}\n")


def read_entries(path: str) -> Iterator[tuple[str, str]]:
    """What a file of dnf5's state says of each package: of name.arch the reason (packages.toml),
    of the nevra the repository (nevras.toml). Nothing when it cannot be read."""
    for found in _ENTRY.finditer(read_state_file(path)):
        yield found["key"], found["value"]


def read_state_file(path: str) -> str:
    """The text of a file of dnf5's state; "" when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
