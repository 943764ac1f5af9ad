# SPDX-License-Identifier: Apache-2.0
"""Work shared out to forked processes.

Each takes the next task from a pipe that was filled beforehand, and leaves its results in a file:
nobody waits for the other to read.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redpak.errors import RedpakError

Task = TypeVar("Task")
Result = TypeVar("Result")
_NUMBER = struct.Struct("<I")
_MAX_QUEUED = 4096  # bytes; a pipe holds at least one page without a reader


def count_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _say_nothing(number: int) -> None:
    pass


class Workers:
    """Processes at work on ``tasks``; the caller has no threads."""

    def __init__(self, tasks: Sequence[Task], work: Callable[[Task], Result], count: int) -> None:
        self._tasks: Sequence[Any] = tasks
        self._work: Callable[[Any], Any] = work
        self._children: list[tuple[int, Any]] = []
        if count < 1 or len(tasks) < 2 or len(tasks) * _NUMBER.size > _MAX_QUEUED:
            return
        receive, send = os.pipe()
        os.write(send, b"".join(_NUMBER.pack(number) for number in range(len(tasks))))
        os.close(send)
        sys.stdout.flush()
        sys.stderr.flush()
        for _ in range(min(count, len(tasks))):
            output = tempfile.TemporaryFile(prefix="redpak-check-")  # noqa: SIM115 - read later
            pid = os.fork()
            if pid == 0:
                self._run_child(receive, output)
            self._children.append((pid, output))
        self._queue = receive

    def _run_child(self, queue: int, output: Any) -> None:
        status = 1
        try:
            pickle.dump(self._take_all(queue, _say_nothing), output)
            output.flush()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _take_all(self, queue: int, tell: Callable[[int], None]) -> dict[int, Any]:
        results: dict[int, Any] = {}
        while data := os.read(queue, _NUMBER.size):
            (number,) = _NUMBER.unpack(data)
            results[number] = self._do(number, tell)
        return results

    def _do(self, number: int, tell: Callable[[int], None]) -> Any:
        tell(number)
        return self._work(self._tasks[number])

    def results(self, tell: Callable[[int], None] = _say_nothing) -> list[Any]:
        """What became of each task; this process helps, and calls ``tell`` with the number of each
        task that it takes: those before it are done or under way. Raises RedpakError."""
        if not self._children:
            return [self._do(number, tell) for number in range(len(self._tasks))]
        found = self._take_all(self._queue, tell)
        os.close(self._queue)
        for pid, output in self._children:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status:
                raise RedpakError(f"a process of the check ended with status {status}",
                                  hint="see above for why")
            output.seek(0)
            found.update(pickle.load(output))
            output.close()
        self._children = []
        return [found[number] for number in range(len(self._tasks))]
