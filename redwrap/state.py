# SPDX-License-Identifier: Apache-2.0
"""The leaf's own state at a real path: /var with the directories that its ancestors' packages need.

A daemon of the parent that runs in a child expects /var/lib/DAEMON there. What it keeps in it is
the child's; the parent's /var is not shown.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection

from redpak.family import Family
from redpak.node import Node
from redwrap.operations import Bind
from redwrap.plan import LaunchPlan

_DEPTH = 4  # of the directories of packages: deeper ones are an application's own
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_state_directories(plan: LaunchPlan, family: Family) -> None:
    """Make what the ancestors have in each directory that the leaf mounts, writable, at its real
    path. What the caller may not make is left out."""
    leaf = family.leaf
    for mount in plan.mounts:
        if isinstance(mount, Bind) and mount.writable and mount.source == leaf.path + mount.mount:
            for ancestor in reversed(family.ancestors):
                _mirror(ancestor, leaf, mount.mount)


def _mirror(ancestor: Node, leaf: Node, top: str) -> None:
    own = {ancestor.rpmdb_dir, ancestor.persist_dir, ancestor.cache_dir, f"{ancestor.path}/var/tmp"}
    with contextlib.suppress(OSError):
        target = os.open(leaf.path + top, _DIRECTORY)
        try:
            _mirror_directory(ancestor.path + top, target, own, _DEPTH)
        finally:
            os.close(target)


def _mirror_directory(source: str, target: int, skipped: Collection[str], depth: int) -> None:
    """Make the directories below `source` in the open directory `target`; no link is followed, an
    application may have put one there."""
    with os.scandir(source) as entries:
        directories = [entry for entry in entries if entry.is_dir(follow_symlinks=False)
                       and entry.path not in skipped]
    for entry in directories:
        with contextlib.suppress(OSError):
            below = _make_directory(entry, target)
            try:
                if depth > 1:
                    _mirror_directory(entry.path, below, skipped, depth - 1)
            finally:
                os.close(below)


def _make_directory(model: os.DirEntry[str], above: int) -> int:
    """Open the directory that has the name of `model`; made like it when it is missing."""
    try:
        os.mkdir(model.name, 0o700, dir_fd=above)
    except FileExistsError:
        return os.open(model.name, _DIRECTORY, dir_fd=above)
    info = model.stat(follow_symlinks=False)
    fd = os.open(model.name, _DIRECTORY, dir_fd=above)
    if os.geteuid() == 0:
        os.fchown(fd, info.st_uid, info.st_gid)
    os.fchmod(fd, stat.S_IMODE(info.st_mode))
    return fd
