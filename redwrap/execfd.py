# SPDX-License-Identifier: Apache-2.0
"""Who may run the shell commands of a configuration; the launcher runs them (commands.c)."""

from __future__ import annotations

import os
import stat

from redpak.effective import EffectiveConfig
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
    caller = os.geteuid()
    status, reason = _look_at(command.origin.file)
    if reason and not unsafe:
        raise RedpakError(
            f"{command.origin}: {command.what} (node {command.origin.node}): the command is not "
            f"run: {reason}", hint="correct its owner and mode")
    return (status.st_uid, status.st_gid) if caller == 0 and status.st_uid != 0 else None


def is_told_unsafe(config: EffectiveConfig) -> bool:
    """Whether the tag `unsafe` says so, in a file whose commands would be run without it: nobody
    else may say it in his own."""
    known = config.provenance.get("unsafe")
    return bool(config.tags.unsafe) and known is not None and not _look_at(known.origin.file)[1]


def _look_at(file: str) -> tuple[os.stat_result, str]:
    """The status of a configuration file, and "" or why commands in it are not run."""
    try:
        status = os.stat(file)
    except OSError as err:
        raise RedpakError(f"{file}: {err.strerror}", hint="try again") from err
    if status.st_mode & stat.S_IWOTH:
        return status, "anybody may write that file"
    if status.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        return status, f"that file belongs to uid {status.st_uid}, neither to you nor to root"
    return status, ""
