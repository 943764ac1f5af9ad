# SPDX-License-Identifier: Apache-2.0
"""What red-wrap changes in its own process before it becomes bwrap."""

from __future__ import annotations

import ctypes
import os
import pwd
from typing import Optional

from redpak.findings import Origin
from redsys import libc
from redwrap.errors import LaunchError
from redwrap.operations import Join, NewTime, Operation, RunAs, SmackLabel

CLONE_NEWTIME = 0x00000080  # time_namespaces(7), Linux 5.6
_SMACK_FILES = ("/proc/self/attr/smack/current", "/proc/self/attr/current")
_SMACK_MOUNT = "/sys/fs/smackfs"


def _refuse(origin: Optional[Origin], message: str, hint: str) -> LaunchError:
    where = f"{origin}: " if origin is not None else ""
    node = f" (node {origin.node})" if origin is not None else ""
    return LaunchError(f"{where}{message}{node}", hint=hint)


def apply_step(step: Operation) -> None:
    """Do one step that concerns this process; other steps are left alone. Raises LaunchError."""
    if isinstance(step, Join):
        _join(step)
    elif isinstance(step, NewTime):
        _unshare_time(step)
    elif isinstance(step, SmackLabel):
        _set_smack_label(step)
    elif isinstance(step, RunAs):
        _run_as(step)


def open_namespace(namespace: str, path: str, origin: Optional[Origin]) -> int:
    """A descriptor of the namespace file at `path`. Raises LaunchError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise _refuse(origin, f"config.share_{namespace}: cannot open the namespace {path}: "
                      f"{err.strerror}", "check that its process still runs and is yours") from err


def _join(step: Join) -> None:
    fd = open_namespace(step.namespace, step.path, step.origin)
    # nstype 0: any kind; the kernel says EINVAL for what is no namespace (setns(2)).
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0) < 0:
        reason = os.strerror(ctypes.get_errno())
        raise _refuse(step.origin, f"config.share_{step.namespace}: cannot join {step.path}: "
                      f"{reason}", "only root can join a namespace that root made")
    os.close(fd)


def _unshare_time(step: NewTime) -> None:
    uid, gid = os.getuid(), os.getgid()
    try:
        if uid == 0:
            libc.unshare(CLONE_NEWTIME)
            return
        libc.unshare(libc.CLONE_NEWUSER | CLONE_NEWTIME)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                           ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
                stream.write(text)
    except OSError as err:
        raise _refuse(step.origin, f"config.share_time: no time namespace: {err.strerror}",
                      "say share_time: enabled on this kernel") from err


def _set_smack_label(step: SmackLabel) -> None:
    if not os.path.ismount(_SMACK_MOUNT):
        raise _refuse(step.origin, f"config.smack: cannot set the label {step.label}: SMACK is not "
                      "active on this kernel", "take the tag out, or boot with security=smack")
    path = next(path for path in _SMACK_FILES if os.path.exists(path))
    try:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(step.label)
    except OSError as err:
        raise _refuse(step.origin, f"config.smack: cannot set the label {step.label}: "
                      f"{err.strerror}", "it takes CAP_MAC_ADMIN or a rule for it") from err


def _run_as(step: RunAs) -> None:
    try:
        name = pwd.getpwuid(step.uid).pw_name
        groups = os.getgrouplist(name, step.gid)
    except KeyError:
        groups = [step.gid]
    try:
        os.setgroups(groups)
        os.setresgid(step.gid, step.gid, step.gid)
        os.setresuid(step.uid, step.uid, step.uid)
    except OSError as err:
        raise _refuse(step.origin, f"config.set-user: cannot become uid {step.uid}: "
                      f"{err.strerror}", "run red-wrap as root") from err
