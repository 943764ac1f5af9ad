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


def on_terminal(actor: Actor, *argv: object, columns: int, **environ: str) -> str:
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
    assert process.wait() == 0, seen
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


def test_a_transaction_shows_its_progress(node: TestNode) -> None:
    argv = ["red-dnf", "red-reinstall", f"--redpath={node.path}", "-y",
            "a-package-with-quite-a-long-name"]
    assert re.search(r"Reinstalling +:.*\[=* *\]", on_terminal(node.actor, *argv, columns=100))
    assert "[==" not in node.actor.check(argv)


def test_quiet_says_only_what_was_asked_for(node: TestNode, pool: Path) -> None:
    path = f"--redpath={pool}/quiet"
    assert node.actor.check(["red-conf", "create", "-q", path, "--alias=quiet"]) == ""
    assert "the-node" in node.actor.check(["red-conf", "tree", "-q", f"--redpath={node.path}"])
    quiet = node.actor.run(["red-dnf", "-q", "red-manager", f"--redpath={node.path}",
                            "--state=Enable"])
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_verbose_trees_have_names(node: TestNode) -> None:
    text = node.actor.check(["red-conf", "tree", "--verbose", f"--redpath={node.path}"])
    assert re.search(r"^the-node .*\n +[0-9a-f-]{36}  ", text), text
