# SPDX-License-Identifier: Apache-2.0
"""What killed commands left in a node, looked at while no command can be at work."""

from __future__ import annotations

import os
from collections.abc import Iterator

from redcheck.findings import Finding
from redcheck.scope import Layer


def has_journal(layer: Layer) -> bool:
    """Whether a commit was not finished: nothing else can be told of the node then."""
    return os.path.lexists(f"{layer.path}/.redpak/journal")


def find_leftovers(layer: Layer) -> Iterator[Finding]:
    """A journal, a stage, temporary files. Raises OSError where it may not look."""
    state = f"{layer.path}/.redpak"
    names = sorted(os.listdir(state)) if os.path.isdir(state) else []
    for name in names:
        if name == "journal":
            yield layer.finding("journal", "a commit was not finished", path="/.redpak/journal")
        elif name in ("stage", "stage.discarded") or name.endswith(".tmp"):
            yield layer.finding("stage", f".redpak/{name} is left of a killed command",
                                path=f"/.redpak/{name}")
    for name in sorted(os.listdir(layer.path)):
        if name.startswith(".rednode.yaml.") and name.endswith(".tmp"):
            yield layer.finding("stage", f"{name} is left of a killed command", path=f"/{name}",
                                remedy="remove it")
