# SPDX-License-Identifier: Apache-2.0
"""Wrong input: one clear line, a non-zero status, and nothing changed on disk."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from support.actors import Actor, actor_kinds, describe, find_actor
from support.frontends import is_dnf5, says
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository, write_repo_file
from support.trees import snapshot_tree


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "plain-packages"
    build_rpm(directory, "plain", files={"/usr/share/plain": "x\n"})
    return create_repository(directory)


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    return make_node(actor, pool / "node", "node", repository)


def assert_fails(actor: Actor, tree: Path, argv: list[str], message: str) -> None:
    before = snapshot_tree(tree)
    done = actor.run(argv)
    assert done.returncode not in (0, 2), describe(done)
    lines = [line for line in done.stderr.splitlines() if message in line]
    assert len(lines) == 1, describe(done)
    assert "Traceback" not in done.stderr, describe(done)
    assert snapshot_tree(tree) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["red-install", "-y", "plain"], "no node given; say which with --redpath=DIR or REDPATH"),
        (["red-install", "-y", "plain", "--redpath=node"], "redpath node is not absolute"),
        (["red-search", "plain", "--redpath={pool}"], "{pool} is not a node"),
        (["red-search", "plain", "--redpath={pool}/none"], "{pool}/none does not exist"),
        (["red-manager", "--create", "--alias=a/b", "--redpath={pool}/new"],
         '"a/b" is not an alias'),
        (["red-manager", "--create", "--alias=..", "--redpath={pool}/new"], '".." is not an alias'),
        (["red-manager", "--create", "--alias=node", "--redpath={pool}/node/new"],
         "the alias node belongs to both {pool}/node and {pool}/node/new; choose another one:"
         " --alias=NAME"),
        (["red-manager", "--create", "--alias=new", "--redpath={pool}/node"],
         "is a node already; say --update to change it"),
        (["red-manager", "--create", "--alias=new", "--template=nope", "--redpath={pool}/new"],
         "nope"),
        (["red-manager", "--create", "--redpath={pool}/new"], "--create needs an alias"),
        (["red-manager", "--create", "--alias=new", "--redpath={pool}/node/etc/redpack.yaml/new"],
         "{pool}/node/etc/redpack.yaml is not a directory; choose another redpath"),
        (["install", "-y", "plain", "--redpath={pool}/node"],
         "install: commands for a node begin with red-; write red-install"),
        (["--redpath={pool}/node", "manager", "--recover"], "write red-manager"),
        (["red-manager", "--create", "--alias=x", "--redpath={pool}/new", "--add-repo=/none.repo"],
         "/none.repo: cannot read"),
        (["red-manager", "--create", "--alias=x", "--redpath={pool}/new", "--add-repo=/none"],
         "/none: cannot be a repository: No such file or directory; name a directory, a .repo file"
         " or a URL"),
        (["red-manager", "--redpath={pool}/node", "--add-repo=file://{pool}/none"],
         "file://{pool}/none: cannot be a repository: No such file or directory"),
        (["red-manager", "--redpath={pool}/node", "--add-repo=/etc/passwd"],
         "/etc/passwd: neither a directory nor a .repo file"),
        (["red-manager", "--redpath={pool}/node"], "nothing to do"),
        (["red-manager", "--create", "--alias=x", "--redpath=/"], "/ cannot be a node"),
        (["red-manager", "--create", "--alias=x", "--redpath=/proc/1"], "/proc/1 cannot be a node"),
        (["red-manager", "--create", "--alias=new", "--redpath={pool}/node/usr/new"],
         "where no node can be"),
        (["red-manager", "--redpath={pool}/node", "--rollback", "--state=disable"],
         "--rollback and --state exclude each other"),
        (["red-manager", "--redpath={pool}/node", "--alias=other", "--dump"],
         "--alias goes with --create or --update"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_clear_line(
    node: TestNode, pool: Path, words: list[str], message: str
) -> None:
    argv = ["red-dnf", *(word.format(pool=pool) for word in words)]
    assert_fails(node.actor, pool, argv, message.format(pool=pool))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["red-manager", "--redpath={pool}/node", "--update", "--alias=x", "--state=disable",
          "--setopt=keepcache=1", "--setopt=nope=1", "--save"], "dnf has no option nope"),
        (["red-manager", "--redpath={pool}/node", "--update", "--alias=x",
          "--setopt=*.priority=abc", "--save"], "priority=abc: "),
        (["red-manager", "--redpath={pool}/node", "--setopt=keepcache=1",
          "--setopt=*.nope=1", "--save"], "a repository has no option nope"),
        (["red-manager", "--redpath={pool}/node", "--add-repo=/srv", "--setopt=keepcache=1",
          "--save", "--update", "--template=nope"], "unknown template nope"),
        (["red-manager", "--redpath={pool}/node", "--add-repo=/srv", "--repo-disable", "srv",
          "none"], "no repository none"),
        (["red-manager", "--redpath={pool}/new", "--create", "--alias=new", "--setopt=keepcache=1",
          "--setopt=x.enabled=1", "--save"], "no repository x"),
    ],
)  # fmt: skip
def test_what_a_command_did_before_it_failed_is_taken_back(
    node: TestNode, pool: Path, words: list[str], message: str
) -> None:
    before = contents(pool)
    done = node.actor.run(["red-dnf", *(word.format(pool=pool) for word in words)])
    assert done.returncode == 1 and message in done.stderr, describe(done)
    assert done.stdout == "", describe(done)
    assert contents(pool) == before


def contents(tree: Path) -> dict[str, tuple[object, ...]]:
    """What a tree holds, but for dnf's cache and the times of directories."""
    found = snapshot_tree(tree, without=("node/var/cache",))
    return {path: row[:3] if str(row[0]).startswith("d") else row for path, row in found.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("headers: {alias: node\n", "etc/redpack.yaml:"),
        ("headers: {alias: node}\nconfig: {umaks: 022}\n", "redpack.yaml:2:"),
    ],
)
def test_a_broken_configuration_names_file_and_line(
    node: TestNode, pool: Path, text: str, message: str
) -> None:
    (node.path / "etc/redpack.yaml").write_text(text)
    for argv in (["red-dnf", "red-install", "-y", "plain"], ["red-wrap"]):
        words = ["true"] if argv == ["red-wrap"] else []
        done = node.actor.run([*argv, f"--redpath={node.path}", *words])
        assert done.returncode != 0
        assert message in done.stderr, describe(done)
        assert "Traceback" not in done.stderr


