# SPDX-License-Identifier: Apache-2.0
"""fork into private mount, pid, ipc and uts namespaces (and a user namespace without root)."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Collection

from redpak.errors import RedpakError
from redsys import libc

_NO_USER_NAMESPACE = (
    "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone,"
    " apparmor_restrict_unprivileged_userns), or run as root"
)
_READY = "ready"


def fork_contained(*, user_namespace: bool) -> int:
    """Like os.fork(), but the child is in namespaces of its own and never outlives its parent.

    The child, to which 0 is returned, is pid 1 of its pid namespace: when it ends, for whatever
    reason, the kernel ends all that it started. It dies with its parent (PR_SET_PDEATHSIG); the
    parent gets the pid to wait for, and may execute another program meanwhile.

    ``user_namespace`` maps the caller's ids to 0 and nothing else. The caller must have one thread
    (user_namespaces(7)). Raises RedpakError when the kernel refuses.
    """
    reader, writer = os.pipe()
    gate, keeper = os.pipe()
    parent = os.getpid()
    # What is between us ends at once: the child shall be ours, not that of init.
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    # The collector would write into every object, and so copy every page that the processes share.
    gc.freeze()
    between = os.fork()
    if between:
        os.close(writer)
        os.close(gate)
        os.waitpid(between, 0)
        os.close(keeper)
        with os.fdopen(reader, "rb") as stream:
            return _read_answer(stream.read().decode(errors="replace"), user_namespace)
    os.close(reader)
    os.close(keeper)
    try:
        _die_with(parent)
        _enter(user_namespace)
        pid = os.fork()
        if pid:
            os.write(writer, f"{pid} ".encode())
            os._exit(0)
        _become_first(gate, writer)
    except OSError as err:
        os.write(writer, f"- {err.strerror or err}".encode())
        os._exit(125)
    os.close(writer)
    return 0


def _become_first(gate: int, writer: int) -> None:
    """The start of pid 1. Its parent holds the other ends of two pipes: it closes that of ``gate``
    when the process between them is gone, and reads from ``writer``."""
    os.read(gate, 1)
    os.close(gate)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    try:
        os.write(writer, _READY.encode())
    except BrokenPipeError:
        os._exit(125)  # the parent died before we could ask to die with it


def _read_answer(text: str, user_namespace: bool) -> int:
    """The child's pid, from "NUMBER ready". Raises RedpakError for what went wrong: "- REASON" or
    "NUMBER - REASON"."""
    number, _, answer = text.partition(" ")
    if answer == _READY:
        return int(number)
    if number.isdigit():
        os.waitpid(int(number), 0)
    hint = _NO_USER_NAMESPACE if user_namespace else "run as root on the host"
    reason = answer.removeprefix("- ") or "killed"
    raise RedpakError(f"cannot enter namespaces: {reason}", hint=hint)


# What scriptlets have a use for, capabilities(7): owners, modes, accounts, devices. Above all not
# CAP_SYS_ADMIN, CAP_SYS_CHROOT and CAP_SYS_PTRACE, with which they could leave the view.
_SCRIPTLET_CAPABILITIES = frozenset(
    {
        0,  # CAP_CHOWN
        1,  # CAP_DAC_OVERRIDE
        3,  # CAP_FOWNER
        4,  # CAP_FSETID
        5,  # CAP_KILL
        6,  # CAP_SETGID
        7,  # CAP_SETUID
        27,  # CAP_MKNOD
        29,  # CAP_AUDIT_WRITE
        31,  # CAP_SETFCAP
    }
)


CAP_SYS_CHROOT = 18


def bound_capabilities(*, also: Collection[int] = ()) -> None:
    """Leave the programs that this process starts the capabilities of scriptlets, and ``also``.

    The process itself keeps its own: it still mounts and changes its root. Raises OSError.
    """
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as stream:
        last = int(stream.read())
    for capability in range(last + 1):
        if capability not in _SCRIPTLET_CAPABILITIES and capability not in also:
            libc.prctl(libc.PR_CAPBSET_DROP, capability)


def in_user_namespace() -> bool:
    """Whether this process is in another user namespace than the machine's. Raises OSError."""
    with open("/proc/self/uid_map", encoding="ascii") as stream:
        return stream.read().split() != ["0", "0", "4294967295"]


def wait_status(pid: int) -> int:
    """Wait for ``pid``; its exit status, or 128 + N when signal N ended it."""
    while True:
        ended, status = os.waitpid(-1 if os.getpid() == 1 else pid, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _die_with(parent: int) -> None:
    """Ask for SIGKILL when the parent dies; it may have died before we could ask."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(125)


def _enter(user_namespace: bool) -> None:
    flags = libc.CLONE_NEWNS | libc.CLONE_NEWPID | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS
    if not user_namespace:
        libc.unshare(flags)
        return
    uid, gid = os.getuid(), os.getgid()
    libc.unshare(libc.CLONE_NEWUSER | flags)
    # user_namespaces(7): an unprivileged writer of gid_map must deny setgroups first.
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
            stream.write(text)
