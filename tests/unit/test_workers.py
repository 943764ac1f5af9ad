# SPDX-License-Identifier: Apache-2.0
"""Work shared out to forked processes by red-check."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from redcheck.workers import Workers
from redpak.errors import RedpakError


def double(task: str) -> dict[str, object]:
    time.sleep(0.002)  # for others to get some, too
    return {"doubled": task + task, "pid": os.getpid()}


@pytest.mark.parametrize("count, number", [(0, 20), (1, 20), (3, 20), (3, 1500)])
def test_results_come_in_the_order_of_their_tasks(count: int, number: int) -> None:
    # Not UTF-8: any file name.
    tasks = [f"name-{task}-\udcff-\u00e9-\n" for task in range(number)]
    told: list[int] = []
    with Workers(tasks, double, count) as workers:
        results = workers.results(told.append)
    assert [result["doubled"] for result in results] == [task + task for task in tasks]
    assert len({result["pid"] for result in results}) == count + 1
    assert told == sorted(told)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def fail_in_a_helper(parent: int) -> dict[str, object]:
    if os.getpid() != parent:
        raise ValueError("a fault of ours")
    time.sleep(0.1)
    return {}


def test_a_fault_in_a_helper_is_an_error_with_its_traceback(
        capfd: pytest.CaptureFixture[str]) -> None:
    ended = pytest.raises(RedpakError, match="a process of the check ended with status 1")
    with Workers([os.getpid()] * 3, fail_in_a_helper, 1) as workers, ended:
        workers.results()
    assert "ValueError: a fault of ours" in capfd.readouterr().err


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_nobody_is_left_at_work_when_the_caller_gives_up(
        capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
        handler: signal.Handlers) -> None:
    """Also where a shell runs red-check in the background."""
    before = signal.signal(signal.SIGINT, handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    start = time.monotonic()
    with pytest.raises(KeyError), Workers([60, 60, 60], time.sleep, 2):  # type: ignore[arg-type]
        time.sleep(0.2)
        raise KeyError
    assert time.monotonic() - start < 30
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert capfd.readouterr().err == ""


def test_no_task_is_done_twice(tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def note(task: str) -> dict[str, object]:
        return {"written": os.write(log, b"%s\n" % task.encode())}

    tasks = [str(number) for number in range(2000)]
    for _ in range(30):
        with Workers(tasks, note, 3) as workers:
            workers.results()
        done = (tmp_path / "log").read_text().split()
        os.ftruncate(log, 0)
        assert sorted(done, key=int) == tasks
    os.close(log)
