# SPDX-License-Identifier: Apache-2.0
"""Packages with compiled-in paths run unmodified in a merged child; its parent has half of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor, describe
from support.merged import Wrapped, ask, build_beacon, make_merged
from support.rpms import RpmFile, build_rpm, create_repository
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
    path, libraries, place = child.shell(
        'echo "$PATH"; echo "${LD_LIBRARY_PATH-unset}"; command -v beacond').split()
    assert path.split(":")[:2] == ["/usr/bin", "/usr/sbin"] and "/nodes" not in path
    assert (libraries, place) == ("unset", "/usr/sbin/beacond")
    assert "libbeacon.so.1 => /usr/lib64/beacon/libbeacon.so.1" in child.output(
        "ldd", "/usr/sbin/beacond")


def test_what_a_scriptlet_saw_is_what_the_application_sees(child: Wrapped) -> None:
    seen = child.output("cat", "/etc/beacon/seen-by-post")
    assert seen == child.shell("cat /etc/beacon/*.conf /usr/share/beacon/greeting; "
                               "ls /usr/lib/beacon/plugins; beacon-report; "
                               "beacond x && echo linked")
    assert seen.split() == ["daemon-1", "platform-1", "hello-1", "reverse.so", "upper.so",
                            "report:", "hello-1", "linked"]


def test_red_check_knows_that_defaults_lie_beneath_the_family(child: Wrapped) -> None:
    child.output("true")
    found = child.node.actor.run(["red-check", f"--redpath={child.node.path}"]).stdout
    assert "hidden-files" not in found, found


def linker_caches(node: Wrapped) -> dict[str, bytes]:
    return {path.name: path.read_bytes()
            for path in (node.node.path / ".redpak").glob("ld.so.cache-*")}


def test_the_linkers_cache_is_made_at_commit_and_used_by_the_first_launch(child: Wrapped) -> None:
    made = linker_caches(child)
    assert len(made) == 1
    listed = child.output("/sbin/ldconfig", "-p")
    assert "libbeacon.so.1 (libc6" in listed and "=> /usr/lib64/beacon/libbeacon.so.1" in listed
    # What the core OS's own cache has is there too.
    assert "libc.so.6 (libc6" in listed
    assert linker_caches(child) == made


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user: run as root")
def test_somebody_elses_linker_cache_is_not_used(child: Wrapped, pool: Path) -> None:
    """The home may be another's, as with sudo -E: whose libraries would be loaded then?"""
    (name,) = linker_caches(child)
    planted = pool / f"theirs/redpak{child.node.path}" / name
    planted.parent.mkdir(parents=True)
    planted.write_text("planted")
    os.chown(planted.parent, 12345, 12345)
    (child.node.path / ".redpak" / name).unlink()
    assert child.run("grep", "-q", "planted", "/etc/ld.so.cache",
                     env={"XDG_CACHE_HOME": str(pool / "theirs")}).returncode == 1


def test_a_slow_ldconfig_is_not_taken_for_what_a_scriptlet_left(
    child: Wrapped, pool: Path
) -> None:
    build_rpm(pool / "r", "slow-ldconfig", files={"/usr/sbin/ldconfig": RpmFile(
        "#!/bin/sh\nsleep 3\nexec /usr/sbin/ldconfig.core \"$@\"\n", mode=0o755)},
        scriptlets={"pre": "cp /sbin/ldconfig /usr/sbin/ldconfig.core"})
    build_rpm(pool / "r", "library", files={"/usr/lib64/beacon/libfresh.so": "x\n"},
              scriptlets={"post": "true"})
    create_repository(pool / "r")
    child.node.dnf("red-manager", f"--add-repo={pool / 'r'}", "--setopt=gpgcheck=0", "--save")
    child.node.install("slow-ldconfig")
    before = linker_caches(child)
    done = child.node.try_dnf("red-install", "-y", "library")
    assert done.returncode == 0 and "ended" not in done.stderr, describe(done)
    assert linker_caches(child).keys() - before.keys()


def test_the_linkers_cache_is_never_stale(child: Wrapped, parent: Wrapped) -> None:
    """Changes of an ancestor under a child's feet, with no transaction at all."""
    def where() -> str:
        assert child.run("/usr/sbin/beacond", "x").returncode == 0
        lines = child.output("/sbin/ldconfig", "-p").splitlines()
        return next(line.partition("=> ")[2] for line in lines if "libbeacon" in line)

    assert [where(), where()] == ["/usr/lib64/beacon/libbeacon.so.1"] * 2
    libraries, conf = parent.node.path / "usr/lib64", parent.node.path / "etc/ld.so.conf.d"
    (libraries / "beacon/libbeacon.so.1").rename(libraries / "libbeacon.so.1")
    assert [where(), where()] == ["/usr/lib64/libbeacon.so.1"] * 2
    (libraries / "other").mkdir()
    (libraries / "libbeacon.so.1").rename(libraries / "other/libbeacon.so.1")
    (conf / "beacon.conf").write_text("/usr/lib64/other\n")
    assert [where(), where()] == ["/usr/lib64/other/libbeacon.so.1"] * 2


SEES = ("cat /usr/share/beacon/greeting /etc/beacon/platform.conf; ls /usr/share/beacon; "
        "beacon-filter x; beacon-report")


@pytest.fixture(scope="session")
def newer(session_pool: Path) -> Path:
    """Another version of the platform, with one file more and one less."""
    return build_beacon(session_pool / "beacon2", "2")


def test_a_running_application_sees_the_whole_old_node_and_the_next_the_new_one(
    child: Wrapped, parent: Wrapped, newer: Path
) -> None:
    """What it looked at before, what it did not, what is listed: all from before the commit."""
    script = (f"cat /usr/share/beacon/greeting; [ -e /usr/share/beacon/new ]; echo ready; "
              f"read line; {SEES}")
    parent.node.dnf("red-manager", "--add-repo", newer / "platform.repo")
    with child.started("sh", "-c", script, stdin=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdin is not None
        assert [running.stdout.readline(), running.stdout.readline()] == ["hello-1\n", "ready\n"]
        parent.node.dnf("red-upgrade", "-y")
        new = ["hello-2", "platform-2", "greeting", "new", "reverse.so:", "x", "upper.so:", "X",
               "report:", "hello-2"]
        assert child.shell(SEES).split() == new
        # Another commit does not take away what it runs on.
        parent.node.dnf("red-reinstall", "-y", "beacon-platform")
        parent.node.dnf("red-reinstall", "-y", "beacon-platform")
        running.stdin.write("\n")
        running.stdin.flush()
        assert running.stdout.read().split() == [
            "hello-1", "platform-1", "greeting", "reverse.so:", "x", "upper.so:", "X", "report:",
            "hello-1"]
        assert running.wait() == 0
    assert child.shell(SEES).split() == new
    parent.node.dnf("red-reinstall", "-y", "beacon-platform")
    kept = sorted((parent.node.path / ".redpak").glob("previous.*"))
    assert len(kept) == 1 and not list(kept[0].glob("layer.*"))
    assert parent.output("rpm", "-V", "--nouser", "--nogroup", "beacon-platform") == ""
