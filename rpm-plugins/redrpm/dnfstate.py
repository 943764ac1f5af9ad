# SPDX-License-Identifier: Apache-2.0
"""dnf4 and dnf5 in turn on one node: who wrote its reasons last.

dnf4 keeps the reasons of packages in history.sqlite, dnf5 in files beside its own history. Each
reads the other's by its own means when the other one worked on the node last, which a file says.
"""

from __future__ import annotations

DNF4 = "dnf4"
DNF5 = "dnf5"
# Below an installroot; the first is part of what the view and a commit take for dnf's state.
STATE_DIR = "var/lib/dnf"
DNF5_STATE_DIR = f"{STATE_DIR}/libdnf5"
_WRITER = f"{STATE_DIR}/redpak-writer"


def last_writer(root: str) -> str:
    """Who changed the state in ``root`` last."""
    try:
        with open(f"{root}/{_WRITER}", encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return DNF4


def note_writer(root: str, writer: str) -> None:
    """``writer`` changes the state in ``root``. Raises OSError."""
    if last_writer(root) == writer:
        return
    with open(f"{root}/{_WRITER}", "w", encoding="utf-8") as stream:
        stream.write(f"{writer}\n")
