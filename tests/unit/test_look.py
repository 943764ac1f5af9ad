# SPDX-License-Identifier: Apache-2.0
"""redpak.terminal: what a terminal gets, and a pipe does not."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
import time
from typing import Iterator, TextIO

import pytest

from redpak.terminal import RED, Look, Progress, look_of


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, TextIO]]:
    """The two ends of a terminal of 30 columns, in which colours are welcome."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 30, 0, 0))
    with os.fdopen(there, "w") as stream:
        yield here, stream
    os.close(here)


def test_colours_are_for_terminals(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look_of(io.StringIO()) == Look()
    assert look_of(terminal[1]) == Look(True, 30)
    monkeypatch.setenv("NO_COLOR", "")  # an empty one counts as none
    assert look_of(terminal[1]).colour
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        assert look_of(terminal[1]) == Look(False, 30)


def test_words_are_never_broken() -> None:
    text = "the file /a/very/long/path/that/does/not/fit is not known"
    assert Look(columns=30).fill(text, "  ").split("\n") == [
        "  the file", "    /a/very/long/path/that/does/not/fit", "    is not known"]
    assert Look().fill(text, "  ") == f"  {text}"


def test_the_end_of_a_path_is_what_is_kept() -> None:
    assert Look(columns=40).cut("/var/lib/nodes/core/child", 20, least=5) == ".../nodes/core/child"
    assert Look(columns=40).cut("/short", 30) == "/short"
    assert Look().cut("/var/lib/nodes/core/child", 100) == "/var/lib/nodes/core/child"
    assert Look(colour=True).paint("no", RED) == "\x1b[31mno\x1b[0m"


def read_all(terminal: int) -> str:
    os.set_blocking(terminal, False)
    try:
        return os.read(terminal, 65536).decode()
    except BlockingIOError:
        return ""


def test_progress_is_shown_after_a_while_and_then_removed(terminal: tuple[int, TextIO]) -> None:
    here, stream = terminal
    with Progress(stream) as progress:
        progress.show(0, 9, "soon done")
        assert read_all(here) == ""
        time.sleep(0.35)
        progress.show(1, 9, "a thing with a name that does not fit")
        assert read_all(here) == "\r\x1b[K[1/9] a thing with a name tha"
    assert read_all(here) == "\r\x1b[K"


def test_progress_is_for_those_who_look(terminal: tuple[int, TextIO]) -> None:
    here, stream = terminal
    pipe = io.StringIO()
    with Progress(stream, quiet=True) as quiet, Progress(pipe) as piped:
        time.sleep(0.35)
        quiet.show(1, 9, "a thing")
        piped.show(1, 9, "a thing")
    assert read_all(here) == "" and pipe.getvalue() == ""
