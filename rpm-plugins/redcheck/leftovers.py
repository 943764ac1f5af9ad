# SPDX-License-Identifier: Apache-2.0
"""What killed commands left in a node, looked at while no command can be at work."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from redcheck.findings import Finding
from redcheck.scope import Layer
from redpak.node import STATUS_FILE

_TEMPORARY = re.compile(r".*\.([0-9]+)\.tmp", re.DOTALL)  # redpak.files
_WRITING = 60  # seconds: longer than anybody takes to write such a file


def has_journal(layer: Layer) -> bool:
    """Whether a commit was not finished: nothing else can be told of the node then."""
    return os.path.lexists(f"{layer.path}/.redpak/journal")


def find_journal(layer: Layer) -> Iterator[Finding]:
    """The journal of a commit that was not finished."""
    if has_journal(layer):
        yield layer.finding("journal", "a commit was not finished", path="/.redpak/journal")


def find_leftovers(layer: Layer) -> Iterator[Finding]:
    """A stage, temporary files. Raises OSError where it may not look."""
    state = f"{layer.path}/.redpak"
    names = sorted(os.listdir(state)) if os.path.isdir(state) else []
    for name in names:
        if name in ("stage", "stage.discarded") or (
                name.endswith(".tmp") and not _is_being_written(f"{state}/{name}")):
            yield layer.finding("stage", f".redpak/{name} is left of a killed command",
                                path=f"/.redpak/{name}")
    for name in sorted(os.listdir(layer.path)):
        if is_status_being_written(name) and not _is_being_written(f"{layer.path}/{name}"):
            yield layer.finding("stage", f"{name} is left of a killed command", path=f"/{name}",
                                remedy="remove it")


def is_status_being_written(name: str) -> bool:
    """Whether a file of a node's own directory is the status before it gets its name."""
    return name.startswith(f"{STATUS_FILE}.") and name.endswith(".tmp")


def _is_being_written(path: str) -> bool:
    """Whether another check, which holds the node as we do, may be about to rename the file."""
    found = _TEMPORARY.fullmatch(path)
    try:
        age = time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return True  # it has been
    return found is not None and age < _WRITING and os.path.exists(f"/proc/{found[1]}")
