# SPDX-License-Identifier: Apache-2.0
"""The few system calls that Python does not wrap in every version we support."""

from __future__ import annotations

import ctypes
import os

# unshare(2), setns(2)
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# By the names of /proc/PID/ns.
NAMESPACE_FLAGS = {
    "cgroup": CLONE_NEWCGROUP,
    "ipc": CLONE_NEWIPC,
    "net": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "time": CLONE_NEWTIME,
    "user": CLONE_NEWUSER,
}

# mount(2), umount2(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
SECCOMP_MODE_FILTER = 2

# System calls that write to the device, by machine (uname -m): asm/unistd.h
SYNC_NUMBERS = {
    "x86_64": {"sync": 162, "fsync": 74, "fdatasync": 75, "syncfs": 306},
    "aarch64": {"sync": 81, "fsync": 82, "fdatasync": 83, "syncfs": 267},
    "riscv64": {"sync": 81, "fsync": 82, "fdatasync": 83, "syncfs": 267},
}
SYNC_MARK = 0x7265646B  # tells our own from those of the programs that we run

_long = ctypes.c_long
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2); ``os.unshare`` exists from Python 3.12 on. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2) into a namespace of that CLONE_NEW... kind; ``os.setns`` exists from 3.12 on.

    Raises OSError.
    """
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError whose text names file system, source and target."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(fstype) or None,
            flags,
            os.fsencode(options) or None,
        ),
        f"mount {fstype or 'bind'} {source} on {target}",
    )


def umount(target: str, *, detach: bool = False) -> None:
    """umount2(2); ``detach`` is a lazy unmount. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH if detach else 0), f"umount {target}")


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> None:
    """prctl(2). Raises OSError."""
    _check(_libc.prctl(option, arg2, arg3, 0, 0), f"prctl {option}")


def syncfs(path: str) -> None:
    """Write the file system that holds ``path`` to its device: syncfs(2). Raises OSError."""
    _sync(path, "syncfs")


def fsync(path: str) -> None:
    """Write the file or directory ``path`` to its device: fsync(2). Raises OSError."""
    _sync(path, "fsync")


def _sync(path: str, call: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        numbers = SYNC_NUMBERS.get(os.uname().machine)
        if numbers is None:
            _check(getattr(_libc, call)(fd), f"{call} {path}")
        else:
            # The kernel ignores the second argument; seccomp.install_sync_filter() looks at it.
            result = _libc.syscall(_long(numbers[call]), _long(fd), _long(SYNC_MARK))
            _check(result, f"{call} {path}")
    finally:
        os.close(fd)


def flush_streams() -> None:
    """Write out what C and C++ have printed and not yet written: Python's streams are others."""
    _libc.fflush(None)
