# SPDX-License-Identifier: Apache-2.0
"""A transaction on a child touches the child alone, and what scriptlets do to it is kept as is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from support.actors import Actor, describe, find_actor
from support.frontends import says
from support.nodes import TestNode, make_node
from support.rpms import RpmFile, build_rpm, create_repository, makes_accounts
from support.trees import snapshot_tree

# What the triggers of the parent's package derive from all packages that are installed.
CACHES = ("etc/ld.so.cache", "usr/share/mime/mime.cache")


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "coherence"
    build_rpm(
        directory,
        "cachemaker",
        files={"/usr/share/mime/own.xml": "own\n", "/usr/share/shared/of-parent": "parent\n"},
        scriptlets={
            "filetriggerin -- /usr/share/mime": "cat > /dev/null\n"
            "ls /usr/share/mime > /usr/share/mime/mime.cache\n"
            "echo $$ > /usr/share/ran.new; mv -f /usr/share/ran.new /usr/share/ran-for-files",
            "transfiletriggerin -- /usr": "cat > /dev/null\n"
            "echo cache > /etc/ld.so.cache\n"
            "echo $$ > /usr/share/ran.new; mv -f /usr/share/ran.new /usr/share/ran-at-end",
        },
    )
    for version in ("1", "2"):
        build_rpm(
            directory,
            "changing",
            version=version,
            files={
                "/usr/share/mime/child.xml": version,
                f"/usr/share/shared/{version}": "child\n",
                "/etc/changing.conf": RpmFile(version, directive="%config"),
            },
            scriptlets={"post": "echo post >> /usr/share/changing.log"},
        )
    build_rpm(directory, "failing", files={"/usr/share/f": ""}, scriptlets={"pre": "exit 1"})
    build_rpm(
        directory,
        "account",
        # As rpm 6 wants it: it has packages require the owners of their files.
        tags=["Provides: user(redkeeper)", "Provides: group(redkeepers)"],
        files={"/usr/share/account/file": RpmFile("x\n", owner="redkeeper", group="redkeepers")},
        scriptlets={
            "pre": "set -e\ngetent group redkeepers || groupadd -r redkeepers\n"
            "getent passwd redkeeper || useradd -r -M -g redkeepers -s /bin/false redkeeper"
        },
    )
    build_rpm(
        directory,
        "account-more",
        files={"/usr/share/account/more": "x\n"},
        scriptlets={"pre": "useradd -r -M -g redkeepers -s /bin/false redguest"},
    )
    build_rpm(
        directory,
        "declaring",
        files={
            "/usr/lib/sysusers.d/declaring.conf": 'u redkeeper - "Red Keeper" /var/keeper\n'
            "g redkeepers -\nm redkeeper redkeepers\n"
        },
    )
    build_rpm(
        directory,
        "declared",
        files={"/usr/share/declared/file": RpmFile("x\n", owner="redkeeper", group="redkeepers")},
    )
    build_rpm(
        directory,
        "ghostly",
        files={
            "/usr/share/ghostly/file": "x\n",
            "/usr/share/ghostly/ghost": RpmFile("never\n", directive="%ghost"),
        },
    )
    build_rpm(
        directory,
        "furnished",
        files={"/usr/share/furnished/a/file": "a\n", "/usr/share/furnished/a/deep/file": "b\n"},
        scriptlets={"post": "echo unowned > /usr/share/furnished/a/unowned"},
    )
    build_rpm(
        directory,
        "remaker",
        files={"/usr/share/remaker": "x\n"},
        scriptlets={
            "post": "set -e\nrm -r /usr/share/furnished/a\nmkdir -m 0750 /usr/share/furnished/a\n"
            "echo new > /usr/share/furnished/a/new"
        },
    )
    build_rpm(
        directory,
        "renamer",
        files={"/usr/share/renamer": "x\n"},
        scriptlets={"post": "mv /usr/share/furnished/a /usr/share/furnished/b"},
    )
    build_rpm(
        directory,
        "renamer-lua",
        files={"/usr/share/renamer-lua": "x\n"},
        scriptlets={
            "post -p <lua>": 'assert(os.rename("/usr/share/furnished/a", "/usr/share/furnished/b"))'
        },
    )
    return create_repository(directory, groups={"all": ["changing", "ghostly"]})


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    return make_node(actor, pool / "node", "node", repository)


@pytest.fixture
def parent(actor: Actor, pool: Path, repository: Path) -> TestNode:
    """A node with triggers; it is root's own, where there is a root."""
    owner = find_actor("root").with_environ(**actor.environ) if os.geteuid() == 0 else actor
    os.chown(pool, owner.uid, owner.gid)
    found = make_node(owner, pool / "parent", "parent", repository)
    found.install("cachemaker")
    return found


