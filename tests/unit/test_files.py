# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced whole, and what a user asks to have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from redpak.errors import RedpakError
from redpak.files import write_output


def test_a_file_is_made_or_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "report"
    write_output(str(place), b"one")
    with place.open() as held:
        write_output(str(place), b"two")
        assert (held.read(), place.read_bytes()) == ("one", b"two")
    assert os.listdir(tmp_path) == ["report"]


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    # A pipe stands for devices: root's tests must not be able to lose /dev/null.
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for place in (pipe, link):
        write_output(str(place), b"through a pipe")
        assert os.read(reader, 100) == b"through a pipe"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.readlink(link) == str(pipe)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("report-2")
    write_output(str(tmp_path / "latest"), b"new")
    assert (tmp_path / "report-2").read_bytes() == b"new"
    assert os.readlink(tmp_path / "latest") == "report-2"


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RedpakError, match=f"^{tmp_path}: cannot write: Is a directory$"):
        write_output(str(tmp_path), b"")
    with pytest.raises(RedpakError, match=r"none/report: cannot write: No such file or directory$"):
        write_output(str(tmp_path / "none/report"), b"")
