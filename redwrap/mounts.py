# SPDX-License-Identifier: Apache-2.0
"""Which mounts of a plan are made by redwrap.mounter, and what is left for bwrap.

By measurement: with few mounts bwrap alone is faster than starting Python for them; from
MANY on, its cost for each (it reads the whole mount table every time) is the higher one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redwrap.operations import (
    Bind,
    Data,
    FileSystem,
    Flag,
    Lock,
    Mount,
    Operation,
    Overlay,
    Running,
    Symlink,
)
from redwrap.plan import LaunchPlan
from redwrap.sources import is_below

MANY = 64
# The directory that the mounts are made below, in a mount namespace of their own: it must exist
# and not hold bwrap itself. What is really in it can be mounted all the same.
_BASES = ("/tmp", "/run", "/var/tmp", "/mnt")


@dataclass(frozen=True)
class SplitPlan:
    """`steps` are for redwrap.mounter, `operations` for bwrap, `base` is what bwrap binds to /."""

    base: str
    steps: list[list[str]]
    operations: tuple[Operation, ...]


def wants_mounter(plan: LaunchPlan) -> bool:
    """Whether redwrap.mounter makes the mounts of this plan."""
    mounts = plan.mounts
    return len(mounts) >= MANY or any(isinstance(mount, Overlay) for mount in mounts)


def split_plan(plan: LaunchPlan) -> SplitPlan:
    """Divide a plan: /proc and the like, and what lies below them, is left for bwrap, which
    makes them in the namespaces that they belong to."""
    left: list[Mount] = [mount for mount in plan.mounts if isinstance(mount, Lock) or (
        isinstance(mount, FileSystem) and mount.option not in ("--tmpfs", "--dev"))]
    points = [mount.mount for mount in left if not isinstance(mount, Lock)]
    left += [mount for mount in plan.mounts if mount not in left
             and any(is_below(mount.mount, point) for point in points)]
    ours = [mount for mount in plan.mounts if mount not in left]
    base = next(base for base in _BASES if not is_below(plan.bwrap, base))
    operations: list[Operation] = []
    for step in plan.operations:
        if isinstance(step, Mount) and not any(isinstance(each, _Root) for each in operations):
            # --dev-bind: every mount but the devices has "nodev" already.
            operations.append(_Root(None, ("--dev-bind", base, "/")))
        if step not in ours:
            operations.append(step)
    marks = [["running", "", "red-wrap", step.state_dir, step.base, *step.journals]
             for step in plan.operations if isinstance(step, Running)]
    return SplitPlan(base, marks + [_encode(mount) for mount in ours], tuple(operations))


class _Root(Flag):
    """The bind of everything that redwrap.mounter made."""


def _encode(mount: Mount) -> list[str]:
    """A step of redwrap.mounter."""
    origin = mount.origin
    where = f"{origin} (node {origin.node})" if origin is not None else "red-wrap"
    start = [mount.mount, where]
    if isinstance(mount, Bind):
        return ["bind", *start, mount.source, mount.base, "rw" if mount.writable else "ro"]
    if isinstance(mount, Symlink):
        return ["symlink", *start, mount.target]
    if isinstance(mount, Data):
        return ["data", *start, str(mount.fd)]
    if isinstance(mount, Overlay):
        layers = _flatten(mount.layers)
        if not mount.writes:
            return ["overlay", *start, "ro", *layers]
        base = mount.writes_base
        return ["overlay", *start, "rw", f"{mount.writes}/upper", base, mount.writes, base, *layers]
    is_dev = isinstance(mount, FileSystem) and mount.option == "--dev"
    return ["dev" if is_dev else "tmpfs", *start]


def _flatten(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [text for pair in pairs for text in pair]
