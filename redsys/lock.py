# SPDX-License-Identifier: Apache-2.0
"""Locks on nodes: flock(2) on the node's directory.

The directory itself is what gets locked: no lock file to create, so a node that is read-only, or
that belongs to somebody else, can be read-locked all the same, and `rm -rf` leaves nothing.
The lock belongs to the open file description: it goes when its last holder closes or dies.
"""

from __future__ import annotations

import fcntl
import os

from redpak.errors import TYPE_CHECKING, RedpakError

if TYPE_CHECKING:
    from typing import Callable, Optional


class NodeBusyError(RedpakError):
    """Another command holds the lock and the caller did not want to wait."""


class NodeLock:
    """A held lock on the directory ``path``. Use lock_node() to get one."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def release(self) -> None:
        """Give the lock back; harmless when done twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def lock_node(
    path: str,
    *,
    shared: bool,
    wait: bool = True,
    on_wait: Optional[Callable[[str], None]] = None,
) -> NodeLock:
    """Lock node ``path``, shared with other readers or exclusively.

    ``on_wait`` is called once with the path before blocking. Raises NodeBusyError when the lock is
    taken and ``wait`` is false, RedpakError when the directory cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise RedpakError(f"{path}: cannot lock the node: {err.strerror}") from err
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise NodeBusyError(
                    f"{path}: another command works on this node", hint="try again when it is done"
                ) from None
            if on_wait is not None:
                on_wait(path)
            fcntl.flock(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return NodeLock(path, fd)
