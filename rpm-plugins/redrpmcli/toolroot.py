# SPDX-License-Identifier: Apache-2.0
"""The host's own rpm, let loose on a view: what else it can see.

`rpm --root=VIEW` reads its macros and the packages from outside the view, and may leave its root,
as may whatever scriptlet it starts. So it gets a root of its own: the core OS's programs and
configuration, read-only, the named files, and the view, which shows the same core OS anyway.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence

from redsys import libc
from redsys.namespace import CAP_SYS_CHROOT, bound_capabilities, wait_status

VIEW = "/view"
# rpm 6 unshares the network before a scriptlet, which has no power left for that here.
STOCK_RPM = (
    "rpm", f"--root={VIEW}", "--dbpath=/var/lib/rpm", "--define", "__transaction_unshare %{nil}",
)
_PROGRAMS = ("usr", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# statvfs(3) and mount(2) say the same with the same bits: flags that a namespace may not drop.
_LOCKED_FLAGS = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
_RELATIVE_TIMES = {os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}


def run_on_view(
    view: str, argv: Sequence[str], *, ground: str, files: Iterable[str] = (), quiet: bool = False
) -> int:
    """Run ``argv``, in which the view is VIEW, in a contained process; its exit status.

    ``ground`` is a directory to mount the root over; ``files`` are seen at their own paths. What it
    starts has the capabilities of scriptlets, and may change its root.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _enter_root(view, ground, files)
            if quiet:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            bound_capabilities(also=(CAP_SYS_CHROOT,))
            os.execvp(argv[0], list(argv))
        except OSError as err:
            name = err.filename or argv[0]
            os.write(2, f"red-rpm: error: {name}: {err.strerror or err}\n".encode())
        finally:
            os._exit(1)
    # Ctrl-C is rpm's, which shares our terminal.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return wait_status(pid)
    finally:
        signal.signal(signal.SIGINT, before)


def _enter_root(view: str, ground: str, files: Iterable[str]) -> None:
    directory = _working_directory()
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("tmpfs", ground, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=0755")
    for name in _PROGRAMS:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{ground}/{name}")
        elif os.path.isdir(f"/{name}"):
            _bind_read_only(f"/{name}", f"{ground}/{name}")
    for name in ("proc", "dev"):
        _bind(f"{view}/{name}", f"{ground}/{name}")
    for name in ("tmp", "var/tmp"):
        os.makedirs(f"{ground}/{name}")
        os.chmod(f"{ground}/{name}", 0o1777)
    for path in files:
        _show_file(path, ground)
    _bind(view, ground + VIEW)
    # The working directory is there for the sake of relative paths.
    os.makedirs(ground + directory, exist_ok=True)
    os.chdir(ground)
    libc.mount(".", "/", "", libc.MS_MOVE)
    os.chroot(".")
    os.chdir(directory)


def _bind(source: str, target: str) -> None:
    os.mkdir(target)
    libc.mount(source, target, "", libc.MS_BIND | libc.MS_REC)


def _bind_read_only(source: str, target: str) -> None:
    _bind(source, target)
    _make_read_only(source, target)


def _make_read_only(source: str, target: str) -> None:
    present = os.statvfs(source).f_flag
    flags = present & _LOCKED_FLAGS
    flags |= sum(flag for bit, flag in _RELATIVE_TIMES.items() if present & bit)
    libc.mount(target, target, "", libc.MS_BIND | libc.MS_REMOUNT | libc.MS_RDONLY | flags)


def _show_file(path: str, ground: str) -> None:
    """Bind one file at its own path, unless the core OS's directories show it already."""
    full = os.path.abspath(path)
    if os.path.exists(ground + full) or not os.path.isfile(full):
        return
    os.makedirs(os.path.dirname(ground + full), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(ground + full, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
    source = os.path.realpath(full)
    libc.mount(source, ground + full, "", libc.MS_BIND)
    _make_read_only(source, ground + full)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"
