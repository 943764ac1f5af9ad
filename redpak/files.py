# SPDX-License-Identifier: Apache-2.0
"""State files are replaced whole: whoever reads one sees the old content or the new, never half."""

from __future__ import annotations

import os

from redpak.errors import RedpakError


def write_file_atomic(path: str, data: bytes, mode: int = 0o644) -> None:
    """Replace the file at `path`: temporary file beside it, fsync, rename, fsync of the directory.

    `mode` is exact, whatever the umask. Raises OSError; then the old file is untouched.
    """
    directory = os.path.dirname(path) or "."
    temporary = f"{path}.{os.getpid()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o600)
    except FileExistsError:  # left by a killed process of the same number
        os.unlink(temporary)
        descriptor = os.open(temporary, flags, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(directory)


def write_output(path: str, data: bytes) -> None:
    """Write what a user asked to have at `path`. A file is replaced whole; a device or a pipe is
    written to, and so is what a symbolic link leads to. Raises RedpakError."""
    try:
        if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):
            # By the kernel, which does not let root follow every link: proc(5), protected_symlinks.
            with open(path, "wb") as stream:
                stream.write(data)
        else:
            write_file_atomic(path, data)
    except OSError as error:
        raise RedpakError(f"{path}: cannot write: {error.strerror}") from error


def sync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
