# SPDX-License-Identifier: Apache-2.0
"""The other executor of a plan's mounts: our own mount(2) calls, one bind left for bwrap.

bwrap before 0.11 reads the whole mount table after each bind: its cost grows with the square of
the mounts. This makes them with the calls of Linux 5.12 (open_tree, mount_setattr, move_mount),
which need no table, in a mount namespace of its own (and a user namespace without root), below one
directory that bwrap then binds to its root. Each source is opened once, without following links
below the node it belongs to, and mounted from that descriptor: nobody can exchange it in between.

The warm path starts Python for main() alone, so this module imports next to nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import time

# asm-generic/unistd.h: the same numbers on every architecture
OPEN_TREE, MOVE_MOUNT, OPENAT2, MOUNT_SETATTR = 428, 429, 437, 442
# linux/mount.h, linux/fcntl.h, linux/openat2.h, linux/sched.h
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 1, 2, 4, 8, 1 << 14, 1 << 19
AT_EMPTY_PATH, AT_RECURSIVE = 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MOVE_BOTH_EMPTY = 0x04 | 0x40
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
NO_SYMLINKS, IN_ROOT = 0x04, 0x10
O_PATH = 0o10000000
EAGAIN, EROFS = 11, 30
FAILED = 125
# Below the state directory of a leaf: the marks of running applications.
RUNNING = "running"
STEADY_TRIES, STEADY_PAUSE = 500, 0.02  # seconds: a commit waits for the disk
# What bwrap's --dev has.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = (("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
                ("stderr", "/proc/self/fd/2"), ("fd", "/proc/self/fd"), ("core", "/proc/kcore"),
                ("ptmx", "pts/ptmx"))

_libc = ctypes.CDLL(None, use_errno=True)
# Arguments of ours are at most 32 bits wide or addresses: c_void_p takes both.
_libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 5
_libc.syscall.restype = ctypes.c_long


_EMPTY = ctypes.create_string_buffer(b"")
_NOWHERE = ctypes.addressof(_EMPTY)  # "": the descriptor itself is meant


def _call(number: int, *arguments: int | None) -> int:
    padded = [*arguments, None, None, None, None][:5]
    result: int = _libc.syscall(number, *padded)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _open(directory: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2)."""
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, resolve)
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _call(OPENAT2, directory, ctypes.addressof(name), ctypes.addressof(how), 24)


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(target), os.fsencode(kind),
                   ctypes.c_ulong(flags), os.fsencode(options) or None) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _open_source(path: str, base: str, opened: dict[str, int]) -> int:
    """A descriptor of `path`; no link below `base` is followed ("" trusts every link)."""
    if not base:
        return os.open(path, O_PATH | os.O_CLOEXEC)
    if base not in opened:
        opened[base] = os.open(base, O_PATH | os.O_CLOEXEC)
    return _open(opened[base], path[len(base):].lstrip("/") or ".", O_PATH, NO_SYMLINKS)


class _Root:
    """The directory that becomes the root; finds and makes mount points below it.

    Mounts are made parents first, so the descriptor of a parent stays good.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, O_PATH | os.O_CLOEXEC)
        self.parents = {"": self.fd}

    def parent(self, path: str) -> int:
        """A descriptor of the directory `path` (relative), made when it is missing."""
        if path not in self.parents:
            self.parents[path] = self.point(path, is_directory=True)
        return self.parents[path]

    def point(self, target: str, *, is_directory: bool) -> int:
        """A descriptor of the mount point `target`, made when it is missing; links are followed
        below the root only."""
        parent, _, name = target.strip("/").rpartition("/")
        above = self.parent(parent)
        try:
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=above))
        except FileExistsError:
            return _open(self.fd, target.strip("/"), O_PATH, IN_ROOT)
        except OSError as err:
            # A read-only file system says so even for what is there.
            if err.errno == EROFS and os.path.lexists(f"/proc/self/fd/{above}/{name}"):
                return _open(self.fd, target.strip("/"), O_PATH, IN_ROOT)
            raise
        return os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)


def _make_directory(above: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=above)
    except FileExistsError:
        return


def _attach(source: int, point: int, attributes: int) -> None:
    """Mount a copy of the tree at descriptor `source` on `point`, with `attributes` throughout."""
    tree = _call(OPEN_TREE, source, _NOWHERE,
                 OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE)
    values = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    _call(MOUNT_SETATTR, tree, _NOWHERE, AT_EMPTY_PATH | AT_RECURSIVE, ctypes.addressof(values),
          32)
    _call(MOVE_MOUNT, tree, _NOWHERE, point, _NOWHERE, MOVE_BOTH_EMPTY)
    os.close(tree)


def enter_namespace() -> None:
    """A mount namespace that nothing leaves; without root, in a user namespace that changes no id.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER
    if _libc.unshare(flags) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                           ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
                stream.write(text)
    _mount("none", "/", "", MS_REC | MS_SLAVE, "")


