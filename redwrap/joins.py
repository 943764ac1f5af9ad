# SPDX-License-Identifier: Apache-2.0
"""Namespaces to join: what setns(2) would refuse, found before the launch.

bwrap joins user and pid namespaces itself and has no more to say than the kernel's error.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence

from redpak.errors import TYPE_CHECKING
from redsys import libc
from redwrap.errors import LaunchError
from redwrap.operations import Join, JoinByFd
from redwrap.plan import LaunchPlan

if TYPE_CHECKING:
    from typing import Union

    Joined = Union[Join, JoinByFd]

_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h


def check_joins(plan: LaunchPlan) -> None:
    """Try to join what the plan joins, in its order. Raises LaunchError."""
    first = [step for step in plan.operations if isinstance(step, Join)]
    by_bwrap = [step for step in plan.operations if isinstance(step, JoinByFd)]
    by_bwrap.sort(key=lambda step: step.namespace != "user")  # as bwrap does
    steps: list[Joined] = [*first, *by_bwrap]
    if not steps:
        return
    opened: list[int] = []
    try:
        for step in steps:
            opened.append(_open(step))
        refused = _try_all(steps, opened)
    finally:
        for fd in opened:
            os.close(fd)
    if refused is not None:
        raise _explain(*refused)


def _open(step: Joined) -> int:
    """The namespace, which must be of the kind that the key says."""
    try:
        fd = os.open(step.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise _error(step, f"cannot open the namespace {step.path}: {err.strerror}",
                     "check that its process still runs and is yours") from err
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != libc.NAMESPACE_FLAGS[step.namespace]:
        os.close(fd)
        name = next((name for name, flag in libc.NAMESPACE_FLAGS.items() if flag == kind), "")
        found = f"is a namespace of another kind ({name})" if name else "is not a namespace"
        raise _error(step, f"{step.path} {found}", f"name one as /proc/PID/ns/{step.namespace}")
    return fd


def _try_all(steps: Sequence[Joined], opened: Sequence[int]) -> tuple[Joined, int] | None:
    """In a child: join one after the other. The first that is refused, with errno."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        at = 0
        try:
            for step, fd in zip(steps, opened):
                libc.setns(fd, libc.NAMESPACE_FLAGS[step.namespace])
                at += 1
        except OSError as err:
            os.write(writer, f"{at} {err.errno}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().split()
    os.waitpid(pid, 0)
    return (steps[int(answer[0])], int(answer[1])) if answer else None


def _explain(step: Joined, code: int) -> LaunchError:
    what = f"cannot join {step.path}: {os.strerror(code)}"
    if step.namespace == "user":
        if code == errno.EINVAL:
            return _error(step, what, "it is the caller's own already, as share_user: enabled has "
                          "it")
        return _error(step, what, "only who made a user namespace, or root, can join it")
    if step.namespace == "pid":
        return _error(step, what, "share_user must name the user namespace that it was made in")
    return _error(step, what, f"only root can join a namespace of this kind ({step.namespace})")


def _error(step: Joined, message: str, hint: str) -> LaunchError:
    node = step.origin.node if step.origin is not None else ""
    return LaunchError(
        f"{step.origin}: config.share_{step.namespace}: {message} (node {node})", hint=hint)
