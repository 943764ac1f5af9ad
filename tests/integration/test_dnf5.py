# SPDX-License-Identifier: Apache-2.0
"""What is dnf5's own: plain commands, help and completion, and one node for dnf4 and dnf5.

Collected where dnf5 is under test (scripts/test --dnf5); all else of dnf5 is tested by the tests of
dnf4.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.actors import Actor, describe
from support.frontends import is_dnf5
from support.nodes import TestNode, make_node
from support.rpms import RpmFile, build_rpm, create_repository

if not is_dnf5():
    pytest.skip("dnf4 is under test", allow_module_level=True)


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "dnf5"
    build_rpm(directory, "base", files={"/usr/share/base": "x\n"})
    build_rpm(directory, "tool", files={"/usr/bin/tool": "x\n"}, requires=["base"])
    build_rpm(directory, "extra", files={"/usr/share/extra": "x\n"})
    build_rpm(directory, "fails-post", scriptlets={"post": "exit 3"})
    build_rpm(directory, "fails-pre", scriptlets={"pre": "exit 3"})
    return create_repository(directory)


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    return make_node(actor, pool / "node", "node", repository)


@pytest.fixture
def plain(actor: Actor, prefix: Path) -> Actor:
    """Types dnf5, in the environment that an installation for the system gives."""
    own = prefix / "lib/redpak/dnf5"
    return actor.with_environ(
        LIBDNF_PYTHON_PLUGIN_DIR=str(own),
        LIBDNF_PLUGINS_CONFIG_DIR=f"{own}/plugins",
        XDG_CONFIG_HOME=f"{own}/config",
    )


def test_plain_dnf5_creates_and_fills_a_node(plain: Actor, pool: Path, repository: Path) -> None:
    path = pool / "plain"
    create = ["red-manager", "--create", "--alias=plain", f"--add-repo={repository}"]
    plain.check(["dnf5", *create, "--setopt=gpgcheck=0", "--save", f"--redpath={path}"])
    assert "tool.noarch" in plain.check(["dnf5", f"--redpath={path}", "red-search", "tool"])
    plain.check(["dnf5", "red-install", "-y", "tool", "--redpath", path])
    assert TestNode(plain, path).packages() == ["base", "tool"]
    assert "tool.noarch" in plain.check(["dnf5", "rls", "--installed"], env={"REDPATH": str(path)})
    plain.check(["dnf5", "red-check", f"--redpath={path}"])


def test_without_our_plugin_nothing_is_done_and_one_line_says_why(
    plain: Actor, node: TestNode
) -> None:
    before = node.state()
    bare = Actor(plain.kind, plain.name, plain.uid, plain.gid, {
        name: value for name, value in plain.environ.items()
        if name != "LIBDNF_PYTHON_PLUGIN_DIR"
    })  # fmt: skip
    for words in (
        ["red-install", "-y", "tool", f"--redpath={node.path}"],
        ["red-install", "-y", "tool"],
        ["install", "-y", "tool", f"--redpath={node.path}"],
        ["red-manager", "--redpath", node.path, "--state=disable"],
        ["red-remove", "-y", "--installroot=/", "tool", f"--redpath={node.path}"],
    ):
        done = bare.run(["dnf5", *words])
        assert done.returncode == 1, describe(done)
        assert "plugin for dnf5 is not loaded: use red-dnf" in done.stderr, describe(done)
        assert done.stderr.count("\n") == 1, describe(done)
    assert node.state() == before


def test_redpath_without_a_red_command_is_refused(plain: Actor, node: TestNode) -> None:
    done = plain.run(["dnf5", "install", "-y", "tool", f"--redpath={node.path}"])
    assert done.returncode == 1, describe(done)
    assert "go with the red- commands; write red-install" in done.stderr


def test_other_commands_are_left_alone(plain: Actor, pool: Path) -> None:
    """Our plugin is loaded in them, too."""
    words = ["repo", "list", "--all", f"--installroot={pool}", "--use-host-config"]
    done = plain.run(["dnf5", *words])
    assert done.returncode == 0, describe(done)
    assert "Error" not in done.stderr


def test_help_shows_every_command_with_its_description(plain: Actor) -> None:
    text = plain.check(["dnf5", "--help"])
    for line in (
        "red-install  ", "Install software in a node",
        "red-manager  ", "Create a node, change it, and manage its repositories",
        "--redpath=DIR", "the node to work on (default: the environment variable REDPATH)",
    ):  # fmt: skip
        assert line in text
    assert "--allowerasing" in plain.check(["dnf5", "red-install", "--help"])
    manager = plain.check(["dnf5", "red-manager", "--help"])
    assert "--create" in manager and "make the directory DIR of --redpath a node" in manager


def test_completion_knows_commands_options_and_the_nodes_packages(
    plain: Actor, node: TestNode
) -> None:
    def complete(*words: object) -> str:
        return plain.check(["dnf5", f"--complete={len(words)}", "dnf5", *map(str, words)])

    assert "red-install" in complete("red-ins")
    assert "--redpath" in complete("red-install", "--redp")
    node.dnf("red-makecache")
    assert "extra" in complete("red-install", f"--redpath={node.path}", "ext")
    node.install("tool")
    assert "tool" in complete("red-remove", f"--redpath={node.path}", "to")


def test_the_shells_learn_what_the_repositories_have(
    actor: Actor, node: TestNode, pool_root: Path
) -> None:
    def available(word: str) -> list[str]:
        asked = ["red-conf", "complete", f"--redpath={node.path}", "--", "available", word]
        return actor.check(asked).split()

    assert available("") == []
    node.dnf("red-makecache")
    assert available("fails-p") == ["fails-post", "fails-pre"]
    more = pool_root / "more"
    build_rpm(more, "fails-posttrans")
    node.dnf("red-manager", f"--add-repo={create_repository(more)}")
    node.dnf("red-search", "fails")
    assert available("fails-post") == ["fails-post", "fails-posttrans"]


def reasons(node: TestNode, dnf: str) -> dict[str, tuple[str, str]]:
    """Package: (reason, repository), by that dnf's own word."""
    query = "%{name} %{reason} %{from_repo}\\n"
    text = node.dnf(
        f"--dnf={dnf}", "red-repoquery", "--installed", "--qf", query, "base", "tool", "extra"
    )
    lines = [line.split() for line in text.splitlines()]
    return {name: (reason.lower(), repo) for name, reason, repo in filter(None, lines)}


