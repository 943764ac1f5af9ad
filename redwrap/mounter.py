# SPDX-License-Identifier: Apache-2.0
"""The other executor of a plan's mounts: our own mount(2) calls, one bind left for bwrap.

bwrap before 0.11 reads the whole mount table after each bind: its cost grows with the square of
the mounts. This makes them with the calls of Linux 5.12 (open_tree, mount_setattr, move_mount),
which need no table, in a mount namespace of its own (and a user namespace without root), below one
directory that bwrap then binds to its root. Each source is opened once, without following links
below the node it belongs to, and mounted from that descriptor: nobody can exchange it in between.

The warm path runs this file as a script, `python3 -I -S mounter.py FD BASE BWRAP ARGUMENT...`, with
the steps in descriptor FD, so it imports next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys

# asm-generic/unistd.h: the same numbers on every architecture
OPEN_TREE, MOVE_MOUNT, OPENAT2, MOUNT_SETATTR = 428, 429, 437, 442
# linux/mount.h, linux/fcntl.h, linux/openat2.h, linux/sched.h
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_RDONLY, MS_REC, MS_SLAVE = 2, 4, 1, 1 << 14, 1 << 19
AT_EMPTY_PATH, AT_RECURSIVE = 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MOVE_BOTH_EMPTY = 0x04 | 0x40
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
NO_SYMLINKS, IN_ROOT = 0x04, 0x10
O_PATH = 0o10000000
FAILED = 125

_libc = ctypes.CDLL(None, use_errno=True)
# Arguments of ours are at most 32 bits wide or addresses: c_void_p takes both.
_libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 5
_libc.syscall.restype = ctypes.c_long


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


def _open_source(path: str, base: str) -> int:
    """A descriptor of `path`; no link below `base` is followed ("" trusts every link)."""
    if not base:
        return os.open(path, O_PATH | os.O_CLOEXEC)
    directory = os.open(base, O_PATH | os.O_CLOEXEC)
    try:
        return _open(directory, path[len(base):].lstrip("/") or ".", O_PATH, NO_SYMLINKS)
    finally:
        os.close(directory)


def _open_point(root: int, target: str, is_directory: bool) -> int:
    """A descriptor of the mount point `target` below `root`, made when it is missing."""
    path = target.lstrip("/")
    try:
        return _open(root, path, O_PATH, IN_ROOT)
    except FileNotFoundError:
        pass
    parent, name = os.path.split(path)
    above = _open_point(root, parent, True) if parent else os.dup(root)
    try:
        if is_directory:
            os.mkdir(name, 0o755, dir_fd=above)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=above))
    finally:
        os.close(above)
    return _open(root, path, O_PATH, IN_ROOT)


def _attach(source: int, point: int, attributes: int) -> None:
    """Mount a copy of the tree at descriptor `source` on `point`, with `attributes` throughout."""
    empty = ctypes.create_string_buffer(b"")
    nowhere = ctypes.addressof(empty)
    tree = _call(OPEN_TREE, source, nowhere,
                 OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE)
    values = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    _call(MOUNT_SETATTR, tree, nowhere, AT_EMPTY_PATH | AT_RECURSIVE, ctypes.addressof(values), 32)
    _call(MOVE_MOUNT, tree, nowhere, point, nowhere, MOVE_BOTH_EMPTY)
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


def make_mounts(steps: list[list[str]], base: str) -> None:
    """Make the mounts of `steps` below `base`, in a namespace of our own.

    A step is a list of texts: kind, target, where it was asked for, and the kind's own. Raises
    OSError whose text names the target and where it was asked for.
    """
    enter_namespace()
    # Before `base` is covered: a source may lie below it.
    sources = [_open_sources(step) for step in steps]
    umask = os.umask(0)
    _mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    root = os.open(base, O_PATH | os.O_CLOEXEC)
    for step, opened in zip(steps, sources):
        try:
            _KINDS[step[0]](root, step, opened)
        except OSError as err:
            raise _explained(step, err) from err
        for fd in opened:
            os.close(fd)
    os.close(root)
    os.umask(umask)


def _explained(step: list[str], err: OSError) -> OSError:
    return OSError(err.errno, f"{step[2]}: mount {step[1]}: {err.strerror}")


def _open_sources(step: list[str]) -> list[int]:
    pairs = {"bind": [(3, 4)], "overlay": [(at, at + 1) for at in range(4, len(step), 2)]}
    try:
        return [_open_source(step[path], step[base]) for path, base in pairs.get(step[0], ())]
    except OSError as err:
        raise _explained(step, err) from err


def _bind(root: int, step: list[str], opened: list[int]) -> None:
    """Own fields: source, base, "rw" or "ro"."""
    is_directory = os.path.isdir(f"/proc/self/fd/{opened[0]}")
    point = _open_point(root, step[1], is_directory)
    _attach(opened[0], point,
            ATTR_NOSUID | ATTR_NODEV | (0 if step[5] == "rw" else ATTR_RDONLY))
    os.close(point)


def _tmpfs(root: int, step: list[str], opened: list[int]) -> None:
    point = _open_point(root, step[1], True)
    _mount("tmpfs", f"/proc/self/fd/{point}", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    os.close(point)


def _symlink(root: int, step: list[str], opened: list[int]) -> None:
    """Own field: the text of the link."""
    parent, name = os.path.split(step[1].lstrip("/"))
    above = _open_point(root, parent, True) if parent else os.dup(root)
    try:
        os.symlink(step[3], name, dir_fd=above)
    except FileExistsError:
        if os.readlink(name, dir_fd=above) != step[3]:
            raise
    os.close(above)


def _data(root: int, step: list[str], opened: list[int]) -> None:
    """Own field: the descriptor with the content."""
    number = int(step[3])
    point = _open_point(root, step[1], False)
    name = f".red-wrap-{number}"
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o444, dir_fd=root)
    while True:
        block = os.read(number, 65536)
        if not block:
            break
        os.write(fd, block)
    os.close(number)
    _attach(fd, point, ATTR_NOSUID | ATTR_NODEV | ATTR_RDONLY)
    os.unlink(name, dir_fd=root)
    os.close(fd)
    os.close(point)


def _overlay(root: int, step: list[str], opened: list[int]) -> None:
    """Own fields: "rw" or "ro", then pairs of directory and base: for rw upper and work first,
    then the layers, topmost first."""
    layers = [f"/proc/self/fd/{fd}" for fd in opened]
    options = "userxattr" if os.getuid() else "redirect_dir=off"
    flags = MS_NOSUID | MS_NODEV
    if step[3] == "rw":
        options += f",upperdir={layers.pop(0)},workdir={layers.pop(0)}"
    else:
        flags |= MS_RDONLY
    point = _open_point(root, step[1], True)
    if step[3] == "ro" and len(layers) == 1:  # overlayfs wants two layers
        _attach(opened[0], point, ATTR_NOSUID | ATTR_NODEV | ATTR_RDONLY)
    else:
        options += ",lowerdir=" + ":".join(layers)
        _mount("overlay", f"/proc/self/fd/{point}", "overlay", flags, options)
    os.close(point)


_KINDS = {"bind": _bind, "tmpfs": _tmpfs, "symlink": _symlink, "data": _data, "overlay": _overlay}


def encode_steps(steps: list[list[str]]) -> bytes:
    """Steps as bytes: fields end with NUL, steps with one more."""
    return b"".join(b"".join(os.fsencode(field) + b"\0" for field in step) + b"\1\0"
                    for step in steps)


def decode_steps(data: bytes) -> list[list[str]]:
    """The reverse of encode_steps."""
    return [[os.fsdecode(field) for field in step.split(b"\0")[:-1]]
            for step in data.split(b"\1\0")[:-1]]


def main(arguments: list[str]) -> None:
    """Make the mounts, then become bwrap."""
    with open(int(arguments[0]), "rb") as stream:
        steps = decode_steps(stream.read())
    try:
        make_mounts(steps, arguments[1])
        os.execv(arguments[2], arguments[2:])
    except OSError as err:
        print(f"red-wrap: error: {err.strerror}; look at red-wrap --explain", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main(sys.argv[1:])