@pytest.fixture
def child(actor: Actor, parent: TestNode, repository: Path) -> TestNode:
    path = parent.path / "child"
    path.mkdir()
    os.chown(path, actor.uid, actor.gid)
    return make_node(actor, path, "child", repository)


def test_the_parent_stays_bit_identical_whatever_is_done_on_its_child(
    parent: TestNode, child: TestNode
) -> None:
    before = snapshot_tree(parent.path, without=("child",))
    commands = (
        "red-install -y changing-1",
        "red-upgrade -y",
        "red-downgrade -y changing",
        "red-reinstall -y changing",
        "red-list",
        "red-repoquery --installed",
        "red-search changing",
        "red-history list",
        "red-check --dependencies",
        "red-history undo -y last",
        "red-remove -y changing",
        "red-group install -y all",
        "red-install -y account furnished",
        "red-install -y remaker",
        "red-manager --rollback",
        "red-clean all",
    )
    for words in commands:
        child.dnf(*words.split())
        assert snapshot_tree(parent.path, without=("child",)) == before, words
    child.fails("red-install", "-y", "failing", message="failing")
    child.fails("red-remove", "-y", "cachemaker", message="cachemaker")
    assert snapshot_tree(parent.path, without=("child",)) == before


def test_queries_leave_a_node_bit_identical(node: TestNode) -> None:
    node.install("changing")
    node.dnf("red-makecache")
    before = node.state()
    for words in ("red-list", "red-info changing", "red-repoquery changing", "red-history list",
                  "red-provides /usr/share/shared/2", "red-check --dependencies", "red-repolist"):
        node.dnf(*words.split())
        assert node.state() == before, words


def test_triggers_of_ancestors_run_and_leave_no_derived_caches(
    parent: TestNode, child: TestNode
) -> None:
    child.install("changing-1")
    assert (child.path / "usr/share/mime/child.xml").read_text() == "1"
    for trace in ("ran-for-files", "ran-at-end"):
        assert (child.path / "usr/share" / trace).exists(), trace
    for node in (parent, child):
        for cache in CACHES:
            assert not (node.path / cache).exists(), cache
    child.dnf("red-upgrade", "-y")
    child.dnf("red-remove", "-y", "changing")
    assert not any((child.path / cache).exists() for cache in CACHES)


def test_accounts_of_a_scriptlet_are_the_nodes_own(actor: Actor, node: TestNode) -> None:
    host = {name: Path("/etc", name).read_bytes() for name in ("passwd", "group")}
    node.install("account")
    passwd = dict(
        (line.split(":")[0], line.split(":"))
        for line in (node.path / "etc/passwd").read_text().splitlines()
    )
    assert passwd.keys() > {"root", "redkeeper"}
    assert "redkeepers:" in (node.path / "etc/group").read_text()
    assert {name: Path("/etc", name).read_bytes() for name in host} == host
    owner = os.stat(node.path / "usr/share/account/file").st_uid
    assert owner == (int(passwd["redkeeper"][2]) if actor.uid == 0 else actor.uid)
    for path in (node.path / "etc").iterdir():
        assert path.lstat().st_uid == actor.uid, path


