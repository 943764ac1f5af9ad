# SPDX-License-Identifier: Apache-2.0
"""Work shared out to forked processes.

Each takes the next task from a list that all of them read through one open file, and leaves its
results in memory that it shares with its parent (memfd_create(2)): nobody waits for another.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Sequence

from redpak.errors import TYPE_CHECKING, RedpakError

if TYPE_CHECKING:
    from typing import Any, TypeVar

    Task = TypeVar("Task")
    Result = dict[str, Any]  # what JSON can say

_NUMBER = struct.Struct("<I")


def count_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _say_nothing(number: int) -> None:
    pass


class Workers:
    """Processes at work on ``tasks`` while the ``with`` statement lasts; the caller has no threads.
    """

    def __init__(self, tasks: Sequence[Task], work: Callable[[Task], Result], count: int) -> None:
        self._tasks: Sequence[Any] = tasks
        self._work: Callable[[Any], Result] = work
        self._children: list[tuple[int, int]] = []
        self._queue = -1
        if count < 1 or len(tasks) < 2:
            return
        self._queue = os.memfd_create("redpak-check")
        os.write(self._queue, b"".join(map(_NUMBER.pack, range(len(tasks)))))
        os.lseek(self._queue, 0, os.SEEK_SET)
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()  # a collection in a child would copy what the processes share
        # Not between fork() and what comes of it: a child would go on as its parent.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(min(count, len(tasks))):
                output = os.memfd_create("redpak-check")
                pid = os.fork()
                if pid == 0:
                    self._run_child(output, mask)
                self._children.append((pid, output))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        """Nobody is left at work when the caller gave up."""
        for pid, output in self._children:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            os.close(output)
        self._children = []
        if self._queue >= 0:
            os.close(self._queue)

    def _run_child(self, output: int, mask: Iterable[int]) -> None:
        status = 1
        try:
            # An exception, for nothing to be left behind; a shell may have SIGINT ignored.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            results = list(self._take_all(_say_nothing).items())
            with open(output, "wb") as stream:
                stream.write(json.dumps(results).encode())
            status = 0
        except KeyboardInterrupt:
            pass
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _take_all(self, tell: Callable[[int], None]) -> dict[int, Result]:
        results: dict[int, Result] = {}
        while data := self._take():
            (number,) = _NUMBER.unpack(data)
            results[number] = self._do(number, tell)
        return results

    def _take(self) -> bytes:
        # All share one offset, which no system call reads and moves at once where it is a memfd's.
        fcntl.lockf(self._queue, fcntl.LOCK_EX)
        try:
            return os.read(self._queue, _NUMBER.size)
        finally:
            fcntl.lockf(self._queue, fcntl.LOCK_UN)

    def _do(self, number: int, tell: Callable[[int], None]) -> Result:
        tell(number)
        return self._work(self._tasks[number])

    def results(self, tell: Callable[[int], None] = _say_nothing) -> list[Result]:
        """What became of each task; this process helps, and calls ``tell`` with the number of each
        task that it takes: those before it are done or under way. Raises RedpakError."""
        if not self._children:
            return [self._do(number, tell) for number in range(len(self._tasks))]
        found = self._take_all(tell)
        while self._children:
            pid, output = self._children.pop()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status:
                raise RedpakError(f"a process of the check ended with status {status}",
                                  hint="see above for why")
            os.lseek(output, 0, os.SEEK_SET)
            with open(output, "rb") as stream:
                found.update(json.loads(stream.read()))
        return [found[number] for number in range(len(self._tasks))]
