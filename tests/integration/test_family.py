# SPDX-License-Identifier: Apache-2.0
"""Family rules, descendants, rollback, plan: what a transaction may do to the rest of the tree."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor, describe
from support.frontends import mark_as_dependency
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository


def lib_files(version: str) -> dict[str, str]:
    return {"/usr/share/lib/version": f"{version}\n", f"/usr/share/lib/only-{version}": "x\n"}


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "family"
    for version in ("1.0", "2.0"):
        build_rpm(
            directory,
            "lib",
            version=version,
            files=lib_files(version),
            tags=[f"Provides: lib-abi = {version}"],
            scriptlets={"post": "true"},
        )
    build_rpm(directory, "app", files={"/usr/share/app": "x\n"}, requires=["lib-abi = 1.0"])
    build_rpm(directory, "app2", files={"/usr/share/app2": "x\n"}, requires=["lib-abi = 2.0"])
    build_rpm(directory, "other", files={"/usr/share/app": "not the same\n"})
    build_rpm(directory, "hostile", tags=["Conflicts: app"])
    return create_repository(directory)


@pytest.fixture
def parent(actor: Actor, pool: Path, repository: Path) -> TestNode:
    node = make_node(actor, pool / "parent", "parent", repository)
    node.install("lib-1.0")
    return node


@pytest.fixture
def child(parent: TestNode, repository: Path) -> TestNode:
    node = make_node(parent.actor, parent.path / "child", "child", repository)
    node.install("app")
    return node


def test_an_upgrade_of_the_child_leaves_the_parents_packages(child: TestNode) -> None:
    assert "Nothing to do." in child.dnf("red-upgrade", "-y")
    assert child.packages() == ["app"]
    child.dnf("red-upgrade", "-y", "lib")
    assert child.packages() == ["app"]


def test_dnf_names_the_node_whose_package_is_in_the_way(
    parent: TestNode, child: TestNode
) -> None:
    child.fails(
        "red-install",
        "-y",
        "app2",
        message=f"lib-1.0-1.noarch belongs to node parent ({parent.path}): upgrade it there",
    )


def test_a_package_that_obsoletes_one_of_the_parent_is_refused(
    child: TestNode, pool_root: Path
) -> None:
    directory = pool_root / "successor"
    build_rpm(directory, "successor", version="3", tags=["Obsoletes: lib < 3"])
    child.dnf("red-manager", f"--add-repo={create_repository(directory)}")
    assert "Nothing to do." in child.dnf("red-upgrade", "-y")
    done = child.try_dnf("red-install", "-y", "successor")
    assert done.returncode == 1, describe(done)
    assert child.packages() == ["app"]


def test_forcenode_gives_the_child_a_copy_of_its_own(
    parent: TestNode, child: TestNode, repository: Path
) -> None:
    before = parent.packages()
    child.dnf("red-install", "-y", "--forcenode", "lib-1.0")
    assert child.packages() == ["app", "lib"]
    assert (child.path / "usr/share/lib/version").read_text() == "1.0\n"
    sibling = make_node(parent.actor, parent.path / "sibling", "sibling", repository)
    sibling.dnf("red-install", "-y", "--forcenode", "lib")
    sibling.install("app2")
    assert (sibling.path / "usr/share/lib/version").read_text() == "2.0\n"
    assert parent.packages() == before
    sibling.dnf("red-remove", "-y", "app2", "lib")
    assert sibling.packages() == []
    assert "lib.noarch" in sibling.dnf("red-list", "--installed")


def test_forcenode_works_in_a_node_that_has_no_rpmdb_yet(
    parent: TestNode, repository: Path
) -> None:
    """As `red-conf create` makes one."""
    path = parent.path / "bare"
    parent.actor.check(["red-conf", "create", f"--redpath={path}", "--alias=bare"])
    bare = TestNode(parent.actor, path)
    assert not (path / "var/lib/rpm/rpmdb.sqlite").exists()
    (package,) = repository.glob("lib-2.0-*.rpm")
    words = ("--forcenode", "--setopt=localpkg_gpgcheck=0", str(package))
    bare.dnf("red-install", "-y", *words)
    assert bare.packages() == ["lib"] and "lib" in parent.packages()


def test_a_grandchild_sees_the_shadowing_copy(parent: TestNode, repository: Path) -> None:
    middle = make_node(parent.actor, parent.path / "middle", "middle", repository)
    middle.dnf("red-install", "-y", "--forcenode", "lib")
    leaf = make_node(parent.actor, middle.path / "leaf", "leaf", repository)
    leaf.install("app2")
    assert leaf.packages() == ["app2"]


def test_removing_what_a_descendant_needs_is_refused(parent: TestNode, child: TestNode) -> None:
    parent.fails(
        "red-remove",
        "-y",
        "lib",
        message=f"it would break node child ({child.path}): lib-abi = 1.0 is needed by app-1.0-1",
    )


def test_upgrading_what_a_descendant_needs_is_refused(parent: TestNode, child: TestNode) -> None:
    parent.fails("red-upgrade", "-y", "lib", message="lib-abi = 1.0 is needed by app-1.0-1.noarch")


@pytest.mark.parametrize(
    ("package", "problem"),
    [
        ("other", "file /usr/share/app "),
        ("hostile", "app conflicts with"),
    ],
)
def test_a_new_conflict_with_a_descendant_is_refused(
    parent: TestNode, child: TestNode, package: str, problem: str
) -> None:
    parent.fails("red-install", "-y", package, message=problem)


def test_force_marks_descendants_until_they_are_coherent_again(
    parent: TestNode, child: TestNode
) -> None:
    done = parent.try_dnf("red-upgrade", "-y", "lib", "--force")
    assert done.returncode == 0, describe(done)
    assert "is marked Error: does not fit on its ancestors" in done.stderr
    refused = child.try_dnf("red-list")
    assert refused.returncode == 1
    assert "node child at" in refused.stderr and "has the state Error" in refused.stderr
    done = parent.try_dnf("red-downgrade", "-y", "lib")
    assert done.returncode == 0, describe(done)
    assert f"{child.path} is coherent again and enabled" in done.stderr
    child.dnf("red-list")


def test_what_was_broken_before_does_not_block_the_parent(
    parent: TestNode, child: TestNode
) -> None:
    parent.dnf("red-upgrade", "-y", "lib", "--force")
    parent.install("other", "--force")
    parent.dnf("red-remove", "-y", "other")


def test_rollback_returns_to_the_previous_generation_and_back(parent: TestNode) -> None:
    def files() -> dict[str, tuple[object, ...]]:
        return {path: row for path, row in parent.state().items() if path.startswith("usr/")}

    old = files()
    parent.dnf("red-upgrade", "-y", "lib")
    new = files()
    assert "back to its previous generation" in parent.dnf("red-manager", "--rollback")
    assert files() == old
    query = ["rpm", "--dbpath", parent.path / "var/lib/rpm", "-q", "lib"]
    assert parent.actor.check(query) == "lib-1.0-1.noarch\n"
    parent.dnf("red-manager", "--rollback")
    assert files() == new
    assert parent.actor.check(query) == "lib-2.0-1.noarch\n"


def test_a_rollback_that_breaks_a_descendant_is_refused(
    parent: TestNode, repository: Path
) -> None:
    parent.dnf("red-upgrade", "-y", "lib")
    child = make_node(parent.actor, parent.path / "child", "child", repository)
    child.install("app2")
    parent.fails("red-manager", "--rollback", message="lib-abi = 2.0 is needed by app2-1.0-1")


def test_without_a_previous_generation_there_is_no_rollback(
    actor: Actor, pool: Path, repository: Path
) -> None:
    node = make_node(actor, pool / "fresh", "fresh", repository)
    node.fails("red-manager", "--rollback", message="no previous generation to return to")


def test_plan_shows_the_exact_files_and_changes_nothing(parent: TestNode) -> None:
    before = parent.state()
    text = parent.dnf("red-upgrade", "--plan", "lib")
    assert parent.state() == before
    assert "nothing was changed" in text
    assert "Files added: 1\n  usr/share/lib/only-2.0\n" in text
    assert "Files replaced: 1\n  usr/share/lib/version\n" in text
    assert "Files removed: 1\n  usr/share/lib/only-1.0\n" in text
    assert "lib-2.0-1.noarch: post" in text
    assert "lib-1.0-1.noarch:" not in text  # what it brings runs at its installation
    assert "Change of size: +0 bytes" in text


def test_plan_says_when_the_transaction_would_be_refused(
    parent: TestNode, child: TestNode
) -> None:
    parent.fails("red-upgrade", "--plan", "lib", message="it would break node child")


def test_assumeno_changes_nothing(parent: TestNode) -> None:
    parent.fails("red-upgrade", "--assumeno", "lib", message="Operation aborted")


def test_a_node_has_its_own_history(parent: TestNode, child: TestNode) -> None:
    assert "red-install -y app" in child.dnf("red-history", "list")
    assert "red-install -y app" not in parent.dnf("red-history", "list")
    child.dnf("red-history", "undo", "-y", "last")
    assert child.packages() == []
    child.dnf("red-history", "redo", "-y", "1")
    assert child.packages() == ["app"]


def test_marks_are_kept_and_steer_autoremove(parent: TestNode, repository: Path) -> None:
    node = make_node(parent.actor, parent.path / "x", "x", repository)
    node.install("app")
    node.dnf(*mark_as_dependency("app"))
    assert "app" in node.dnf("red-autoremove", "-y")
    assert node.packages() == []


def test_exit_on_lock_ends_with_dnfs_status_for_a_lock(parent: TestNode) -> None:
    fd = os.open(parent.path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    done = parent.try_dnf("red-install", "-y", "app", "--setopt=exit_on_lock=1")
    os.close(fd)
    assert done.returncode == 200, describe(done)
    assert f"another command works on this node (process {os.getpid()} of " in done.stderr


def test_who_holds_the_lock_is_told_as_the_command_that_was_given(parent: TestNode) -> None:
    """Not as the process that it became, which waits for its child."""
    holder = parent.actor.popen(
        ["red-dnf", "red-install", f"--redpath={parent.path}", "app"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert holder.stdin is not None and holder.stdout is not None
    said = ""
    while not said.endswith("[y/N]: "):
        letter = holder.stdout.read(1)
        assert letter, said
        said += letter
    done = parent.try_dnf("red-remove", "-y", "app", "--setopt=exit_on_lock=1")
    holder.communicate("n\n")
    assert f"(process {holder.pid} of {parent.actor.name}: " in done.stderr, describe(done)
    # In dnf5, red-dnf puts --redpath at the end.
    assert re.search(r"dnf\S* red-install (--redpath=/|app )", done.stderr), describe(done)
