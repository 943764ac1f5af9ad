# SPDX-License-Identifier: Apache-2.0
"""What commands look like on terminals of 80 and 200 columns, in pipes, and without colours."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path

import pytest

from support.actors import Actor
from support.frontends import progress
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository, write_repo_file

_COLOUR = re.compile(r"\x1b\[[0-9;]*m|\x1b\(B")


@pytest.fixture
def node(actor: Actor, pool: Path, pool_root: Path) -> TestNode:
    repository = pool_root / "repo"
    build_rpm(repository, "a-package-with-quite-a-long-name", version="1.0")
    write_repo_file(pool_root / "short.repo", "short", create_repository(repository))
    made = make_node(actor, pool / "node", "the-node", pool_root / "short.repo")
    made.install("a-package-with-quite-a-long-name")
    return made


def on_terminal(
    actor: Actor, *argv: object, columns: int, status: int = 0, **environ: str
) -> str:
    """What a command prints on a terminal of that width, as it is."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = actor.popen([str(word) for word in argv], stdin=there, stdout=there, stderr=there,
                          env={"TERM": "xterm", **environ}, start_new_session=True)
    os.close(there)
    seen = b""
    while True:
        try:
            piece = os.read(here, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        seen += piece
    os.close(here)
    assert process.wait() == status, seen
    return seen.decode().replace("\r\n", "\n")


def widest(text: str) -> int:
    return max(len(line) for line in _COLOUR.sub("", text).split("\n"))


@pytest.mark.parametrize("columns", [80, 200])
def test_tables_fit_the_terminal(node: TestNode, columns: int) -> None:
    path = f"--redpath={node.path}"
    for argv in (["red-wrap", path, "--explain"], ["red-dnf", "red-list", path],
                 ["red-dnf", "red-repolist", path], ["red-dnf", "red-info", path]):
        text = on_terminal(node.actor, *argv, columns=columns)
        assert widest(text) <= columns, text


def add_file(node: TestNode, name: str) -> None:
    node.actor.check(["mkdir", "-p", node.path / "usr/share"])
    node.actor.check(["touch", node.path / "usr/share" / name])


@pytest.fixture
def broken(node: TestNode, pool: Path) -> TestNode:
    """The node, with a file of no package, and a child whose configuration is wrong."""
    add_file(node, "a file that nobody knows of, with a long name")
    child = pool / "node/some/directories/on/the/way/child"
    node.actor.check(["red-conf", "create", f"--redpath={child}", "--alias=child"])
    with (child / "etc/redpack.yaml").open("a") as config:
        config.write("colour: red\n")
    return node


def test_findings_and_trees_fit_the_terminal_too(broken: TestNode) -> None:
    check = ["red-check", f"--redpath={broken.path}"]
    text = on_terminal(broken.actor, *check, columns=60, status=1)
    # Words, such as the node's path, are never broken.
    fitting = [line for line in text.splitlines() if str(broken.path) not in line]
    assert len(fitting) > 6 and widest("\n".join(fitting)) <= 60, text
    tree = ["red-conf", "tree", f"--redroot={broken.path.parent}"]
    assert widest(on_terminal(broken.actor, *tree, columns=200)) > 80
    drawn = on_terminal(broken.actor, *tree, columns=200, COLUMNS="70")
    assert "..." in drawn.splitlines()[0] and widest(drawn.splitlines()[0]) <= 70, drawn


def test_tables_are_whole_in_a_pipe(node: TestNode) -> None:
    main = node.actor.environ["redpak_MAIN"]
    explained = node.actor.check(["red-wrap", f"--redpath={node.path}", "--explain"])
    assert f"{main}:" in explained and "..." not in re.sub(r"output of.*", "", explained)
    assert not _COLOUR.search(node.dnf("red-list"))
    assert not _COLOUR.search(node.actor.check(["red-conf", "tree", f"--redpath={node.path}"]))


def test_colours_are_for_terminals_and_for_those_who_want_them(node: TestNode) -> None:
    path = f"--redpath={node.path}"
    for argv in (["red-conf", "tree", path], ["red-dnf", "red-list", path]):
        assert _COLOUR.search(on_terminal(node.actor, *argv, columns=100)), argv
        assert not _COLOUR.search(on_terminal(node.actor, *argv, columns=100, NO_COLOR="1")), argv
    forced = on_terminal(node.actor, "red-dnf", "red-list", path, "--color=always", columns=100,
                         NO_COLOR="1")
    assert _COLOUR.search(forced)
    broken = f"{node.path}/etc/redpack.yaml"
    with open(broken, "a") as config:
        config.write("colour: red\n")
    for argv in (["red-conf", "validate", broken], ["red-check", path]):
        shown = on_terminal(node.actor, *argv, columns=100, status=1)
        assert "\x1b[31merror\x1b[0m: " in shown, shown
        for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            plain = on_terminal(node.actor, *argv, columns=100, status=1, **environ)
            assert not _COLOUR.search(plain) and "error: " in plain, plain
        assert not _COLOUR.search(node.actor.run(argv).stdout)


def test_a_transaction_shows_its_progress(node: TestNode) -> None:
    argv = ["red-dnf", "red-reinstall", f"--redpath={node.path}", "-y",
            "a-package-with-quite-a-long-name"]
    assert re.search(progress("Reinstalling"), on_terminal(node.actor, *argv, columns=100))
    assert "[==" not in node.actor.check(argv)


def test_quiet_says_only_what_was_asked_for(node: TestNode, pool: Path) -> None:
    path = f"--redpath={pool}/quiet"
    assert node.actor.check(["red-conf", "create", "-q", path, "--alias=quiet"]) == ""
    assert "the-node" in node.actor.check(["red-conf", "tree", "-q", f"--redpath={node.path}"])
    quiet = node.actor.run(["red-dnf", "-q", "red-manager", f"--redpath={node.path}",
                            "--state=Enable"])
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_a_check_says_as_much_as_is_wanted(node: TestNode) -> None:
    argv = ["red-check", f"--redpath={node.path}"]
    assert node.actor.check([*argv, "--quiet"]) == ""
    assert node.actor.check(argv) == "Proven: 1 node, 1 package\n"
    assert node.actor.check([*argv, "-v"]) == (
        f"the-node ({node.path}): 1 package, 0 findings\nProven: 1 node, 1 package\n")
    add_file(node, "unknown")
    done = node.actor.run([*argv, "-q"])
    assert done.returncode == 1 and "unknown" in done.stdout and "Not proven" not in done.stdout
    quiet = node.actor.run(["red-dnf", "-q", "red-check", f"--redpath={node.path}"])
    assert (quiet.returncode, quiet.stdout) == (1, done.stdout)


def test_verbose_trees_have_names(node: TestNode) -> None:
    text = node.actor.check(["red-conf", "tree", "--verbose", f"--redpath={node.path}"])
    assert re.search(r"^the-node .*\n +[0-9a-f-]{36}  ", text), text
