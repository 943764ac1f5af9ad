# SPDX-License-Identifier: Apache-2.0
"""What the application will see, worked out on the host from the mounts of a plan.

(launcher/lookup.c finds commands in the same way.)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from redwrap.operations import Bind, Mount, Overlay, Symlink

_MAX_LINKS = 40  # as the kernel: path_resolution(7)


class NamespaceView:
    """Paths of the namespace as paths of the host. Later mounts cover earlier ones."""

    def __init__(self, mounts: Sequence[Mount]) -> None:
        self._at: dict[str, Mount] = {mount.mount: mount for mount in mounts}
        # Directories that bwrap makes on the way to a mount point.
        self._made = {"/"}
        for path in self._at:
            parent = os.path.dirname(path)
            while parent not in self._made:
                self._made.add(parent)
                parent = os.path.dirname(parent)

    def host_directories(self, path: str) -> list[str]:
        """The directories of the host behind absolute `path`, every symlink followed as the
        namespace has it: several in an overlay."""
        return [host for host in self._find(path) if os.path.isdir(host)]

    def _find(self, path: str) -> list[str]:
        parts = [part for part in path.split("/") if part]
        inside, hosts, links = "/", self._root(), 0
        while parts:
            part = parts.pop(0)
            if part == ".":
                continue
            if part == "..":
                inside = os.path.dirname(inside)
                hosts = self._step_to(inside)
                continue
            inside = os.path.join(inside, part)
            mount = self._at.get(inside)
            target = mount.target if isinstance(mount, Symlink) else None
            if mount is None:
                hosts = _step_into(hosts, part)
                if hosts and os.path.islink(hosts[0]):
                    target = os.readlink(hosts[0])
                if not hosts and inside not in self._made:
                    return []
            else:
                hosts = _sources(mount)
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    return []
                parts = [word for word in target.split("/") if word] + parts
                inside = "/" if target.startswith("/") else os.path.dirname(inside)
                hosts = self._step_to(inside)
        return hosts

    def _root(self) -> list[str]:
        root = self._at.get("/")
        return [root.source] if isinstance(root, Bind) else []

    def _step_to(self, inside: str) -> list[str]:
        """The host's directories behind `inside`, which holds no symlink any more."""
        hosts = self._root()
        path = ""
        for part in inside.split("/")[1:] if inside != "/" else []:
            path = f"{path}/{part}"
            mount = self._at.get(path)
            hosts = _step_into(hosts, part) if mount is None else _sources(mount)
        return hosts


def _sources(mount: Mount) -> list[str]:
    """What of the host is behind a mount: of an overlay several directories, topmost first."""
    if isinstance(mount, Bind):
        return [os.path.realpath(mount.source)]
    if isinstance(mount, Overlay):
        changed = [f"{mount.writes}/upper"] if mount.writes else []
        return changed + [os.path.realpath(directory) for directory, _ in mount.layers]
    return []


def _step_into(hosts: Sequence[str], name: str) -> list[str]:
    """What the merged directories `hosts` have under a name: several directories, or one file."""
    found: list[str] = []
    for host in hosts:
        path = os.path.join(host, name)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if not stat.S_ISDIR(mode):
            # A character device 0:0 is overlayfs's mark of a removed file.
            return found if found or stat.S_ISCHR(mode) else [path]
        found.append(path)
    return found
