# SPDX-License-Identifier: Apache-2.0
"""fork into private mount, pid, ipc and uts namespaces (and a user namespace without root)."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Collection
from typing import NoReturn

from redpak.errors import RedpakError
from redsys import libc

_NO_USER_NAMESPACE = (
    "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone,"
    " apparmor_restrict_unprivileged_userns), or run as root"
)


def fork_contained(*, user_namespace: bool) -> int:
    """Like os.fork(), but the child is in namespaces of its own and never outlives its parent.

    Three processes come into being: one that unshares, pid 1 of the new pid namespace, which reaps
    orphans, and the child, to which 0 is returned. The parent gets the pid to wait for; its exit
    status is the child's. Every process between them dies with its parent (PR_SET_PDEATHSIG, set
    again after each fork, which clears it), and with pid 1 the kernel ends all that is left.

    ``user_namespace`` maps the caller's ids to 0 and nothing else. The caller must have one thread
    (user_namespaces(7)). Raises RedpakError when the kernel refuses.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    # The collector would write into every object, and so copy every page that the processes share.
    gc.freeze()
    pid = os.fork()
    if pid:
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            refusal = stream.read().decode(errors="replace")
        if refusal:
            os.waitpid(pid, 0)
            hint = _NO_USER_NAMESPACE if user_namespace else "run as root on the host"
            raise RedpakError(f"cannot enter namespaces: {refusal}", hint=hint)
        return pid
    os.close(reader)
    try:
        _die_with(parent)
        _enter(user_namespace)
        _fork_and_mirror()
        # pid 1: its death ends the namespace. It must not take part in dnf's interactive Ctrl-C.
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        _fork_and_mirror()
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    except OSError as err:
        os.write(writer, (err.strerror or str(err)).encode())
        os._exit(125)
    os.close(writer)
    return 0


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


def ignore_terminal_signals() -> None:
    """Leave Ctrl-C and its like to the child that shares our terminal."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


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


def _fork_and_mirror() -> None:
    """fork; the parent stays behind, ends as its child ends, and never returns."""
    pid = os.fork()
    if pid:
        _mirror(pid)


def _mirror(pid: int) -> NoReturn:
    ignore_terminal_signals()
    # Only the child may hold pipes and locks open: nobody must wait for us to close them.
    os.closerange(3, 65536)
    os._exit(wait_status(pid))
