# SPDX-License-Identifier: Apache-2.0
"""Carry out a checked plan: everything in its place, then become bwrap.

What few plans need is imported where it is needed: ctypes alone costs 3 ms.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from itertools import count
from typing import NoReturn

from redsys.lock import NodeLock
from redwrap.cgroups import enter_control_groups
from redwrap.errors import LaunchError
from redwrap.execfd import memory_file
from redwrap.mounts import SplitPlan, split_plan, wants_mounter
from redwrap.operations import (
    Command,
    ControlGroups,
    Data,
    JoinByFd,
    Seccomp,
    SetVariable,
    Umask,
)
from redwrap.plan import FIRST_FD, RESTORE_SIGNALS, LaunchPlan


def execute(plan: LaunchPlan, command: Sequence[str], environ: Mapping[str, str],
            lock: NodeLock, outputs: Sequence[bytes]) -> NoReturn:
    """Become bwrap. Raises LaunchError when that fails."""
    split = split_plan(plan) if wants_mounter(plan) else None
    contents: dict[int, bytes] = {}  # by the descriptor number that the plan gives
    handed: dict[int, int] = {}  # our descriptors, by the number that the plan gives
    values = gather(plan, outputs, contents, handed)
    words = [word for step in (plan if split is None else split).operations
             for word in values.get(id(step), step.arguments())]
    # Through a descriptor: neither the length of the command line nor ps sees them.
    arguments = next(fd for fd in count(FIRST_FD) if fd not in contents and fd not in handed)
    contents[arguments] = b"".join(os.fsencode(word) + b"\0" for word in words)
    place_descriptors(contents, handed, lock)
    mark = -1 if split is None else mount_tree(split)
    if plan.needs_python:
        # Last: another user may no longer do what is done above.
        from redwrap.process import apply_step
        for step in plan.operations:
            apply_step(step)
    words = [*leave_signals_to_application(plan, command), *command]
    try:
        os.execve(plan.bwrap, [plan.bwrap, *([] if mark < 0 else ["--sync-fd", str(mark)]),
                               "--args", str(arguments), "--", *words], environ)
    except OSError as err:
        raise LaunchError(f"{plan.bwrap}: {err.strerror}",
                          hint="name another with --bwrap=PATH") from err


def leave_signals_to_application(plan: LaunchPlan, command: Sequence[str]) -> list[str]:
    """Set our dispositions for exec; what the command must be started with.

    On a terminal, Ctrl-C and Ctrl-\\ go to bwrap too, and it would die of them while the
    application handles them. So bwrap ignores them, and env(1) in the namespace undoes that.
    """
    # Python ignores these two; the application must not.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    terminal = any(os.isatty(fd) for fd in (0, 1, 2))
    if ignored or not terminal or not plan.signal_tool or "=" in command[0]:
        return []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    return [plan.signal_tool, *RESTORE_SIGNALS]


def mount_tree(split: SplitPlan) -> int:
    """Make the mounts ourselves; the descriptor that bwrap must keep open, or -1. Raises
    LaunchError naming the line that asked for the one that fails."""
    from redwrap import mounter
    try:
        return mounter.make_mounts(split.steps, split.base)
    except OSError as err:
        raise LaunchError(str(err.strerror), hint="look at red-wrap --explain") from err


def gather(plan: LaunchPlan, outputs: Sequence[bytes], contents: dict[int, bytes],
           handed: dict[int, int]) -> dict[int, tuple[str, ...]]:
    """Everything that the plan's steps need: fills `contents` and `handed`, sets the umask, enters
    the control groups. The result is the bwrap options of steps whose text was not complete, by
    their id()."""
    left = iter(outputs)
    values: dict[int, tuple[str, ...]] = {}
    for step in plan.operations:
        if isinstance(step, Umask):
            os.umask(step.mask)
        elif isinstance(step, SetVariable) and step.command is not None:
            value = os.fsdecode(cut_value(next(left), step.command))
            values[id(step)] = ("--setenv", step.key, value)
        elif isinstance(step, Data) and step.command is not None:
            contents[step.fd] = next(left)
        elif isinstance(step, Data):
            handed[step.fd] = open_descriptor(step)
        elif isinstance(step, Seccomp):
            from redwrap.seccomp import load_profile
            contents[step.fd] = load_profile(step.profile, step.origin)
        elif isinstance(step, JoinByFd):
            from redwrap.process import open_namespace
            handed[step.fd] = open_namespace(step.namespace, step.path, step.origin)
        elif isinstance(step, ControlGroups):
            enter_control_groups(step)
    return values


def cut_value(output: bytes, command: Command) -> bytes:
    """The output of a command as the value of a variable: one trailing newline is cut."""
    value = output[:-1] if output.endswith(b"\n") else output
    if b"\0" in value:
        raise LaunchError(f"{command.origin}: {command.what}: the output of the command has a NUL "
                          f"byte: {command.text}", hint="correct the command")
    return value


def open_descriptor(step: Data) -> int:
    try:
        os.fstat(step.fd)
    except OSError as err:
        raise LaunchError(f"{step.origin}: mount {step.mount}: file descriptor {step.fd} is not "
                          f"open", hint=f"start red-wrap with {step.fd}<FILE") from err
    return step.fd


def place_descriptors(contents: Mapping[int, bytes], handed: Mapping[int, int],
                      lock: NodeLock) -> None:
    """Put the `contents` and the descriptors `handed` under the numbers that bwrap expects.

    Nothing but them and the standard ones survives exec: a descriptor left over would be a way out
    of the namespace.
    """
    above = max((*contents, *handed)) + 1
    # What we hold may have one of the numbers that are needed: copies above them are safe.
    lock.fd = fcntl.fcntl(lock.fd, fcntl.F_DUPFD_CLOEXEC, above)
    sources = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
               for number, fd in handed.items()}
    for number, data in contents.items():
        fd = memory_file(data, "red-wrap")
        sources[number] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
        os.close(fd)
    for number, fd in sources.items():
        os.dup2(fd, number, inheritable=True)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            os.set_inheritable(number, number <= 2 or number in sources)
        except OSError:
            continue  # the descriptor that listed the directory
