# SPDX-License-Identifier: Apache-2.0
"""Packages with compiled-in paths run unmodified in a merged child; its parent has half of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.actors import Actor
from support.merged import Wrapped, ask, build_beacon, make_merged
from support.trees import snapshot_tree

CORE_DIRECTORIES = ("/usr/lib64", "/etc/ld.so.conf.d", "/usr/share/misc", "/etc/alternatives")


@pytest.fixture(scope="session")
def beacon(session_pool: Path) -> Path:
    return build_beacon(session_pool / "beacon")


@pytest.fixture
def parent(actor: Actor, pool: Path, beacon: Path) -> Wrapped:
    node = make_merged(actor, pool / "core", "core", beacon / "platform.repo")
    node.install("beacon-platform")
    return Wrapped(node)


@pytest.fixture
def child(actor: Actor, parent: Wrapped, beacon: Path) -> Wrapped:
    node = make_merged(actor, parent.node.path / "app", "app", beacon / "application.repo")
    node.install("beacond")
    return Wrapped(node)


def untouched(parent: Wrapped) -> list[dict[str, tuple[object, ...]]]:
    """The parent, without its child, and the core OS as far as the packages reach into it."""
    core = [snapshot_tree(Path(path)) for path in CORE_DIRECTORIES if Path(path).is_dir()]
    return [snapshot_tree(parent.node.path, without=("app", ".redpak")), *core]


def test_a_daemon_reads_etc_and_usr_share_of_both_nodes(child: Wrapped, parent: Wrapped) -> None:
    before = untouched(parent)
    for visits in ("1", "2"):
        with child.started("/usr/sbin/beacond") as daemon:
            assert daemon.stdout is not None
            port = int(daemon.stdout.readline())
            assert ask(port).split() == ["daemon-1", "platform-1", "hello-1", visits]
    assert (child.node.path / "var/lib/beacon/count").read_text() == "2\n"
    assert untouched(parent) == before


def test_plugins_and_python_modules_are_split_between_the_nodes(child: Wrapped) -> None:
    for _ in range(2):
        assert child.output("beacon-filter", "abc") == "reverse.so: cba\nupper.so: ABC\n"
        assert child.output("beacon-report") == "report: hello-1\n"


def test_neither_path_nor_ld_library_path_is_needed(child: Wrapped) -> None:
    assert child.shell('echo "$PATH|${LD_LIBRARY_PATH-unset}"; command -v beacond') == (
        "/usr/bin:/usr/sbin|unset\n/usr/sbin/beacond\n")
    assert "libbeacon.so.1 => /usr/lib64/beacon/libbeacon.so.1" in child.output(
        "ldd", "/usr/sbin/beacond")


def test_what_a_scriptlet_saw_is_what_the_application_sees(child: Wrapped) -> None:
    seen = child.output("cat", "/etc/beacon/seen-by-post")
    assert seen == child.shell("cat /etc/beacon/*.conf /usr/share/beacon/greeting; "
                               "ls /usr/lib/beacon/plugins; beacon-report")
    assert seen.split() == ["daemon-1", "platform-1", "hello-1", "reverse.so", "upper.so",
                            "report:", "hello-1"]