def make_mounts(steps: list[list[str]], base: str) -> int:
    """Make the mounts of `steps` below `base`, in a namespace of our own.

    A step is a list of texts: kind, target, where it was asked for, and the kind's own. The first
    may be "running" (_Running). Returns the descriptor that must stay open as long as the
    application runs, -1 when there is none. Raises OSError whose text names the target and where it
    was asked for.
    """
    enter_namespace()
    running = _Running(steps.pop(0)) if steps and steps[0][0] == "running" else None
    slot = running.slot if running is not None else 0
    # Before `base` is covered: a source may lie below it.
    sources = _open_steadily(steps, running, slot)
    devices = [os.open(f"/dev/{name}", O_PATH | os.O_CLOEXEC) for name in DEVICES]
    umask = os.umask(0)
    _add_points(steps, sources, base)
    _mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    root = _Root(base)
    for step, opened in zip(steps, sources):
        try:
            _KINDS[step[0]](root, step, opened or devices)
        except OSError as err:
            raise _explained(step, err) from err
        for fd in opened:
            os.close(fd)
    os.umask(umask)
    return running.fd if running is not None else -1


class _Running:
    """The mark that an application runs on the layers of a family: a commit then leaves it the
    directories it began with (redrpm/running.py).

    Own fields of the step: the leaf's state directory, the leaf (its base), then the journals of
    the family. The mark is a lock on RUNNING/N, the first that is free, whose time is when the
    application started; N also names overlayfs's work directories, which two mounts must not share.
    Who may not write there locks the state directory itself, shared.
    """

    def __init__(self, step: list[str]) -> None:
        self.fd, self.slot = -1, 0
        self._journals = step[5:]
        if os.path.isdir(step[3]):
            self._lock(_open_source(step[3], step[4], {}))

    def _lock(self, state: int) -> None:
        try:
            _make_directory(state, RUNNING)
            directory = _open(state, RUNNING, O_PATH, NO_SYMLINKS)
            while not self._lock_slot(directory):
                self.slot += 1
        except OSError:
            self.slot = 0
            self.fd = _open(state, ".", os.O_RDONLY, NO_SYMLINKS)
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.set_inheritable(self.fd, True)

    def _lock_slot(self, directory: int) -> bool:
        self.fd = os.open(str(self.slot), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                          0o600, dir_fd=directory)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.fd)
            return False
        os.utime(self.fd)
        return True

    def is_steady(self) -> bool:
        """Whether no commit is at work on the family."""
        return not any(os.path.lexists(journal) for journal in self._journals)


def _open_steadily(steps: list[list[str]], running: _Running | None, slot: int) -> list[list[int]]:
    """The sources of all steps, of one state of the family.

    A commit that begins after our mark leaves the directories as they are and puts others in their
    place: so the sources are good if each path still leads to what was opened, and no commit is on
    its way.
    """
    for _ in range(STEADY_TRIES):
        bases: dict[str, int] = {}
        sources = [_open_sources(step, bases, slot) for step in steps]
        if running is None:
            return sources
        if running.is_steady() and all(map(_leads_to, steps, sources)):
            return sources
        for fd in (*bases.values(), *(fd for opened in sources for fd in opened)):
            os.close(fd)
        time.sleep(STEADY_PAUSE)
    raise OSError(EAGAIN, "a transaction on the node or an ancestor is being committed, or was "
                  "interrupted (red-manager --recover finishes it)")


