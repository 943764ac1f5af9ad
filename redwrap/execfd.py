# SPDX-License-Identifier: Apache-2.0
"""Who may run the shell commands of a configuration; the launcher runs them (commands.c)."""

from __future__ import annotations

import os
import stat

from redpak.errors import TYPE_CHECKING, RedpakError
from redwrap.operations import Command

if TYPE_CHECKING:
    from typing import Optional


def find_runner(command: Command, *, unsafe: bool = False) -> Optional[tuple[int, int]]:
    """The (uid, gid) to run `command` as, None for the caller's own.

    A command runs with no more rights than the owner of the file it stands in has: root's and the
    caller's own run as the caller; root runs another user's as that user. Raises RedpakError for
    any other, and for a file that anybody may write, unless `unsafe`.
    """
    file, caller = command.origin.file, os.geteuid()
    try:
        status = os.stat(file)
    except OSError as err:
        raise RedpakError(f"{file}: {err.strerror}", hint="try again") from err
    reason = ""
    if status.st_mode & stat.S_IWOTH:
        reason = "anybody may write that file"
    elif status.st_uid not in (0, caller) and caller != 0:
        reason = f"that file belongs to uid {status.st_uid}, neither to you nor to root"
    if reason and not unsafe:
        raise RedpakError(
            f"{command.origin}: {command.what} (node {command.origin.node}): the command is not "
            f"run: {reason}", hint="correct its owner and mode")
    return (status.st_uid, status.st_gid) if caller == 0 and status.st_uid != 0 else None
