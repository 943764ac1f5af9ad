# SPDX-License-Identifier: Apache-2.0
"""Many commands at once, of a node's owner and of root: all end well, and nothing is mixed up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor, describe, find_actor
from support.frontends import mark_as_dependency
from support.interruption import wait_until_alone
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "parallel"
    for number in range(8):
        build_rpm(
            directory,
            f"part{number}",
            files={f"/usr/share/parts/{number}": f"{number}\n"},
            scriptlets={"post": f"echo {number} > /usr/share/parts/{number}.made"},
        )
    return create_repository(directory)


@pytest.fixture
def nodes(actor: Actor, pool: Path, repository: Path) -> dict[str, TestNode]:
    """A parent and two children, each with packages of its own."""
    found = {}
    for alias, place in (("parent", ""), ("left", "left"), ("right", "right")):
        found[alias] = make_node(actor, pool / "parent" / place, alias, repository)
    found["parent"].install("part0")
    found["left"].install("part1")
    return found


# On the parent, on its children, and again and again on the same child.
COMMANDS = (
    ("left", "red-install -y part2"),
    ("right", "red-install -y part2"),
    ("parent", "red-install -y part6"),
    ("left", "red-remove -y part1"),
    ("right", "red-list --installed"),
    ("left", "red-install -y part3"),
    ("right", "red-install -y part3"),
    ("parent", "red-list --installed"),
    ("left", "red-repoquery --installed"),
    ("left", "red-install -y part4"),
    ("right", "red-install -y part4"),
    ("right", "red-makecache"),
    ("left", "red-list --installed"),
    ("parent", " ".join(mark_as_dependency("part0"))),
    ("parent", "red-install -y part7"),
    ("right", "red-install -y part5"),
    ("left", "red-history list"),
    ("left", "red-install -y part5"),
    ("parent", "red-repoquery part0"),
    ("right", "red-check --dependencies"),
)


def test_twenty_commands_at_once_all_end_well(
    actor: Actor, nodes: dict[str, TestNode], pool: Path
) -> None:
    # Root works on the owner's nodes as well.
    root = find_actor("root").with_environ(**actor.environ) if os.geteuid() == 0 else actor
    scratch = pool / "scratch"
    scratch.mkdir()
    os.chown(scratch, actor.uid, actor.gid)
    running: list[subprocess.Popen[str]] = []
    for number, (alias, words) in enumerate(COMMANDS):
        argv = ["red-dnf", *words.split(), f"--redpath={nodes[alias].path}"]
        who = root if number % 2 else actor
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(who.popen(argv, cwd="/", env={"TMPDIR": str(scratch)}, **pipes))
    for process in running:
        stdout, stderr = process.communicate(timeout=300)
        done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        assert done.returncode == 0, describe(done)
        assert "Traceback" not in stderr, describe(done)
    assert nodes["parent"].packages() == ["part0", "part6", "part7"]
    assert nodes["left"].packages() == ["part2", "part3", "part4", "part5"]
    assert nodes["right"].packages() == ["part2", "part3", "part4", "part5"]
    for node in nodes.values():
        check_whole(node)
    assert os.listdir(scratch) == []


def check_whole(node: TestNode) -> None:
    """The packages' files are there, no others, they belong to the owner, and nothing is left."""
    numbers = [name[len("part") :] for name in node.packages()]
    parts = node.path / "usr/share/parts"
    expected = sorted([*numbers, *(f"{number}.made" for number in numbers)])
    # A scriptlet's file stays when its package goes.
    found = sorted(set(os.listdir(parts)) - ({"1.made"} if "1" not in numbers else set()))
    assert found == expected
    for path in [node.path, *parts.iterdir(), *(node.path / "var/lib").rglob("*")]:
        assert path.stat().st_uid == node.actor.uid, path
    wait_until_alone(node.path)
    left = set(os.listdir(node.path / ".redpak"))
    assert not left & {"stage", "stage.discarded", "journal"}, left
    node.dnf("red-check", "--dependencies")
    installs = len(numbers) + (node.path.name == "left")  # one of its packages is gone
    assert node.dnf("red-history", "list").count("red-install") == installs


@pytest.mark.parametrize("words", [
    ("red-dnf", "red-list", "--installed"),
    ("red-rpm", "-qa", "--family"),
    ("red-check", "--no-cache"),
])
def test_the_copy_of_a_killed_reader_is_removed_by_the_next_one(
    actor: Actor, nodes: dict[str, TestNode], pool: Path, words: tuple[str, ...]
) -> None:
    scratch = pool / "readers"
    scratch.mkdir()
    os.chown(scratch, actor.uid, actor.gid)
    argv = [*words, f"--redpath={nodes['right'].path}"]
    environ = {"TMPDIR": str(scratch)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = actor.popen(argv, cwd="/", env=environ, **pipes)
    while not any(scratch.glob("redpak-*/*")):
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert os.listdir(scratch)
    # One that is at work keeps its own.
    running = [actor.popen(argv, cwd="/", env=environ, **pipes) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert os.listdir(scratch) == []


def test_checks_at_the_same_time_find_nothing_of_each_other(
    nodes: dict[str, TestNode]
) -> None:
    """Each notes in the node that it is proven, by a temporary file."""
    node = nodes["right"]
    argv = ["red-check", "--no-cache", f"--redpath={node.path}"]
    for _ in range(3):
        running = [node.actor.popen(argv, cwd="/", stdout=subprocess.PIPE) for _ in range(5)]
        for process in running:
            output, _ = process.communicate()
            assert process.returncode == 0, output
