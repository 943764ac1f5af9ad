# SPDX-License-Identifier: Apache-2.0
"""Whose node it is: root works on a user's node, and runs applications in it, as that user.

Imports next to nothing: red-wrap loads it.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Mapping, Sequence

from redpak.errors import TYPE_CHECKING, RedpakError

if TYPE_CHECKING:
    from typing import Callable, Optional

# What crosses from root to the user: how to find the node and to talk to people and proxies.
_KEPT = ("PATH", "LANG", "LANGUAGE", "TERM", "COLUMNS", "LINES", "NO_COLOR", "TZ", "REDPATH",
         "XDG_CONFIG_HOME")  # fmt: skip
_KEPT_PREFIXES = ("LC_", "redpak_", "REDPAK_", "LIBDNF_")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


def become_owner(path: str, uid: int, *, argv: Optional[Sequence[str]] = None,
                 environ: Optional[Mapping[str, str]] = None) -> None:
    """When root is about to work on a node of user ``uid``, start this command again as that user.

    A new program image leaves nothing of root's behind: no memory, no open file but 0 to 2, no
    group, no variable that is not needed; and a filter keeps the user, who may trace the new
    process, from typing into root's terminal with it. ``argv`` is another command, which gets all
    of ``environ``. Raises RedpakError when the user does not exist or the program cannot be
    started.
    """
    if os.geteuid() != 0 or uid == 0:
        return
    from redsys import seccomp
    from redsys.run import command_line
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        raise RedpakError(
            f"{path}: belongs to user number {uid}, who is not known here",
            hint="give the node to an existing user",
        ) from None
    if argv is None:
        argv = [_this_program(), *command_line()[1:]]
    kept = _needed_variables() if environ is None else dict(environ)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        seccomp.install_terminal_filter()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        _drop_privileges(account)
        os.execve(argv[0], list(argv), {**kept, **_account_variables(account)})
    except OSError as err:
        raise RedpakError(f"{path}: cannot become its owner {account.pw_name}: {err}") from err


def _this_program() -> str:
    """What this process runs: Python, by the name of its environment, or what Python is part of."""
    running = os.readlink("/proc/self/exe")
    if sys.executable and os.path.realpath(sys.executable) == running:
        return sys.executable
    return running


def run_as_owner(uid: int, action: Callable[[], object]) -> None:
    """Do ``action`` as user ``uid``, in a process of its own when we are root and he is not.

    Raises what ``action`` raises, as RedpakError.
    """
    if os.geteuid() != 0 or uid == 0:
        action()
        return
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            _drop_privileges(pwd.getpwuid(uid))
            action()
        except (RedpakError, OSError, KeyError) as err:
            os.write(writer, str(err).encode(errors="replace"))
            status = 1
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        message = stream.read().decode(errors="replace")
    os.waitpid(pid, 0)
    if message:
        raise RedpakError(message)


def check_path(path: str, owner: int) -> None:
    """Nobody but root and ``owner`` may exchange a directory on the way while root works there, nor
    what is in root's own node.

    Raises RedpakError. Only root needs it: others can do no harm but to themselves.
    """
    if os.geteuid() != 0:
        return
    if owner == 0 and _may_be_exchanged(os.stat(path)):
        raise RedpakError(
            f"{path}: can be changed by others than root", hint="give it the mode 0755"
        )
    directory = path
    while directory != "/":
        directory = os.path.dirname(directory)
        info = os.stat(directory)
        if info.st_uid not in (0, owner) or _may_be_exchanged(info):
            raise RedpakError(
                f"{path}: {directory} on the way can be changed by others than root",
                hint="move the node, or give that directory to root with mode 0755",
            )


def _may_be_exchanged(info: os.stat_result) -> bool:
    """Whether others can rename what is in a directory."""
    return bool(info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX)


def _drop_privileges(account: pwd.struct_passwd) -> None:
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)


def _needed_variables() -> dict[str, str]:
    return {
        key: value
        for key, value in os.environ.items()
        if key in _KEPT or key.startswith(_KEPT_PREFIXES) or key.lower() in _PROXIES
    }


def _account_variables(account: pwd.struct_passwd) -> dict[str, str]:
    return {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name,
            "SHELL": account.pw_shell}