def _leads_to(step: list[str], opened: list[int]) -> bool:
    if step[0] != "overlay":
        return True
    layers = step[8:] if step[3] == "rw" else step[4:]
    for path, fd in zip(layers[::2], opened[2:] if step[3] == "rw" else opened):
        try:
            if not os.path.samestat(os.stat(path), os.fstat(fd)):
                return False
        except FileNotFoundError:
            return False
    return True


def _add_points(steps: list[list[str]], sources: list[list[int]], base: str) -> None:
    """Give each overlay a bottom layer with the mount points that are not in its other layers.

    It is a directory of a tmpfs that the root then covers. In a layer, a mount point would have to
    be made in a node, or in what is read-only.
    """
    found: list[tuple[int, str, int]] = []
    for at, step in enumerate(steps):
        outer = max((other for other in range(at) if _is_below(step[1], steps[other][1])),
                    key=lambda other: len(steps[other][1]), default=-1)
        if outer >= 0 and steps[outer][0] == "overlay":
            found.append((outer, step[1][len(steps[outer][1]):], at))
    if not found:
        return
    _mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for outer, path, at in found:
        top = f"{base}/{outer}"
        os.makedirs(os.path.dirname(top + path), 0o755, exist_ok=True)
        if steps[at][0] == "symlink":
            os.symlink(steps[at][3], top + path)
        elif steps[at][0] == "data" or (
                steps[at][0] == "bind" and not _is_directory(sources[at][0])):
            os.close(os.open(top + path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        else:
            os.makedirs(top + path, 0o755, exist_ok=True)
    for outer in {outer for outer, _, _ in found}:
        sources[outer].append(os.open(f"{base}/{outer}", O_PATH | os.O_CLOEXEC))


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory + "/")


def _is_directory(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o040000


def _explained(step: list[str], err: OSError) -> OSError:
    return OSError(err.errno, f"{step[2]}: mount {step[1]}: {err.strerror}")


def _open_sources(step: list[str], bases: dict[str, int], slot: int) -> list[int]:
    pairs = {"bind": [(3, 4)], "overlay": [(at, at + 1) for at in range(4, len(step), 2)]}
    try:
        opened = [_open_source(step[path], step[base], bases)
                  for path, base in pairs.get(step[0], ())]
        if step[0] == "overlay" and step[3] == "rw":
            _make_directory(opened[1], f"work.{slot}")
            work = _open(opened[1], f"work.{slot}", O_PATH, NO_SYMLINKS)
            os.close(opened[1])
            opened[1] = work
        return opened
    except OSError as err:
        raise _explained(step, err) from err


def _bind(root: _Root, step: list[str], opened: list[int]) -> None:
    """Own fields: source, base, "rw" or "ro"."""
    point = root.point(step[1], is_directory=_is_directory(opened[0]))
    _attach(opened[0], point,
            ATTR_NOSUID | ATTR_NODEV | (0 if step[5] == "rw" else ATTR_RDONLY))
    os.close(point)


def _tmpfs(root: _Root, step: list[str], opened: list[int]) -> None:
    point = root.point(step[1], is_directory=True)
    _mount("tmpfs", f"/proc/self/fd/{point}", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    os.close(point)


def _symlink(root: _Root, step: list[str], opened: list[int]) -> None:
    """Own field: the text of the link."""
    parent, _, name = step[1].strip("/").rpartition("/")
    above = root.parent(parent)
    try:
        os.symlink(step[3], name, dir_fd=above)
    except FileExistsError:
        if os.readlink(name, dir_fd=above) != step[3]:
            raise


def _dev(root: _Root, step: list[str], opened: list[int]) -> None:
    """What bwrap's --dev makes; it would read the mount table for each device."""
    _tmpfs(root, step, opened)
    place = step[1].strip("/")
    for name, fd in zip(DEVICES, opened):
        point = root.point(f"{place}/{name}", is_directory=False)
        _attach(fd, point, ATTR_NOSUID)
        os.close(point)
    for name, target in DEVICE_LINKS:
        os.symlink(target, name, dir_fd=root.parent(place))
    os.mkdir("shm", 0o755, dir_fd=root.parent(place))
    point = root.point(f"{place}/pts", is_directory=True)
    _mount("devpts", f"/proc/self/fd/{point}", "devpts", MS_NOSUID | MS_NOEXEC,
           "newinstance,ptmxmode=0666,mode=620")
    os.close(point)


def _data(root: _Root, step: list[str], opened: list[int]) -> None:
    """Own field: the descriptor with the content."""
    number = int(step[3])
    point = root.point(step[1], is_directory=False)
    name = f".red-wrap-{number}"
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o444, dir_fd=root.fd)
    while True:
        block = os.read(number, 65536)
        if not block:
            break
        os.write(fd, block)
    os.close(number)
    _attach(fd, point, ATTR_NOSUID | ATTR_NODEV | ATTR_RDONLY)
    os.unlink(name, dir_fd=root.fd)
    os.close(fd)
    os.close(point)


def _overlay(root: _Root, step: list[str], opened: list[int]) -> None:
    """Own fields: "rw" or "ro", then pairs of directory and base: for rw first the upper directory
    and the one of the work directories, then the layers, topmost first."""
    layers = [f"/proc/self/fd/{fd}" for fd in opened]
    # As in a transaction's view; without the host's privilege the kernel wants userxattr.
    options = "redirect_dir=nofollow,metacopy=off,index=off"
    if _in_user_namespace():
        options += ",userxattr"
    flags = MS_NOSUID | MS_NODEV
    if step[3] == "rw":
        options += f",upperdir={layers.pop(0)},workdir={layers.pop(0)}"
    else:
        flags |= MS_RDONLY
    point = root.point(step[1], is_directory=True)
    if step[3] == "ro" and len(layers) == 1:  # overlayfs wants two layers
        _attach(opened[0], point, ATTR_NOSUID | ATTR_NODEV | ATTR_RDONLY)
    else:
        options += ",lowerdir=" + ":".join(layers)
        _mount("overlay", f"/proc/self/fd/{point}", "overlay", flags, options)
    os.close(point)


def _in_user_namespace() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as stream:
        return stream.read().split() != ["0", "0", "4294967295"]


_KINDS = {"bind": _bind, "tmpfs": _tmpfs, "symlink": _symlink, "data": _data, "overlay": _overlay,
          "dev": _dev}


def encode_steps(steps: list[list[str]]) -> bytes:
    """Steps as bytes: fields end with NUL, steps with one more."""
    return b"".join(b"".join(os.fsencode(field) + b"\0" for field in step) + b"\1\0"
                    for step in steps)


def decode_steps(data: bytes) -> list[list[str]]:
    """The reverse of encode_steps."""
    return [[os.fsdecode(field) for field in step.split(b"\0")[:-1]]
            for step in data.split(b"\1\0")[:-1]]


def main(arguments: list[str]) -> None:
    """FD BASE BWRAP ARGUMENT...: make the mounts of the steps in descriptor FD, become bwrap."""
    with open(int(arguments[0]), "rb") as stream:
        steps = decode_steps(stream.read())
    try:
        mark = make_mounts(steps, arguments[1])
        keep = [] if mark < 0 else ["--sync-fd", str(mark)]
        os.execv(arguments[2], [arguments[2], *keep, *arguments[3:]])
    except OSError as err:
        print(f"red-wrap: error: {err.strerror}; look at red-wrap --explain", file=sys.stderr)
        sys.exit(FAILED)
