# SPDX-License-Identifier: Apache-2.0
"""red-wrap in a terminal behaves as if the command ran directly, and leaves nobody resident."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from support.wrapping import Ground


@pytest.fixture
def node(ground: Ground) -> Path:
    return ground.node("core")


class Terminal:
    """A pseudo terminal with `argv` as its session leader, as the ground's actor."""

    def __init__(self, ground: Ground, *argv: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            actor = ground.actor
            if os.geteuid() != actor.uid:
                os.setgroups([])
                os.setgid(actor.gid)
                os.setuid(actor.uid)
            os.chdir("/")
            os.execve(argv[0], argv, dict(actor.environ))
        self.seen = ""

    def expect(self, text: str, *, seconds: float = 20) -> None:
        """Wait until the terminal shows `text`."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 65536).decode()
                except OSError:
                    break
        assert text in self.seen, self.seen
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def launch(ground: Ground, node: Path, *words: str) -> Terminal:
    return Terminal(ground, str(ground.command), f"--redpath={node}", *words)


def test_the_application_has_the_terminal(ground: Ground, node: Path) -> None:
    terminal = launch(ground, node, "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo yes")
    terminal.expect("yes")
    assert terminal.status() == 0


def test_control_c_reaches_the_application(ground: Ground, node: Path) -> None:
    ground.settle()
    for _ in range(2):
        terminal = launch(ground, node, "sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; "
                          "while :; do sleep 0.1; done")
        terminal.expect("ready")
        terminal.type("\x03")
        terminal.expect("caught")
        assert terminal.status() == 3


def test_control_c_ends_an_application_that_does_not_care(ground: Ground, node: Path) -> None:
    ground.settle()
    for key, status in (("\x03", 130), ("\x1c", 131), ("\x03", 130)):
        terminal = launch(ground, node, "sh", "-c", "ulimit -c 0; echo ready; exec sleep 100")
        terminal.expect("ready")
        time.sleep(0.2)
        terminal.type(key)
        assert terminal.status() == status


def test_the_window_size_is_seen_and_its_change_signalled(ground: Ground, node: Path) -> None:
    terminal = launch(ground, node, "python3", "-c",
                      "import os, signal\n"
                      "def show(*_):\n"
                      " os.write(1, str(os.get_terminal_size()).encode())\n"
                      " os._exit(0)\n"
                      "signal.signal(signal.SIGWINCH, show)\n"
                      "os.write(1, b'ready')\n"
                      "while True: signal.pause()")
    terminal.expect("ready")
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    terminal.expect("columns=77, lines=33")
    assert terminal.status() == 0


def test_control_z_stops_it_and_fg_goes_on(ground: Ground, node: Path) -> None:
    shell = Terminal(ground, "/bin/bash", "--norc", "--noprofile", "-i")
    script = 'echo rea""dy; read line; echo got $line'
    shell.type(f"{ground.command} --redpath={node} sh -c '{script}'\n")
    shell.expect("ready\r\n")
    shell.type("\x1a")
    shell.expect("Stopped")
    time.sleep(0.5)  # bash throws away what is typed before its prompt
    shell.type("fg\n")
    shell.expect("fg\r\n")
    time.sleep(0.2)
    shell.type("hello\n")
    shell.expect("got hello")
    time.sleep(0.5)
    shell.type("exit 5\n")
    assert shell.status() == 5


def test_a_new_session_has_no_terminal_to_type_into(ground: Ground) -> None:
    node = ground.node("core", config=["new-session: true"])
    terminal = launch(ground, node, "sh", "-c", "echo x >/dev/tty && echo open || echo closed")
    terminal.expect("closed")
    assert terminal.status() == 0


def test_nobody_of_ours_stays_beside_bubblewrap(ground: Ground, node: Path) -> None:
    for _ in range(2):
        ground.settle()
        process = ground.actor.popen(
            [ground.command, f"--redpath={node}", "sh", "-c", "echo ready; read line"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == "ready\n"
        names, pending = [], [process.pid]
        while pending:
            pid = pending.pop()
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
            pending += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        process.communicate("\n")
        assert names == ["bwrap", "bwrap", "sh"]


def test_a_broken_pipe_ends_the_application_as_usual(ground: Ground, node: Path) -> None:
    done = ground.actor.run(["bash", "-c", f"{ground.command} --redpath={node} seq 1 1000000 | "
                             "head -1; echo ${PIPESTATUS[0]}"])
    assert done.stdout == "1\n141\n"
