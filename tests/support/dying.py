# SPDX-License-Identifier: Apache-2.0
"""Fault injection: a command that is killed in the middle of a commit.

`dying.py POINT WORDS...` is `red-dnf WORDS...`, ended by SIGKILL right before its POINTth change of
the file system, counted from the beginning of the commit; sPOINT counts the changes of its
supervisor, and with cPOINT its contained child alone is killed. A process that gets to its end says
on stderr how many changes it made. Nothing in the commit knows of this: the functions by which
Python changes files are replaced.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Callable

_CHANGES = (
    "chmod", "chown", "fsync", "link", "mkdir", "removexattr", "rename", "replace", "rmdir",
    "symlink", "unlink", "utime",
)


class Fuse:
    """Counts the changes of this process since light(), and blows before number ``point``."""

    def __init__(self, point: int) -> None:
        self._point = point
        self._lit = False
        self.changes = 0

    def light(self) -> None:
        self._lit = True

    def put_out(self) -> None:
        self._lit = False

    def blow(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _step(self) -> None:
        if not self._lit:
            return
        if self.changes == self._point:
            self.blow()
        self.changes += 1

    def _guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            self._step()
            return function(*args, **options)

        return guarded

    def lay(self) -> None:
        """Replace the functions that change files, and those that force them to the disk."""
        from redsys import libc

        for name in _CHANGES:
            setattr(os, name, self._guard(getattr(os, name)))
        for name in ("syncfs", "fsync"):
            setattr(libc, name, self._guard(getattr(libc, name)))

    def tell(self, who: str) -> None:
        os.write(2, f"changes of the {who}: {self.changes}\n".encode())


class ChildFuse(Fuse):
    """The contained child is pid 1, which cannot kill itself: a process outside kills its parent,
    with which it dies, or it ``alone``."""

    def __init__(self, point: int, *, alone: bool) -> None:
        super().__init__(point)
        reader, self._writer = os.pipe()
        parent = os.getpid()
        if os.fork() == 0:
            os.close(self._writer)
            if os.read(reader, 1):
                os.kill(_other_child(parent) if alone else parent, signal.SIGKILL)
            os._exit(0)
        os.close(reader)

    def blow(self) -> None:
        os.write(self._writer, b"x")
        while True:
            signal.pause()


def _other_child(parent: int) -> int:
    with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as stream:
        return next(pid for pid in map(int, stream.read().split()) if pid != os.getpid())


def lay_fuse(point: str) -> None:
    """From here on the contained child of this process, or its supervisor, has a fuse."""
    late = point[1:] if point.startswith("s") else "-1"
    early = "-1" if point.startswith("s") else point.lstrip("c")
    fuse = ChildFuse(int(early), alone=point.startswith("c"))
    fuse.lay()
    from redrpm import hold, transaction

    commit = hold.commit
    whole_commit = transaction.NodeTransaction.commit

    def burning_commit(*args: Any) -> None:
        fuse.light()
        commit(*args)

    def counted_commit(self: Any) -> list[str]:
        notes = whole_commit(self)
        fuse.put_out()
        fuse.tell("child")
        return notes

    hold.commit = burning_commit
    transaction.NodeTransaction.commit = counted_commit  # type: ignore[method-assign]
    library = os.path.dirname(os.path.dirname(str(transaction.__file__)))
    transaction.supervisor_command = lambda: [
        "/usr/bin/python3", "-B", __file__, "--supervisor", late, library
    ]


def run_supervisor(point: int, library: str, arguments: list[str]) -> None:
    """The supervisor, with a fuse that burns from its start."""
    sys.path.insert(0, library)
    fuse = Fuse(point)
    fuse.lay()
    from redrpm import supervisor

    end = os._exit

    def counted_exit(status: int) -> None:
        fuse.tell("supervisor")
        end(status)

    os._exit = counted_exit  # type: ignore[assignment]
    fuse.light()
    supervisor.main(arguments)


def main() -> None:
    if sys.argv[1] == "--supervisor":
        run_supervisor(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    lay_fuse(sys.argv[1])
    from reddnf.launcher import main as red_dnf

    if sys.argv[2] == "red-rpm":
        from redrpmcli.command import main as red_rpm

        sys.argv[:3] = ["red-rpm"]
        red_rpm()
    sys.argv[:2] = ["red-dnf"]
    red_dnf()


if __name__ == "__main__":
    main()
