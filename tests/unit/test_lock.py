# SPDX-License-Identifier: Apache-2.0
"""Locks on nodes, and what is said of who holds them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from redsys.lock import NodeBusyError, describe_holders, lock_node

HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another(path: Path, *words: str) -> Iterator[int]:
    """The process that holds the lock of ``path`` for reading."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path), *words],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        if f" {process.pid} {place_of(path)} " in Path("/proc/locks").read_text():
            yield process.pid
        else:
            pytest.skip("/proc/locks does not show the lock, or another device")
        process.communicate()


def place_of(path: Path) -> str:
    info = path.stat()
    return f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"


def refusal(path: Path) -> str:
    with pytest.raises(NodeBusyError) as refused:
        lock_node(str(path), shared=False, wait=False)
    return str(refused.value)


def test_a_refusal_names_process_user_and_command(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as pid:
        said = refusal(tmp_path)
    name = pwd.getpwuid(os.geteuid()).pw_name
    assert said.startswith(f"{tmp_path}: another command works on this node "
                           f"(process {pid} of {name}: {sys.executable[:140]}")
    assert "?import fcntl" in said or len(sys.executable) > 140
    assert said.endswith("...); try again when it is done")
    lock_node(str(tmp_path), shared=False).release()


def test_several_holders_are_all_named(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as one, held_by_another(tmp_path) as two:
        said = refusal(tmp_path)
        assert all(f"process {pid} of " in said for pid in (one, two)), said


def test_who_waits_is_told_before(tmp_path: Path) -> None:
    said: list[str] = []
    with held_by_another(tmp_path) as pid:
        end = lock_node(str(tmp_path), shared=True)  # two readers are no matter
        end.release()
        with pytest.raises(InterruptedError):
            lock_node(str(tmp_path), shared=False, on_wait=lambda text: interrupt(said, text))
    assert said[0].startswith(f"{tmp_path} (process {pid} of ")


def interrupt(said: list[str], text: str) -> None:
    said.append(text)
    raise InterruptedError


@pytest.mark.parametrize("rows", [None, "", "nonsense\n", "1: FLOCK\n", "\x80\n",
                                  "1: FLOCK  ADVISORY  READ 99999999 {place} 0 EOF\n",
                                  "1: -> FLOCK  ADVISORY  READ 1 {place} 0 EOF\n"])
def test_what_proc_does_not_say_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str | None
) -> None:
    """And never the reason of a failure."""
    locks = tmp_path / "locks"
    if rows is not None:
        locks.write_text(rows.format(place=place_of(tmp_path)), encoding="latin-1")
    monkeypatch.setattr("builtins.open", redirected("/proc/locks", locks))
    fd = os.open(tmp_path, os.O_RDONLY)
    assert describe_holders(fd) == ""
    os.close(fd)


def redirected(path: str, target: Path) -> Callable[..., Any]:
    real = open

    def open_other(name: Any, *words: Any, **options: Any) -> Any:
        return real(target if name == path else name, *words, **options)
    return open_other
