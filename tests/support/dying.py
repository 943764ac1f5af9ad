# SPDX-License-Identifier: Apache-2.0
"""Fault injection: a process that kills itself in the middle of a commit.

`dying.py POINT WORDS...` is `red-dnf WORDS...` that ends by SIGKILL right before its POINTth
change of the file system, counted from the beginning of the commit. A command that gets to its end
says on stderr how many changes it made. Nothing in the commit knows of this: the functions by which
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
    """Counts the changes of this process since light(), and dies before number ``point``."""

    def __init__(self, point: int) -> None:
        self._point = point
        self._lit = False
        self.changes = 0

    def light(self) -> None:
        self._lit = True

    def _step(self) -> None:
        if not self._lit:
            return
        if self.changes == self._point:
            os.kill(os.getpid(), signal.SIGKILL)
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
        libc.syncfs = self._guard(libc.syncfs)  # type: ignore[assignment]


def lay_fuse(point: int) -> None:
    """From here on this process, and what it forks, dies before change ``point`` of a commit."""
    fuse = Fuse(point)
    fuse.lay()
    from redrpm import hold

    commit = hold.commit

    def burning_commit(*args: Any) -> None:
        fuse.light()
        commit(*args)

    end = os._exit

    def counted_exit(status: int) -> None:
        if fuse.changes:
            os.write(2, f"changes: {fuse.changes}\n".encode())
        end(status)

    hold.commit = burning_commit
    os._exit = counted_exit  # type: ignore[assignment]


def main() -> None:
    lay_fuse(int(sys.argv[1]))
    from reddnf.launcher import main as red_dnf

    sys.argv[:2] = ["red-dnf"]
    red_dnf()


if __name__ == "__main__":
    main()