def test_an_unreachable_repository_is_named(node: TestNode, pool_root: Path) -> None:
    broken = write_repo_file(
        pool_root / "broken.repo", "broken", pool_root / "nowhere", "skip_if_unavailable=0"
    )
    node.dnf("red-manager", f"--add-repo={broken}")
    node.fails("red-install", "-y", "plain", message=says("no metadata of", "broken"))


@pytest.mark.skipif(is_dnf5(), reason="dnf5 looks for keys when it has the packages")
def test_what_to_do_without_a_key_is_said_of_the_node(node: TestNode, repository: Path) -> None:
    node.dnf("red-manager", "--setopt=gpgcheck=1", "--setopt=*.gpgcheck=1", "--save")
    node.fails("red-install", "-y", "plain", message=(
        "Error: packages must be signed (gpgcheck), and neither repository "))
    done = node.try_dnf("red-upgrade", "-y")
    assert "rpm --import public" not in done.stderr + done.stdout, describe(done)
    assert f"import it with red-rpm --redpath={node.path} --import FILE" in done.stderr
    takes = done.stderr.rpartition("with red-manager ")[2].split()
    node.dnf("red-manager", *(word for word in takes if not word.startswith("--redpath")))
    node.install("plain")


@pytest.mark.skipif(is_dnf5(), reason="dnf5 is told of the node by this very option")
def test_another_root_is_refused(node: TestNode, pool: Path) -> None:
    node.fails("red-install", "-y", "plain", f"--installroot={pool}/root",
               message="Error: the node says where its root is; leave out --installroot")
    node.fails("red-manager", "--recover", f"--installroot={pool}/root",
               message="Error: the node says where its root is; leave out --installroot")


