# SPDX-License-Identifier: Apache-2.0
"""Taking back what a command did before it failed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from types import TracebackType

from redpak.errors import RedpakError
from redpak.files import write_file_atomic


class Undo:
    """What a command has done to small files and to directories, until it is over.

    A ``with`` block that ends in an exception takes all of it back; one Undo may serve several.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, os.stat_result] | None] = {}
        self._directories: list[str] = []

    def keep(self, paths: Iterable[str]) -> None:
        """Remember the files at ``paths``, or that there is none. Raises RedpakError."""
        for path in paths:
            if path not in self._files:
                self._files[path] = _read_file(path)

    def make_directory(self, path: str) -> None:
        """Make a directory and what is missing above it. Raises OSError."""
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for directory in reversed(missing):
            os.mkdir(directory, 0o755)
            self._directories.append(directory)

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if error is None:
            return
        failures = []
        for path, old in self._files.items():
            try:
                _restore_file(path, old)
            except RedpakError as err:  # the others all the same
                failures.append(err)
        for directory in reversed(self._directories):
            shutil.rmtree(directory, ignore_errors=True)
        self._files.clear()
        self._directories.clear()
        if failures:
            raise failures[0]


def _read_file(path: str) -> tuple[bytes, os.stat_result] | None:
    try:
        with open(path, "rb") as stream:
            return stream.read(), os.fstat(stream.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise RedpakError(f"{path}: cannot read: {err.strerror}") from err


def _restore_file(path: str, old: tuple[bytes, os.stat_result] | None) -> None:
    now = _read_file(path)
    if _identity(now) == _identity(old):
        return
    try:
        if old is None:
            os.unlink(path)
            return
        content, info = old
        write_file_atomic(path, content, info.st_mode & 0o7777)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    except OSError as err:
        raise RedpakError(f"{path}: cannot be put back as it was: {err.strerror}") from err


def _identity(file: tuple[bytes, os.stat_result] | None) -> tuple[int, int, int] | None:
    return file and (file[1].st_dev, file[1].st_ino, file[1].st_ctime_ns)
