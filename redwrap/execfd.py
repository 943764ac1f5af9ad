# SPDX-License-Identifier: Apache-2.0
"""Run the shell commands of a configuration, all at once.

This is the one place where redpak runs a shell (style rule 5): the text of an Execfd command is
handed over as it stands, and the names it may use reach it as environment variables, so no value
can inject a command.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Mapping, Sequence
from typing import Optional

from redpak.errors import RedpakError
from redwrap.operations import Command

SHELL = "/bin/sh"
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
LIMIT = 16 << 20  # bytes a command may write: a runaway must not fill the memory


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


def run_commands(commands: Sequence[Command], environ: Mapping[str, str], *,
                 unsafe: bool = False) -> list[bytes]:
    """What each of `commands` writes to stdout, in order; they run in parallel.

    Raises RedpakError, naming the line that asked for it, when one of them fails or may not run.
    """
    runners = [find_runner(command, unsafe=unsafe) for command in commands]
    started: list[tuple[Command, int, int]] = []
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    os.chdir("/")
    try:
        for command, runner in zip(commands, runners):
            # A file, not a pipe: a command that writes much must not wait for us to read.
            output = os.memfd_create("red-wrap", os.MFD_CLOEXEC)
            names = {**environ, **command.names}
            started.append((command, _start(command.text, names, nothing, output, runner), output))
        return [_collect(command, pid, output) for command, pid, output in started]
    finally:
        os.fchdir(here)
        for fd in (nothing, here, *(output for _, _, output in started)):
            os.close(fd)


def _start(text: str, environ: Mapping[str, str], stdin: int, stdout: int,
           runner: Optional[tuple[int, int]]) -> int:
    """Start the shell; its pid. (subprocess costs 5 ms to import.)"""
    argv = [SHELL, "-c", text]
    if runner is None:
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        return os.posix_spawn(SHELL, argv, environ, file_actions=actions,
                              setsigdef=_IGNORED_BY_PYTHON)
    pid = os.fork()
    if pid == 0:
        try:
            for number in _IGNORED_BY_PYTHON:
                signal.signal(number, signal.SIG_DFL)
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.setgroups([])
            os.setresgid(runner[1], runner[1], runner[1])
            os.setresuid(runner[0], runner[0], runner[0])
            os.execve(SHELL, argv, environ)
        finally:
            os._exit(127)
    return pid


def _collect(command: Command, pid: int, output: int) -> bytes:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
        raise RedpakError(
            f"{command.origin}: {command.what} (node {command.origin.node}): "
            f"the command {how}: {command.text}",
            hint="run it in a shell to see why")
    size = os.fstat(output).st_size
    if size > LIMIT:
        raise RedpakError(
            f"{command.origin}: {command.what} (node {command.origin.node}): the command wrote "
            f"more than {LIMIT >> 20} MiB: {command.text}", hint="bind a file instead")
    return os.pread(output, size, 0)


def memory_file(data: bytes, name: str) -> int:
    """A descriptor of an anonymous file that holds `data`, read from its start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as stream:
        stream.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
