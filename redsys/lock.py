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

# What a command becomes to wait for its child has this among its words, and then the command's own.
STANDS_FOR = "--stands-for"
_MOST_SHOWN, _MOST_READ = 160, 8192  # of a command line


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

    ``on_wait`` is called once before blocking, with the path and who holds the lock.

    Raises NodeBusyError when the lock is taken and ``wait`` is false, RedpakError when the
    directory cannot be opened.
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
                    f"{path}: another command works on this node{describe_holders(fd)}",
                    hint="try again when it is done",
                ) from None
            if on_wait is not None:
                on_wait(path + describe_holders(fd))
            fcntl.flock(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return NodeLock(path, fd)


def describe_holders(fd: int) -> str:
    """Who holds a lock on what ``fd`` has open, such as " (process 7 of ann: dnf red-list)".

    "" where /proc does not say: it shows no process of another pid namespace, and has its own
    numbers for the devices of btrfs.
    """
    try:
        info = os.fstat(fd)
        place = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
        with open("/proc/locks", encoding="ascii") as stream:
            rows = [line.split() for line in stream]
        # Those that wait have an arrow before the kind of their lock.
        pids = dict.fromkeys(row[4] for row in rows if row[1] == "FLOCK" and row[5] == place)
    except (OSError, ValueError, IndexError):
        return ""
    known = "; ".join(filter(None, map(_describe_process, pids)))
    return f" ({known})" if known else ""


def _describe_process(pid: str) -> str:
    import pwd  # for those who wait only

    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return ""  # it ended just now
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"uid {owner}"
    words = read_command_line(pid)
    if STANDS_FOR in words:
        words = words[words.index(STANDS_FOR) + 1:]
    text = " ".join(words)
    shown = "".join(c if c.isprintable() else "?" for c in text[:_MOST_SHOWN])
    cut = "..." if len(text) > _MOST_SHOWN else ""
    return f"process {pid} of {name}" + (f": {shown}{cut}" if shown else "")


def read_command_line(pid: str = "self") -> list[str]:
    """The words of a process's command line; none where they cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return os.fsdecode(stream.read(_MOST_READ).rstrip(b"\0")).split("\0")
    except OSError:
        return []
