# SPDX-License-Identifier: Apache-2.0
"""Root works on a user's node as that user (design section 3.2)."""

from __future__ import annotations

import os
import pwd
import sys

from redpak.errors import RedpakError


def become_owner(path: str, uid: int) -> None:
    """When root is about to change a node of user ``uid``, start this command again as that user.

    A new program image leaves nothing of root's behind: no memory, no open file, no group.
    Raises RedpakError when the user does not exist or the program cannot be started.
    """
    if os.geteuid() != 0 or uid == 0:
        return
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        raise RedpakError(
            f"{path}: belongs to user number {uid}, who is not known here",
            hint="give the node to an existing user",
        ) from None
    with open("/proc/self/cmdline", "rb") as stream:
        argv = [os.fsdecode(word) for word in stream.read().split(b"\0")[:-1]]
    environment = dict(os.environ)
    environment.update(
        HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name, SHELL=account.pw_shell
    )
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(uid, uid, uid)
        os.execve(sys.executable, [sys.executable, *argv[1:]], environment)
    except OSError as err:
        raise RedpakError(f"{path}: cannot become its owner {account.pw_name}: {err}") from err
