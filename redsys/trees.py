# SPDX-License-Identifier: Apache-2.0
"""Removing trees. Imports next to nothing: the supervisor of a transaction needs it."""

from __future__ import annotations

import os
import stat

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str, *, dir_fd: int | None = None) -> None:
    """rm -rf ``path``, over directories without permissions too; nothing when it is not there.

    Symbolic links are removed, never followed. overlayfs leaves its work directory with mode 000
    (design section 8), and a package may ship a directory that its owner cannot write.
    Raises OSError.
    """
    try:
        info = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(path, dir_fd=dir_fd)
        return
    if info.st_mode & 0o700 != 0o700:
        os.chmod(path, 0o700, dir_fd=dir_fd)
    directory = os.open(path, _FLAGS, dir_fd=dir_fd)
    try:
        with os.scandir(directory) as found:
            entries = list(found)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.name, dir_fd=directory)
            else:
                os.unlink(entry.name, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(path, dir_fd=dir_fd)
