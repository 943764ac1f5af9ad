# SPDX-License-Identifier: Apache-2.0
"""Hand a plan to the launcher, which carries it out and becomes bwrap."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence

from redpak.errors import TYPE_CHECKING
from redsys.lock import NodeLock
from redwrap.cgroups import enter_control_groups
from redwrap.errors import LaunchError
from redwrap.operations import ControlGroups, Data
from redwrap.plan import LaunchPlan

if TYPE_CHECKING:
    from typing import NoReturn, Optional

LAUNCHER = "red-wrap"


def execute(plan: LaunchPlan, records: bytes, command: Sequence[str], environ: Mapping[str, str],
            *, lock: NodeLock, launcher: Optional[str]) -> NoReturn:
    """Become the application. `records` is the plan as redwrap.encode writes it; `launcher` the
    program that called us. Raises LaunchError."""
    above = 3
    for step in plan.operations:
        if isinstance(step, ControlGroups):
            enter_control_groups(step)
        if isinstance(step, Data) and step.command is None:
            check_descriptor(step)
            above = max(above, step.fd + 1)
    file = os.memfd_create("red-wrap", 0)
    with open(file, "wb", closefd=False) as stream:
        stream.write(records)
    os.lseek(file, 0, os.SEEK_SET)
    # The launcher holds the lock until exec of bwrap closes it. Neither must have a number by which
    # the caller hands over something.
    lock.fd = fcntl.fcntl(lock.fd, fcntl.F_DUPFD, above)
    file = fcntl.fcntl(file, fcntl.F_DUPFD, above)
    path = launcher or find_launcher()
    try:
        os.execve(path, [LAUNCHER, f"--execute={file}", *command], environ)
    except OSError as err:
        raise LaunchError(f"{path}: {err.strerror}", hint="install redpak again") from err


def find_launcher() -> str:
    """The launcher, for somebody who starts the Python half directly: beside the command, or in a
    checkout where it was made."""
    here = os.path.dirname(os.path.abspath(__file__))
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), LAUNCHER)
    return beside if os.path.exists(beside) else os.path.join(here, "launcher", LAUNCHER)


def check_descriptor(step: Data) -> None:
    """Raise LaunchError unless the caller handed over what an Internal export names; what we opened
    ourselves does not cross exec, and so is not meant."""
    try:
        if os.get_inheritable(step.fd):
            return
    except OSError:
        pass
    raise LaunchError(f"{step.origin}: mount {step.mount}: file descriptor {step.fd} is not open",
                      hint=f"start red-wrap with {step.fd}<FILE")
