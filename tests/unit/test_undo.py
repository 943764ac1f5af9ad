# SPDX-License-Identifier: Apache-2.0
"""What a command did before it failed is taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from redpak.errors import RedpakError
from redpak.files import write_file_atomic
from redpak.undo import Undo


def test_files_and_directories_are_as_they_were(tmp_path: Path) -> None:
    old, new, made = tmp_path / "old", tmp_path / "new", tmp_path / "a/b"
    old.write_text("old")
    old.chmod(0o600)
    before = old.stat()
    with pytest.raises(ValueError), Undo() as undo:
        undo.keep([str(old), str(new)])
        undo.make_directory(str(made))
        for path in (old, new, made / "file"):
            write_file_atomic(str(path), b"changed")
        raise ValueError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
    after = old.stat()
    assert old.read_text() == "old"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_success_keeps_what_was_done(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with Undo() as undo:
        undo.keep([str(file)])
        write_file_atomic(str(file), b"new")
    assert file.read_text() == "new"


def test_what_cannot_be_put_back_is_named_and_the_rest_is_put_back(tmp_path: Path) -> None:
    lost, kept = tmp_path / "gone/lost", tmp_path / "kept"
    lost.parent.mkdir()
    for path in (lost, kept):
        path.write_text("old")
    with pytest.raises(RedpakError, match="lost: cannot be put back as it was"), Undo() as undo:
        undo.keep([str(lost), str(kept)])
        kept.write_text("new")
        lost.unlink()
        lost.parent.rmdir()
        raise ValueError
    assert kept.read_text() == "old"
