# SPDX-License-Identifier: Apache-2.0
"""A temporary directory that does not outlive its process for long, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from types import TracebackType

from redsys.trees import remove_tree

_PREFIX = "redpak-held-"


class ScratchDirectory:
    """A private directory below ``parent``, or the temporary one, at ``name``, until cleanup().

    Its owner holds a lock on it; what a killed process left is unlocked, and is removed by the next
    one of the same user. In a ``with`` statement it is its name.
    """

    def __init__(self, parent: str = "") -> None:
        """Raises OSError."""
        parent = parent or tempfile.gettempdir()
        _remove_abandoned(parent)
        while True:
            self._directory = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent)
            self.name = self._directory.name
            self._lock = _open_locked(self.name, wait=True)
            if self._lock >= 0:
                return
            # Another process took it for abandoned before it was locked.
            self._directory.cleanup()

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Remove the directory; harmless when done twice."""
        self._directory.cleanup()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_abandoned(parent: str) -> None:
    names: list[str] = []
    with contextlib.suppress(PermissionError):
        names = os.listdir(parent)
    for name in names:
        if not name.startswith(_PREFIX):
            continue
        lock = _open_locked(f"{parent}/{name}", wait=False)
        if lock >= 0:
            remove_tree(f"{parent}/{name}")
            os.close(lock)


def _open_locked(path: str, *, wait: bool) -> int:
    """A descriptor that holds the lock on our directory ``path``; -1 when that is not to be had, or
    it is no longer there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = os.open(path, flags)
    except OSError:
        return -1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        held, there = os.fstat(lock), os.lstat(path)
        if held.st_uid == os.geteuid() and held.st_ino == there.st_ino:
            return lock
    except OSError:
        pass
    os.close(lock)
    return -1
