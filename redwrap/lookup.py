# SPDX-License-Identifier: Apache-2.0
"""What the application will see, worked out on the host from the mounts of a plan.

So a command that does not exist in the namespace is reported before anything is started.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Optional

from redwrap.errors import NOT_EXECUTABLE, NOT_FOUND, LaunchError
from redwrap.operations import Bind, Data, Mount, Overlay, Symlink

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

    def host_path(self, path: str) -> Optional[str]:
        """The file of the host behind absolute `path`, every symlink followed as the namespace
        has it; None where the namespace has nothing, or nothing that the host has too."""
        parts = [part for part in path.split("/") if part]
        inside, host, links = "/", self._root(), 0
        while parts:
            part = parts.pop(0)
            if part == ".":
                continue
            if part == "..":
                inside = os.path.dirname(inside)
                host = self._step_to(inside)
                continue
            inside = os.path.join(inside, part)
            mount = self._at.get(inside)
            target = mount.target if isinstance(mount, Symlink) else None
            if mount is None:
                host = os.path.join(host, part) if host else None
                if host and os.path.islink(host):
                    target = os.readlink(host)
                elif host and not os.path.lexists(host):
                    host = None
                if host is None and target is None and inside not in self._made:
                    return None
            else:
                host = _source(mount)
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    return None
                parts = [word for word in target.split("/") if word] + parts
                inside = "/" if target.startswith("/") else os.path.dirname(inside)
                host = self._step_to(inside)
        return host

    def has_file(self, path: str) -> bool:
        """Whether red-wrap itself puts a file (Execfd, Internal) at `path`."""
        return isinstance(self._at.get(path), Data)

    def _root(self) -> Optional[str]:
        root = self._at.get("/")
        return root.source if isinstance(root, Bind) else None

    def _step_to(self, inside: str) -> Optional[str]:
        """The host's directory behind `inside`, which holds no symlink any more."""
        host = self._root()
        path = ""
        for part in inside.split("/")[1:] if inside != "/" else []:
            path = f"{path}/{part}"
            mount = self._at.get(path)
            if mount is not None:
                host = _source(mount)
            elif host is not None:
                host = os.path.join(host, part)
        return host


def _source(mount: Mount) -> Optional[str]:
    """The host's file behind a mount; of an overlay, the topmost layer."""
    if isinstance(mount, Bind):
        return os.path.realpath(mount.source)
    return os.path.realpath(mount.layers[0][0]) if isinstance(mount, Overlay) else None


def find_command(view: NamespaceView, command: str, search: str, directory: str) -> str:
    """The host's file behind `command`, looked up along `search` (a PATH) in the namespace.

    `directory` is where the application starts, for a relative name with a slash. Raises
    LaunchError with status 127 when there is none and 126 when it cannot be executed.
    """
    if "/" in command:
        candidates = [os.path.join(directory, command)]
    else:
        candidates = [os.path.join(entry or directory, command) for entry in search.split(":")]
    denied = ""
    for candidate in candidates:
        host = view.host_path(candidate)
        if host is None:
            continue
        if _is_executable(host):
            return host
        denied = denied or candidate
    if denied:
        raise LaunchError(f"{denied}: cannot be executed in the namespace",
                          hint="check that it is a file with execute permission",
                          status=NOT_EXECUTABLE)
    where = "" if "/" in command else f" (PATH={search})"
    raise LaunchError(f"{command}: no such command in the namespace{where}",
                      hint="install the package that has it, or look at red-wrap --explain",
                      status=NOT_FOUND)


def _is_executable(host: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(host).st_mode) and os.access(host, os.X_OK)
    except OSError:
        return False
