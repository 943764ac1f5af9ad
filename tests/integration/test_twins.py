# SPDX-License-Identifier: Apache-2.0
"""The red- twins: the options, help and exit status of the stock commands, on a node."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.actors import Actor, describe
from support.frontends import is_dnf5
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository

COMMANDS = (
    "autoremove", "check-update", "clean", "deplist", "distro-sync", "downgrade", "group",
    "history", "info", "install", "list", "makecache", "mark", "module", "provides", "reinstall",
    "remove", "repoinfo", "repolist", "repoquery", "search", "swap", "updateinfo", "upgrade",
    "upgrade-minimal",
)  # fmt: skip
# Of these dnf5 has other commands or none: docs/dnf5.md.
NOT_IN_DNF5 = {"deplist"}
COMMANDS_HERE = [name for name in COMMANDS if not (is_dnf5() and name in NOT_IN_DNF5)]
AS_USER = pytest.mark.parametrize("actor", ["user"], indirect=True)


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "twins"
    for version in ("1.0", "2.0"):
        build_rpm(directory, "tool", version=version, files={"/usr/bin/tool": f"{version}\n"})
    build_rpm(directory, "user", files={"/usr/share/user": "x\n"}, requires=["/usr/bin/tool"])
    return create_repository(directory)


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    node = make_node(actor, pool / "node", "node", repository)
    node.install("tool-1.0")
    return node


def options(help_text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text))


@AS_USER
@pytest.mark.parametrize("command", COMMANDS_HERE)
def test_a_twin_has_the_options_of_its_stock_command(actor: Actor, command: str) -> None:
    stock = options(actor.check(["red-dnf", command, "--help"]))
    twin = options(actor.check(["red-dnf", f"red-{command}", "--help"]))
    assert stock <= twin
    assert twin - stock <= {"--redpath", "--rpath", "--rmain", "--node-force", "--forcenode",
                            "--plan", "--force"}  # fmt: skip
    # dnf5 shows options of all commands in its own help only.
    assert "--redpath" in (options(actor.check(["red-dnf", "--help"])) if is_dnf5() else twin)


@AS_USER
def test_red_check_has_the_options_of_check_too(actor: Actor) -> None:
    stock = options(actor.check(["red-dnf", "check", "--help"]))
    assert stock <= options(actor.check(["red-dnf", "red-check", "--help"]))


@AS_USER
def test_help_lists_every_twin(actor: Actor) -> None:
    text = actor.check(["red-dnf", "--help"])
    for command in ("red-manager", "red-install", "red-search", "red-repoquery"):
        assert re.search(rf"^ *{command} ", text, re.MULTILINE), command


@AS_USER
def test_queries_answer_as_stock_dnf_does(node: TestNode) -> None:
    assert "tool.noarch" in node.dnf("red-list", "--upgrades")
    assert node.try_dnf("red-check-update").returncode == 100
    assert "tool-1.0-1.noarch" in node.dnf("red-provides", "/usr/bin/tool")
    assert node.dnf("red-repoquery", "--requires", "user").splitlines()[0] == "/usr/bin/tool"
    assert re.search("^Version *: 1.0$", node.dnf("red-info", "--installed", "tool"), re.MULTILINE)
    assert re.search("^Repo.(id|ID) ", node.dnf("red-repoinfo"), re.MULTILINE)
    assert "tool" in node.dnf("rse", "Test package tool")
    node.dnf("red-check")
    node.dnf("red-makecache")
    node.dnf("red-clean", "all")
    assert not list((node.path / "var/cache").rglob("*.solv"))
    node.dnf("red-updateinfo", "list")


@AS_USER
def test_transactions_do_what_the_stock_ones_do(node: TestNode) -> None:
    def version() -> str:
        return (node.path / "usr/bin/tool").read_text()

    node.dnf("red-upgrade", "-y")
    assert version() == "2.0\n"
    node.dnf("red-downgrade", "-y", "tool")
    assert version() == "1.0\n"
    node.dnf("red-distro-sync", "-y")
    assert version() == "2.0\n"
    (node.path / "usr/bin/tool").write_text("damaged\n")
    node.dnf("red-reinstall", "-y", "tool")
    assert version() == "2.0\n"
    node.dnf("red-swap", "-y", "tool", "tool-1.0")
    assert version() == "1.0\n"
    assert "Nothing to do." in node.dnf("red-upgrade-minimal", "-y")  # no advisory asks for it
    node.install("user")
    node.dnf("rrm", "-y", "tool")
    assert node.packages() == []
    node.dnf("rin", "-y", "user")
    assert node.packages() == ["tool", "user"]


@AS_USER
def test_redpath_comes_before_or_after_the_command(node: TestNode) -> None:
    for words in (
        [f"--redpath={node.path}", "red-list", "--installed"],
        ["--rp", node.path, "red-list", "--installed"],
        ["red-list", "--rpath", node.path, "--installed"],
        ["red-list", "--installed", f"--rp={node.path}"],
    ):
        assert "tool.noarch" in node.actor.check(["red-dnf", *words])
    listing = ["red-dnf", "red-list", "--installed"]
    assert "tool.noarch" in node.actor.check(listing, env={"REDPATH": str(node.path)})


@AS_USER
def test_the_manager_offers_what_config_manager_does(node: TestNode) -> None:
    (repo,) = (path.stem for path in (node.path / "etc/yum.repos.d").glob("*.repo"))
    node.dnf("red-manager", "--disable", repo)
    assert repo not in node.dnf("red-repolist")
    node.dnf("red-manager", "--enable", repo)
    assert repo in node.dnf("red-repolist")
    node.dnf("red-manager", "--save", f"--setopt={repo}.priority=7")
    assert "priority = 7" in node.dnf("red-manager", "--dump", repo)
    node.dnf("red-manager", "--save", "--setopt=installonly_limit=5")
    assert "installonly_limit = 5" in node.dnf("red-manager", "--dump")
    assert "releasever = " in node.dnf("red-manager", "--dump-variables")
    node.fails("red-manager", "--enable", "nope", message="no repository nope in node node")
    node.fails("red-manager", "--save", "--setopt=x.y=1", message="no repository x in node node")


@AS_USER
def test_a_disabled_node_is_refused_until_forced_or_enabled(node: TestNode) -> None:
    node.dnf("red-manager", "--state=disable")
    node.fails("red-install", "-y", "user", message="has the state Disable")
    assert "tool" in node.dnf("red-list", "--force")
    node.dnf("red-manager", "--state=Enable")
    node.install("user")


@AS_USER
def test_a_moved_node_is_refused_until_updated(node: TestNode) -> None:
    moved = TestNode(node.actor, node.path.with_name("moved"))
    node.path.rename(moved.path)
    moved.fails("red-install", "-y", "user", message=f"was created at {node.path}")
    moved.dnf("red-manager", "--update")
    moved.install("user")
    done = moved.try_dnf("red-list", "--installed")
    assert "user.noarch" in done.stdout, describe(done)