def test_dnf4_and_dnf5_work_on_one_node_in_turn(node: TestNode) -> None:
    (repo,) = (path.stem for path in (node.path / "etc/yum.repos.d").glob("*.repo"))
    expected = {"base": ("dependency", repo), "tool": ("user", repo)}
    node.dnf("--dnf=5", "red-install", "-y", "tool")
    assert reasons(node, "5") == reasons(node, "4") == expected
    # Reading changes nothing; a transaction of dnf4 goes on from there.
    node.dnf("--dnf=4", "red-install", "-y", "extra")
    expected["extra"] = ("user", repo)
    assert reasons(node, "4") == reasons(node, "5") == expected
    node.dnf("--dnf=4", "red-mark", "-y", "remove", "tool")
    expected["tool"] = ("dependency", repo)
    assert reasons(node, "5") == expected
    node.dnf("--dnf=5", "red-mark", "-y", "user", "tool")
    assert reasons(node, "4")["tool"] == ("user", repo)
    node.dnf("--dnf=4", "red-mark", "-y", "remove", "tool")
    done = node.try_dnf("--dnf=5", "red-autoremove", "-y")
    assert done.returncode == 0, describe(done)
    assert node.packages() == ["extra"]
    node.dnf("--dnf=5", "red-mark", "-y", "dependency", "extra")
    node.dnf("--dnf=4", "red-autoremove", "-y")
    assert node.packages() == []
    state = {path.name for path in (node.path / "var/lib/dnf").iterdir()}
    assert state >= {"history.sqlite", "libdnf5"}


def test_repositories_are_the_same_for_both(node: TestNode, repository: Path) -> None:
    (repo,) = (path.stem for path in (node.path / "etc/yum.repos.d").glob("*.repo"))
    node.dnf("--dnf=4", "red-manager", "--disable", repo)
    assert repo not in node.dnf("--dnf=5", "red-repolist")
    node.dnf("--dnf=5", "red-manager", "--enable", repo)
    assert repo in node.dnf("--dnf=4", "red-repolist")
    node.dnf("--dnf=5", "red-manager", "--save", "--setopt=best=0", f"--setopt={repo}.priority=3")
    assert "priority = 3" in node.dnf("--dnf=4", "red-manager", "--dump", repo)


@pytest.mark.parametrize(
    ("package", "message"),
    [
        # For dnf4 that is a warning; dnf5 says that the transaction failed.
        ("fails-post", "nothing was changed in node node: the rpm transaction failed"),
        ("fails-pre", "nothing was changed in node node, these packages failed: fails-pre-1.0-1"),
    ],
)
def test_what_dnf5_calls_failed_leaves_the_node_as_it_was(
    node: TestNode, package: str, message: str
) -> None:
    node.fails("red-install", "-y", package, message=message)
    node.fails("red-install", "-y", "tool", package, message=message)
    assert node.packages() == []


def test_accounts_of_the_core_os_may_own_files(
    node: TestNode, pool_root: Path
) -> None:
    """rpm 6 has packages require the owners of their files."""
    directory = pool_root / "owned"
    files = {"/usr/share/owned": RpmFile("x\n", owner="daemon", group="daemon")}
    build_rpm(directory, "owned", files=files)
    node.dnf("red-manager", f"--add-repo={create_repository(directory)}")
    node.install("owned")
    assert node.packages() == ["owned"]