@pytest.mark.skipif(not makes_accounts(), reason="rpm before 4.19 makes no accounts by itself")
@pytest.mark.parametrize("command", ["red-dnf red-install -y", "red-rpm -U"])
def test_accounts_that_a_package_declares_are_made_in_the_node(
    node: TestNode, repository: Path, command: str
) -> None:
    host = {name: Path("/etc", name).read_bytes() for name in ("passwd", "group")}
    paths = [str(repository / f"{name}-1.0-1.noarch.rpm") for name in ("declaring", "declared")]
    done = node.actor.run([*command.split(), *paths, f"--redpath={node.path}"])
    assert done.returncode == 0, describe(done)
    assert "does not exist" not in done.stdout + done.stderr, describe(done)
    passwd, group = (
        {line.split(":")[0]: line.split(":") for line in (node.path / f"etc/{name}").open()}
        for name in ("passwd", "group")
    )
    assert passwd["redkeeper"][4:] == ["Red Keeper", "/var/keeper", "/usr/sbin/nologin\n"]
    assert passwd["redkeeper"][3] == group["redkeeper"][2]
    assert group["redkeepers"][3] == "redkeeper\n"
    assert passwd.keys() > {"root", "redkeeper"}
    owner = os.stat(node.path / "usr/share/declared/file")
    expected = (int(passwd["redkeeper"][2]), int(group["redkeepers"][2]))
    assert (owner.st_uid, owner.st_gid) == (
        expected if node.actor.uid == 0 else (node.actor.uid, node.actor.gid)
    )
    assert {name: Path("/etc", name).read_bytes() for name in host} == host


def test_a_user_makes_accounts_on_top_of_those_of_roots_node(
    parent: TestNode, child: TestNode
) -> None:
    parent.install("account")
    child.install("account-more")
    passwd = (child.path / "etc/passwd").read_text()
    assert "redkeeper:" in passwd and "redguest:" in passwd
    assert "redguest:" not in (parent.path / "etc/passwd").read_text()


def test_a_ghost_file_is_not_made_and_goes_with_its_package(node: TestNode) -> None:
    node.install("ghostly")
    ghost = node.path / "usr/share/ghostly/ghost"
    assert not ghost.exists()
    ghost.write_text("made by an application\n")
    os.chown(ghost, node.actor.uid, node.actor.gid)
    node.dnf("red-remove", "-y", "ghostly")
    assert not ghost.exists()


def test_a_directory_that_a_scriptlet_makes_anew_loses_what_it_held(node: TestNode) -> None:
    node.install("furnished")
    node.install("remaker")
    place = node.path / "usr/share/furnished/a"
    assert os.listdir(place) == ["new"]
    assert place.stat().st_mode & 0o777 == 0o750
    node.dnf("red-manager", "--rollback")
    assert sorted(os.listdir(place)) == ["deep", "file", "unowned"]
    assert (place / "deep/file").read_text() == "b\n"
    assert place.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("package", ["renamer", "renamer-lua"])
def test_a_directory_that_a_scriptlet_renames_is_renamed(node: TestNode, package: str) -> None:
    node.install("furnished")
    done = node.try_dnf("red-install", "-y", package)
    directory = node.path / "usr/share/furnished"
    if package == "renamer":
        assert done.returncode == 0, describe(done)
        assert os.listdir(directory) == ["b"]
        assert digests(directory / "b") == {
            "deep/file": digest("b\n"),
            "file": digest("a\n"),
            "unowned": digest("unowned\n"),
        }
    else:
        # rename(2) of a directory with something in lower layers: EXDEV, which mv handles. It is
        # overlayfs that says so, whatever the rpm; what a failing %post means is dnf's to say.
        assert says("post failed", "renamer-lua") in done.stderr, describe(done)
        assert os.listdir(directory) == ["a"]


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): digest(path.read_text())
        for path in directory.rglob("*")
        if path.is_file()
    }


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
