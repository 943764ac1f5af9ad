# SPDX-License-Identifier: Apache-2.0
"""Packages that make a view difficult: nothing is lost on the way from view to node."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from support.actors import Actor
from support.frontends import says
from support.nodes import TestNode, make_node
from support.rpms import RpmFile, build_rpm, create_repository


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "odd-packages"
    build_rpm(directory, "newtop", files={"/appdata/deep/er/file": "here\n"})
    build_rpm(
        directory,
        "noreplace",
        files={
            "/etc/passwd": RpmFile("mine\n", directive="%config(noreplace)"),
            "/etc/hosts": RpmFile("mine too\n", directive="%config"),
        },
    )
    build_rpm(
        directory,
        "daemonfile",
        files={"/usr/share/daemonfile/data": RpmFile("x\n", owner="daemon", group="daemon")},
    )
    build_rpm(directory, "suid", files={"/usr/bin/suid-tool": RpmFile("#!/bin/sh\n", mode=0o4755)})
    build_rpm(
        directory,
        "scripted",
        files={"/usr/share/scripted/data": "data\n"},
        scriptlets={
            "post": "set -e\n"
            "cat /usr/share/scripted/data > /usr/share/scripted/made\n"
            "echo made > /usr/share/made-by-post\n"
            "echo made > /usr/lib/made-by-post\n"
            "mkdir -p /etc/made.d && echo made > /etc/made.d/conf\n"
            "grep -q ^extra: /etc/group || echo 'extra::1234:' >> /etc/group\n"
            "[ \"$(id -u)\" = 0 ] && [ \"$SYSTEMD_OFFLINE\" = 1 ]",
            "preun": "rm -rf /etc/made.d /usr/share/made-by-post /usr/lib/made-by-post"
            " /usr/share/scripted/made",
        },
    )
    build_rpm(
        directory,
        "crosslinks",
        files={"/usr/share/crosslinks/file": "x\n"},
        install="mkdir -p %{buildroot}/opt/x\n"
        "ln %{buildroot}/usr/share/crosslinks/file %{buildroot}/opt/x/file",
        extra_files="/opt/x/file",
    )
    build_rpm(
        directory,
        "hardlinks",
        files={"/usr/share/hardlinks/one": "x\n"},
        install="ln %{buildroot}/usr/share/hardlinks/one %{buildroot}/usr/share/hardlinks/two",
        extra_files="/usr/share/hardlinks/two",
    )
    build_rpm(directory, "rootfile", files={"/rootfile": "x\n"})
    build_rpm(directory, "intruder", files={"/etc/redpak.yaml": "headers: {}\n"})
    build_rpm(
        directory, "failing", files={"/usr/share/failing": "x\n"}, scriptlets={"pre": "exit 1"}
    )
    build_rpm(directory, "unmet", requires=["nothing-has-this"])
    build_rpm(
        directory,
        "derived",
        files={"/usr/lib/derived/lib": "x\n"},
        scriptlets={"post": "echo stale > /etc/ld.so.cache"},
    )
    build_rpm(
        directory,
        "turncoat",
        version="1",
        files={"/usr/share/turncoat/place/file": "in a directory\n"},
    )
    build_rpm(
        directory,
        "turncoat",
        version="2",
        files={"/usr/share/turncoat/elsewhere/file": "behind a symlink\n"},
        scriptlets={
            "pretrans -p <lua>": 'os.rename("/usr/share/turncoat/place", '
            '"/usr/share/turncoat/place.old")'
        },
        install="ln -s elsewhere %{buildroot}/usr/share/turncoat/place",
        extra_files="/usr/share/turncoat/place",
    )
    build_rpm(
        directory,
        "turncoat",
        version="3",
        files={"/usr/share/turncoat/place/file": "in a directory again\n"},
        scriptlets={"pretrans -p <lua>": 'os.remove("/usr/share/turncoat/place")'},
    )
    build_rpm(
        directory,
        "capable",
        files={"/usr/bin/capable": RpmFile("x\n", directive="%caps(cap_net_raw=ep)")},
    )
    for version in ("1", "2"):
        build_rpm(
            directory,
            "unwritable",
            version=version,
            files={
                f"/usr/share/unwritable/{version}": RpmFile("x\n", mode=0o444),
                "/usr/share/unwritable/same": RpmFile(version, mode=0o000),
            },
            tags=["Provides: unwritable-abi"],
            install="mkdir -p %{buildroot}/usr/share/unwritable/inner",
            extra_files="%dir %attr(0555,root,root) /usr/share/unwritable\n"
            "%dir %attr(0111,root,root) /usr/share/unwritable/inner",
        )
    return create_repository(directory)


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    return make_node(actor, pool / "node", "node", repository)


def test_a_new_top_level_directory_reaches_the_node(node: TestNode) -> None:
    node.install("newtop")
    assert (node.path / "appdata/deep/er/file").read_text() == "here\n"
    node.dnf("red-remove", "-y", "newtop")
    assert not (node.path / "appdata/deep/er/file").exists()


def test_a_config_file_of_the_core_os_does_not_displace_the_packages_own(node: TestNode) -> None:
    node.install("noreplace")
    assert (node.path / "etc/passwd").read_text() == "mine\n"
    assert (node.path / "etc/hosts").read_text() == "mine too\n"
    assert not list((node.path / "etc").glob("*.rpm*"))


def test_a_config_file_changed_in_the_node_survives_an_upgrade(
    node: TestNode, pool_root: Path
) -> None:
    node.install("noreplace")
    (node.path / "etc/passwd").write_text("changed by the user\n")
    newer = pool_root / "newer"
    build_rpm(
        newer,
        "noreplace",
        version="2.0",
        files={"/etc/passwd": RpmFile("newer\n", directive="%config(noreplace)")},
    )
    node.dnf("red-manager", f"--add-repo={create_repository(newer)}")
    node.dnf("red-upgrade", "-y")
    assert (node.path / "etc/passwd").read_text() == "changed by the user\n"
    assert (node.path / "etc/passwd.rpmnew").read_text() == "newer\n"


def test_a_file_of_another_owner_installs(node: TestNode) -> None:
    node.install("daemonfile")
    status = os.stat(node.path / "usr/share/daemonfile/data")
    assert status.st_uid == (1 if node.actor.kind == "root" else node.actor.uid)


def test_a_setuid_file_keeps_its_bit_only_for_root(node: TestNode) -> None:
    done = node.try_dnf("red-install", "-y", "suid")
    assert done.returncode == 0
    mode = stat.S_IMODE(os.stat(node.path / "usr/bin/suid-tool").st_mode)
    if node.actor.kind == "root":
        assert mode == 0o4755
    else:
        assert mode == 0o755
        assert "usr/bin/suid-tool: set-user-ID and set-group-ID bits dropped" in done.stderr


def test_file_capabilities_are_set_only_by_root(node: TestNode) -> None:
    done = node.try_dnf("red-install", "-y", "capable")
    assert done.returncode == 0
    attributes = os.listxattr(node.path / "usr/bin/capable")
    if node.actor.kind == "root":
        assert attributes == ["security.capability"]
    else:
        assert attributes == []
        assert "capable-1.0-1.noarch: file capabilities are not set" in done.stderr


def test_scriptlets_write_below_etc_and_usr(node: TestNode) -> None:
    node.install("scripted")
    for place in ("usr/share/made-by-post", "usr/lib/made-by-post", "etc/made.d/conf"):
        assert (node.path / place).read_text() == "made\n"
    assert (node.path / "usr/share/scripted/made").read_text() == "data\n"
    assert "extra::1234:" in (node.path / "etc/group").read_text()
    assert not (node.path / "usr/share/made-by-post").is_symlink()
    node.dnf("red-remove", "-y", "scripted")
    assert not (node.path / "usr/share/made-by-post").exists()
    assert not (node.path / "etc/made.d").exists()


def test_hard_links_in_one_top_level_directory_stay_links(node: TestNode) -> None:
    node.install("hardlinks")
    one, two = (os.stat(node.path / f"usr/share/hardlinks/{name}") for name in ("one", "two"))
    assert one.st_ino == two.st_ino


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("crosslinks", "hard links across top-level directories cannot be kept in a node"),
        ("rootfile", "rootfile: ships /rootfile, a file in the root directory itself"),
        ("intruder", "/etc/redpak.yaml: the transaction writes a file of redpak itself"),
        ("failing", "these packages failed: failing-1.0-1.noarch"),
        ("unmet", "nothing provides nothing-has-this needed by unmet-1.0-1.noarch"),
        ("no-such-package", says("unknown package", "no-such-package")),
    ],
)
def test_what_cannot_be_installed_leaves_the_node_as_it_was(
    node: TestNode, package: str, message: str
) -> None:
    node.install("newtop")
    node.fails("red-install", "-y", package, message=message)
    assert node.packages() == ["newtop"]


def test_a_directory_that_nobody_may_write_is_upgraded_and_keeps_its_mode(node: TestNode) -> None:
    place = node.path / "usr/share/unwritable"
    for version in ("1", "2"):
        node.install(f"unwritable-{version}")
        assert stat.S_IMODE(os.stat(place / "same").st_mode) == 0
        assert sorted(path.name for path in place.iterdir()) == sorted([version, "inner", "same"])
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o555
        assert stat.S_IMODE(os.stat(place / "inner").st_mode) == 0o111
    node.dnf("red-remove", "-y", "unwritable")
    assert not place.exists()


def test_derived_files_are_not_frozen_into_the_node(node: TestNode) -> None:
    node.install("derived")
    assert not (node.path / "etc/ld.so.cache").exists()


def test_a_directory_replaced_by_a_symlink_and_back(node: TestNode) -> None:
    node.install("turncoat-1")
    node.dnf("red-upgrade", "-y", "turncoat-2")
    place = node.path / "usr/share/turncoat/place"
    assert place.is_symlink()
    assert (place / "file").read_text() == "behind a symlink\n"
    node.dnf("red-upgrade", "-y", "turncoat")
    assert not place.is_symlink()
    assert (place / "file").read_text() == "in a directory again\n"
    assert not (node.path / "usr/share/turncoat/elsewhere/file").exists()


def test_installing_removing_and_installing_again_gives_the_same_node(node: TestNode) -> None:
    def files() -> dict[str, object]:
        return {
            path: (row[0], row[4])
            for path, row in node.state().items()
            if not path.startswith("var/lib/")
        }

    node.install("newtop", "scripted")
    first = files()
    node.dnf("red-remove", "-y", "newtop", "scripted")
    node.install("newtop", "scripted")
    assert files() == first
