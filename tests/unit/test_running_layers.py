# SPDX-License-Identifier: Apache-2.0
"""What a commit leaves to running applications, wherever it is interrupted."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from redrpm.running import find_oldest_start, leave_layers
from redrpm.stage import Stage
from support.trees import snapshot_tree

CALLS = ("mkdir", "link", "rename", "chmod", "unlink", "rmdir")


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    node = tmp_path / "node"
    for path in ("usr/bin", "usr/share/closed", "etc", "var/lib", ".redpak/running",
                 ".redpak/stage", ".redpak/previous.7"):
        (node / path).mkdir(parents=True)
    (node / ".rednode.yaml").write_text("")
    (node / "usr/bin/tool").write_text("tool")
    (node / "usr/share/link").symlink_to("../bin/tool")
    (node / "usr/share/closed/x").write_text("x")
    (node / "usr/share/closed").chmod(0o555)
    (node / "etc/conf").write_text("conf")
    return node


@contextmanager
def running(node: Path, name: str = "0", start: int = 5) -> Iterator[None]:
    mark = node / ".redpak/running" / name
    with mark.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        os.utime(mark, ns=(start, start))
        yield


def leave(node: Path) -> None:
    stage, saved = Stage(f"{node}/.redpak/stage"), f"{node}/.redpak/previous.7"
    leave_layers(str(node), stage, saved, ["usr/bin/tool", "etc/conf", "var/lib/x"])


def test_nothing_is_moved_when_nothing_runs(node: Path) -> None:
    before = (node / "usr").stat().st_ino
    (node / ".redpak/running/0").write_text("")
    leave(node)
    assert (node / "usr").stat().st_ino == before
    assert find_oldest_start(str(node)) is None


def test_a_directory_with_a_mount_in_it_stays(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount would move with it, and lose what is in it with the next commit."""
    before = [(node / top).stat().st_ino for top in ("usr", "etc")]
    monkeypatch.setattr("redrpm.running.read_mounts", lambda: [(f"{node}/usr/share", "tmpfs")])
    with running(node):
        leave(node)
    after = [(node / top).stat().st_ino for top in ("usr", "etc")]
    assert after[0] == before[0] and after[1] != before[1]


def test_a_mark_in_a_node_below_counts(node: Path) -> None:
    child = node / "child"
    (child / ".redpak/running").mkdir(parents=True)
    (child / ".rednode.yaml").write_text("")
    with running(node, start=9), running(child, start=4):
        assert find_oldest_start(str(node)) == 4
        assert find_oldest_start(str(child)) == 4
    with shared(node / ".redpak"):
        assert find_oldest_start(str(node)) == 0


def test_a_start_in_the_future_is_unknown(node: Path) -> None:
    """The clock of a device goes back while an application runs: its layers stay all the same."""
    with running(node, start=time.time_ns() + 10**12):
        assert find_oldest_start(str(node)) == 0


@contextmanager
def shared(directory: Path) -> Iterator[None]:
    """As an application of another user, who cannot leave a mark of his own."""
    fd = os.open(directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    yield
    os.close(fd)


def test_an_interruption_anywhere_is_finished(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs keeps the very directories; the node has the same files in new ones."""
    before = snapshot_tree(node / "usr"), snapshot_tree(node / "etc")
    inodes = (node / "usr").stat().st_ino, (node / "etc").stat().st_ino
    with running(node):
        for point in range(1, 200):
            if not interrupted(monkeypatch, point, lambda: leave(node)):
                break
        kept = node / ".redpak/previous.7"
        assert ((kept / "layer.usr").stat().st_ino, (kept / "layer.etc").stat().st_ino) == inodes
        leave(node)
    assert point > 10
    assert (snapshot_tree(node / "usr"), snapshot_tree(node / "etc")) == before
    assert (snapshot_tree(kept / "layer.usr"), snapshot_tree(kept / "layer.etc")) == before
    assert not (kept / "layer.var").exists()
    assert (node / "usr/bin/tool").stat().st_ino == (kept / "layer.usr/bin/tool").stat().st_ino


def test_a_directory_that_the_commit_removed_does_not_stop_its_recovery(node: Path) -> None:
    """A rollback removes a top-level directory, and is killed before its journal is."""
    (node / "data").mkdir()
    stage, saved = Stage(f"{node}/.redpak/stage"), f"{node}/.redpak/previous.7"
    with running(node):
        for _ in range(2):
            leave_layers(str(node), stage, saved, ["data"])
            if (node / "data").exists():
                (node / "data").rmdir()
    assert os.listdir(saved) == ["layer.data"]


def interrupted(monkeypatch: pytest.MonkeyPatch, point: int, run: Callable[[], None]) -> bool:
    """Run, and end at the call number `point` that changes something; whether it came to that."""
    left = [point]
    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(getattr(os, name), left))
        try:
            run()
        except Killed:
            return True
    return False


def counted(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def counting(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return call(*arguments, **options)
    return counting