@pytest.mark.skipif(importlib.util.find_spec("libdnf5") is not None, reason="dnf5 is there")
def test_a_dnf_that_is_not_there_is_named(node: TestNode) -> None:
    done = node.try_dnf("--dnf=5", "red-list")
    assert (done.returncode, done.stderr) == (
        1, "red-dnf: error: dnf5 is not installed; install dnf5 and python3-libdnf5\n")


def test_dnf_is_told_the_option_that_it_takes(node: TestNode) -> None:
    node.dnf("red-manager", "--state=disable")
    node.fails("red-list", message="set it with red-manager --state=Enable, or say --node-force")
    node.dnf("red-list", "--node-force")


def test_a_directory_that_is_no_repository_yet_is_named(node: TestNode, pool: Path) -> None:
    done = node.try_dnf("red-manager", f"--add-repo={pool}")
    assert (done.returncode, done.stderr) == (
        0, f"{pool} is no repository yet: createrepo_c makes it one.\n")


def test_a_command_that_the_node_has_not_is_127(node: TestNode) -> None:
    done = node.actor.run(["red-wrap", f"--redpath={node.path}", "no-such-command"])
    assert done.returncode == 127, describe(done)
    assert "no-such-command" in done.stderr


def test_a_missing_bwrap_is_125(node: TestNode) -> None:
    done = node.actor.run(["red-wrap", f"--redpath={node.path}", "--bwrap=/none/bwrap", "true"])
    assert done.returncode == 125, describe(done)
    assert "/none/bwrap" in done.stderr


# Only root can give a node away, or work on another's.
AS_USER_BESIDE_ROOT = pytest.mark.parametrize(
    "actor", ["user"] if "root" in actor_kinds() else [], indirect=True
)


@AS_USER_BESIDE_ROOT
def test_somebody_elses_node_is_not_changed(node: TestNode) -> None:
    os.chown(node.path, 0, 0)
    node.fails("red-install", "-y", "plain", message="no permission, the node belongs to user 0")


@AS_USER_BESIDE_ROOT
def test_root_works_on_a_users_node_as_that_user(node: TestNode) -> None:
    root = find_actor("root").with_environ(**node.actor.environ)
    root.check(["red-dnf", "red-install", "-y", "plain", f"--redpath={node.path}"])
    root.check(["red-dnf", "red-list", f"--redpath={node.path}"])
    owners = {row[1] for row in snapshot_tree(node.path).values()}
    assert owners == {node.actor.uid}


@pytest.mark.parametrize("actor", ["user"], indirect=True)
def test_without_user_namespaces_the_message_says_so(node: TestNode) -> None:
    # bwrap leaves its command in a namespace where no other can be made.
    jail = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--"]
    argv = [*jail, "red-dnf", "red-install", "-y", "plain", f"--redpath={node.path}"]
    before = node.state()
    done = node.actor.run(argv)
    assert done.returncode == 1, describe(done)
    assert "Error: cannot enter namespaces: unshare: No space left on device; allow user" in (
        done.stderr
    ), describe(done)
    assert node.state() == before


def test_closed_descriptors_and_an_empty_path_make_no_traceback(node: TestNode) -> None:
    command = f"red-dnf red-install -y plain --redpath={node.path}"
    done = node.actor.run(["sh", "-c", f"PATH=$PATH; exec {command} >&- <&-"])
    assert done.returncode == 0, describe(done)
    assert "Traceback" not in done.stderr
    red_dnf = node.actor.check(["sh", "-c", "command -v red-dnf"]).strip()
    done = node.actor.run([red_dnf, "red-list", f"--redpath={node.path}"], env={"PATH": ""})
    assert done.returncode == 0, describe(done)
