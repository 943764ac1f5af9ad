# SPDX-License-Identifier: Apache-2.0
"""The skeleton: a layer over all others that makes directories of the family writable.

In a user namespace a directory that root owns takes no new entry, whatever lies above it in the
overlay, unless a directory of the caller with the same path lies on top (design section 8). The
skeleton is that directory, on a tmpfs, as the topmost *lower* layer: what is not written to is
never copied into the stage. It also hides single files of the core OS (whiteouts).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

_MAX_LINKS = 40  # as the kernel's own limit, path_resolution(7)


class Skeleton:
    """Builds below ``target``, one directory for each top-level directory of ``layers``.

    ``layers`` maps the name of a top-level directory to the directories merged there, topmost
    first. Modes are those of the merged directories, owners too unless ``take_ownership`` gives
    everything to the caller.
    """

    def __init__(
        self, target: str, layers: Mapping[str, Sequence[str]], *, take_ownership: bool
    ) -> None:
        self._target = target
        self._layers = layers
        self._take_ownership = take_ownership
        self._resolved: dict[str, Optional[str]] = {}

    def add_directories(self, paths: Iterable[str]) -> None:
        """Add each of the absolute ``paths`` that exists, with its parents and symlinks to it."""
        for path in sorted(paths):
            self._add(path.strip("/"), 0)

    def add_tree(self, top: str, depth: int) -> None:
        """Add the directory ``top`` and all below it, ``depth`` levels down."""
        for layer in self._layers.get(top, ()):
            self._add_tree(layer, top, depth)

    def add_whiteout(self, path: str) -> None:
        """Hide the file at the absolute ``path`` in the layers below."""
        directory, _, name = path.strip("/").rpartition("/")
        real = self._add(directory, 0)
        if real is not None:
            # A character device 0:0 needs no privilege since kernel 5.8 (mknod(2)).
            os.mknod(f"{self._target}/{real}/{name}", stat.S_IFCHR, os.makedev(0, 0))

    def find(self, path: str) -> Optional[str]:
        """Where the layers have the absolute ``path``: the topmost, or None."""
        top, _, rest = path.strip("/").partition("/")
        for layer in self._layers.get(top, ()):
            candidate = f"{layer}/{rest}" if rest else layer
            if os.path.lexists(candidate):
                return candidate
        return None

    def _add_tree(self, directory: str, relative: str, depth: int) -> None:
        self._add(relative, 0)
        if depth == 0:
            return
        try:
            entries = list(os.scandir(directory))
        except PermissionError:
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                self._add_tree(entry.path, f"{relative}/{entry.name}", depth - 1)

    def _add(self, relative: str, links: int) -> Optional[str]:
        """Add one directory; its real path, symlinks followed, or None where there is none."""
        if relative in self._resolved:
            return self._resolved[relative]
        if links > _MAX_LINKS or not relative:
            return None
        real: Optional[str] = relative
        parent, _, name = relative.rpartition("/")
        if parent:
            above = self._add(parent, links)
            real = None if above is None else f"{above}/{name}"
        if real is not None and real != relative:
            real = self._add(real, links)
        elif real is not None:
            real = self._make(real, links)
        self._resolved[relative] = real
        return real

    def _make(self, relative: str, links: int) -> Optional[str]:
        source = self.find(relative)
        if source is None:
            return self._follow_root_link(relative, links)
        info = os.lstat(source)
        if stat.S_ISLNK(info.st_mode):
            return self._make_symlink(relative, os.readlink(source), links)
        if not stat.S_ISDIR(info.st_mode):
            return None
        path = f"{self._target}/{relative}"
        os.mkdir(path)
        # The exact mode, for it may be copied up: root of a user namespace needs no write bit.
        if not self._take_ownership:
            os.chown(path, info.st_uid, info.st_gid)
        os.chmod(path, stat.S_IMODE(info.st_mode))
        return relative

    def _make_symlink(self, relative: str, text: str, links: int) -> Optional[str]:
        # rpm follows a symlink in place of a directory only if root, or its owner, owns it.
        if self._take_ownership:
            os.symlink(text, f"{self._target}/{relative}")
        below = "" if text.startswith("/") else os.path.dirname(relative)
        return self._add(os.path.normpath(f"/{below}/{text}").strip("/"), links + 1)

    def _follow_root_link(self, relative: str, links: int) -> Optional[str]:
        """/lib -> usr/lib and its like: symlinks of the root, which is no layer."""
        if "/" in relative or not os.path.islink(f"/{relative}"):
            return None
        return self._add(os.path.normpath("/" + os.readlink(f"/{relative}")).strip("/"), links + 1)
