# SPDX-License-Identifier: Apache-2.0
"""When red-check believes the times of files."""

from __future__ import annotations

from typing import Optional

import pytest

from redcheck import filesystems
from redcheck.filesystems import trust_times
from redcheck.scope import Layer

MOUNTS = [
    ("/", "ext4", 8), ("/data", "vfat", 8), ("/data", "xfs", 8), ("/stick", "vfat", 8),
    ("/ro", "squashfs", 179), ("/ro/var", "ext4", 179), ("/image", "ext4", 7),
    ("/home/a/opt/x", "fuse.sshfs", 0), ("/usr", "erofs", 8), ("/snap/x", "squashfs", 7),
]


@pytest.fixture(autouse=True)
def mounts(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(filesystems, "read_devices", lambda: MOUNTS)
    forget_mounts()
    request.addfinalizer(forget_mounts)


def forget_mounts() -> None:
    filesystems._read_mounts.cache_clear()
    filesystems._find_mount.cache_clear()


def trust(path: str, rpmdb: str = "", core_rpmdb: str = "/var/lib/rpm") -> Optional[str]:
    core = Layer("/", "/", "redmain", None, core_rpmdb)
    return trust_times(Layer(path, path, "x", core, rpmdb or f"{path}/var/lib/rpm"))


def test_the_kernels_times_are_believed() -> None:
    assert trust("/nodes/a") == trust("/data/a") == trust("/datastick") == trust("/home/b") == ""


def test_what_is_mounted_stays_as_it_is_until_the_next_start() -> None:
    now = trust("/ro/a")
    assert now and len(now) == 36
    assert trust("/ro/var/a") == ""
    assert trust("/nodes/a", rpmdb="/ro/rpm") == trust("/nodes/a", core_rpmdb="/ro/rpm") == now
    # Of the core OS /usr and /opt are looked at.
    assert trust_times(Layer("/", "/", "redmain", None, "/var/lib/rpm")) == now


def test_what_anybody_can_set_is_not_believed() -> None:
    assert trust("/stick/a") is trust("/image/a") is trust("/image") is None
    assert trust("/nodes/a", core_rpmdb="/stick/rpm") is None
    assert trust("/home/a") is trust("/home") is None  # something in it


def test_where_nothing_is_known_of_mounts_the_next_start_ends_it(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "read_devices", lambda: [("/proc", "proc", 0)])
    forget_mounts()
    assert len(trust("/nodes/a") or "") == 36
