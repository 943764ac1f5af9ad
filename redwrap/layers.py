# SPDX-License-Identifier: Apache-2.0
"""Overlays as the file system has them: which layers there are, and what lies in and beneath them.

What redmain exports below the mount of an overlay lies beneath the family there, as the core OS
lies at the bottom of an overlay of the same mount: of a directory, the family's is stacked on top;
a file that a node has of its own takes the default's place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from enum import Enum
from typing import Optional

from redpak.load import REDMAIN
from redpak.values import dataclass, field, replace
from redwrap.operations import Bind, Data, Mount, Operation, Overlay, Symlink
from redwrap.plan import LaunchPlan
from redwrap.sources import is_below


class Found(Enum):
    """What a look at a path found. No link is followed."""

    NOTHING = "nothing"
    DIRECTORY = "directory"
    OTHER = "other"


@dataclass
class _Looks:
    """Looks at paths, and notes what they found: the plan holds as long as it is so."""

    seen: dict[str, Found] = field(default_factory=dict)
    writable: dict[str, bool] = field(default_factory=dict)

    def look(self, path: str) -> Found:
        """What is at `path`; what may not be looked at is not there."""
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            found = Found.NOTHING
        else:
            found = Found.DIRECTORY if stat.S_ISDIR(mode) else Found.OTHER
        return self.seen.setdefault(path, found)

    def can_write(self, path: str) -> bool:
        """Whether the caller may make entries in a directory, or make it."""
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        return self.writable.setdefault(path, os.access(path, os.W_OK | os.X_OK))


def settle_overlays(plan: LaunchPlan) -> LaunchPlan:
    """The plan with its overlays settled; `looked_at` has what that depends on."""
    looks = _Looks()
    overlays: dict[str, Overlay] = {}  # by mount
    binds: dict[str, Bind] = {}  # of nodes' directories, writable
    operations: list[Operation] = []
    for step in plan.operations:
        settled: Optional[Operation] = step
        if isinstance(step, Overlay):
            settled = _settle_layers(step, looks)
        elif isinstance(step, Mount) and _is_default(step):
            outer = _enclosing(step, operations)
            if isinstance(step, (Bind, Data, Symlink)) and outer in overlays:
                settled = _settle_default(step, overlays[outer], looks)
            elif outer in binds and not _has_point(step, binds[outer], looks):
                settled = None
        if isinstance(settled, Overlay):
            overlays[settled.mount] = settled
        elif isinstance(settled, Bind) and settled.base and settled.writable:
            binds[settled.mount] = settled
        if settled is not None:
            operations.append(settled)
    return replace(plan, operations=tuple(operations), writable=looks.writable, looked_at={
        path: found.value for path, found in looks.seen.items()})


def _is_default(mount: Mount) -> bool:
    return mount.origin is not None and mount.origin.node == REDMAIN


def _enclosing(inner: Mount, before: Sequence[Operation]) -> str:
    """Where the mount is that another lies in: the deepest above it; "" for none."""
    return max((step.mount for step in before
                if isinstance(step, Mount) and is_below(inner.mount, step.mount)),
               key=len, default="")


def _has_point(default: Mount, bind: Bind, looks: _Looks) -> bool:
    """Whether a default of redmain has a place in a node's directory: it is there, or we can
    make it."""
    point = bind.source + default.mount[len(bind.mount):]
    return looks.look(point) is not Found.NOTHING or looks.can_write(os.path.dirname(point))


def _settle_layers(overlay: Overlay, looks: _Looks) -> Optional[Overlay]:
    """The overlay without the optional layers that are missing, and read-only for a caller who
    cannot write where its changes go; None when nothing is left of it."""
    layers = tuple(
        layer for layer in overlay.layers
        if layer[0] not in overlay.optional or looks.look(layer[0]) is not Found.NOTHING)
    writes = overlay.writes
    if writes and not looks.can_write(writes):
        # What the owner changed is there all the same.
        upper = f"{writes}/upper"
        if looks.look(upper) is Found.DIRECTORY and os.access(upper, os.R_OK | os.X_OK):
            layers = ((upper, overlay.writes_base), *layers)
        writes = ""
    if not layers:
        return None
    return replace(overlay, layers=layers, writes=writes, optional=())


def _settle_default(default: Mount, overlay: Overlay, looks: _Looks) -> Optional[Mount]:
    """What becomes of a default of redmain that is mounted in an overlay of the family."""
    inside = default.mount[len(overlay.mount):]
    family: list[tuple[str, str]] = []
    for directory, base in overlay.layers:
        found = looks.look(directory + inside)
        if found is Found.OTHER:
            # In overlayfs too, what is no directory hides all that lies beneath.
            return None
        if found is Found.DIRECTORY:
            family.append((directory + inside, base))
    if not family:
        return default
    if isinstance(default, Bind) and os.path.isdir(default.source):
        return Overlay(default.origin, default.mount, (*family, (default.source, default.base)), "")
    return None
