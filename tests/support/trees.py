# SPDX-License-Identifier: Apache-2.0
"""Look at and remove whole directory trees."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def snapshot_tree(root: Path, *, without: tuple[str, ...] = ()) -> dict[str, tuple[object, ...]]:
    """What a tree holds: for each relative path its mode, owner, mtime (ns), and content's digest.

    without names relative paths that are left out with all below them.
    """
    found: dict[str, tuple[object, ...]] = {}
    for folder, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if relative in without:
                if name in names:
                    names.remove(name)
                continue
            found[relative] = _describe(path)
    found["."] = _describe(os.fspath(root))
    return found


def _describe(path: str) -> tuple[object, ...]:
    status = os.lstat(path)
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as stream:
            content = hashlib.sha256(stream.read()).hexdigest()
    owner = (status.st_uid, status.st_gid)
    return (stat.filemode(status.st_mode), *owner, status.st_mtime_ns, content)


def remove_tree(root: Path) -> None:
    """Remove a tree, directories without permissions (overlayfs' work) included."""
    for folder, names, _files in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                os.chmod(path, 0o700)
    for folder, names, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in names:
            path = os.path.join(folder, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    os.rmdir(root)
