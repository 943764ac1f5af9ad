# SPDX-License-Identifier: Apache-2.0
"""Checks of a plan against the file system, before anything is started.

What is refused here is what an application could prepare for the next launch, in the directories
of a node that it may write: a symlink where the configuration names a directory would make
red-wrap, which runs outside the namespace, mount whatever the link points to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from redpak.errors import TYPE_CHECKING
from redpak.findings import Origin
from redwrap.errors import LaunchError
from redwrap.operations import Bind, Mount, Overlay, Symlink

if TYPE_CHECKING:
    from typing import Optional

# redpak's own files, relative to a node: never mounted over, never handed to an application to
# write (design section 2).
OWN_FILES = (".rednode.yaml", ".redpak", "etc/redpack.yaml", "etc/redpak.yaml",
             "etc/redpack-admin.yaml", "etc/redpak-admin.yaml")


def _refuse(origin: Optional[Origin], message: str, hint: str) -> LaunchError:
    where = f"{origin}: " if origin is not None else ""
    node = f" (node {origin.node})" if origin is not None else ""
    return LaunchError(f"{where}{message}{node}", hint=hint)


def is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or something in it; both normal absolute paths."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def check_own_files(mounts: Sequence[Mount], nodes: Sequence[str]) -> None:
    """Refuse mounts over redpak's own files and exports of them; `nodes` are the family's
    directories. Pure: looks at the texts only. Raises LaunchError."""
    for mount in mounts:
        for node in nodes:
            for name in OWN_FILES:
                own = f"{node}/{name}"
                if is_below(mount.mount, own):
                    raise _refuse(mount.origin, f"mount {mount.mount}: {own} is redpak's own",
                                  "choose another mount point")
                if isinstance(mount, Bind):
                    _check_own_source(mount, own)


def _check_own_source(bind: Bind, own: str) -> None:
    if is_below(bind.source, own) and (bind.writable or "/.redpak" in own):
        raise _refuse(bind.origin, f"mount {bind.mount}: {bind.source} is redpak's own",
                      "export another path")
    if bind.writable and bind.base and is_below(own, bind.source):
        raise _refuse(
            bind.origin,
            f"mount {bind.mount}: {bind.source} holds redpak's own {own} and would be writable",
            "make it Restricted, or export a directory below it")


def links_to_check(mounts: Sequence[Mount]) -> list[str]:
    """The paths below node directories that must not be symlinks when `mounts` are made: on the
    way to each source, and on the way to each mount point that lies in an earlier bind."""
    paths: dict[str, None] = {}
    binds: list[Bind] = []
    for mount in mounts:
        if isinstance(mount, Bind) and mount.base:
            paths.update(dict.fromkeys(_steps(mount.base, mount.source)))
        for directory, base in mount.layers if isinstance(mount, Overlay) else ():
            paths.update(dict.fromkeys(_steps(base, directory) if base else ()))
        if isinstance(mount, Overlay) and mount.writes:
            paths.update(dict.fromkeys(_steps(mount.writes_base, f"{mount.writes}/upper")))
        outer = _enclosing(mount.mount, binds)
        if outer is not None and outer.base:
            inside = outer.source + mount.mount[len(outer.mount.rstrip("/")):]
            steps = list(_steps(outer.source, inside))
            paths.update(dict.fromkeys(steps[:-1] if isinstance(mount, Symlink) else steps))
        if isinstance(mount, Bind):
            binds.append(mount)
    return list(paths)


def _enclosing(path: str, binds: Sequence[Bind]) -> Optional[Bind]:
    """The bind that `path` lies in: mounts come in path order, so the last that fits."""
    for bind in reversed(binds):
        if path != bind.mount and is_below(path, bind.mount):
            return bind
    return None


def _steps(base: str, path: str) -> Iterator[str]:
    """Each path on the way from `base` (left out) down to `path`."""
    current = base.rstrip("/")
    for part in path[len(current):].strip("/").split("/"):
        if part:
            current = f"{current}/{part}"
            yield current


def check_links(mounts: Sequence[Mount]) -> None:
    """Raise LaunchError when a path of links_to_check() is a symlink."""
    for path in links_to_check(mounts):
        try:
            target = os.readlink(path)
        except OSError:
            continue  # it is none
        origin = next((mount.origin for mount in mounts
                       if isinstance(mount, Bind) and is_below(mount.source, path)), None)
        raise _refuse(
            origin, f"{path} is a symbolic link to {target}: "
            "it would mount something the configuration does not name",
            "replace the link by a directory, or name the target in the configuration")


def prepare_sources(mounts: Sequence[Mount], *, create: bool) -> None:
    """Check that every source exists and is of the right kind.

    With `create`, a missing directory (or empty file) below a node is made. Raises LaunchError
    naming node, file and line.
    """
    check_links(mounts)
    for mount in mounts:
        if isinstance(mount, Bind):
            _prepare_source(mount, create=create)
        elif isinstance(mount, Overlay):
            _prepare_overlay(mount)


def _prepare_source(bind: Bind, *, create: bool) -> None:
    try:
        mode = os.stat(bind.source).st_mode
    except FileNotFoundError:
        if not (create and bind.base):
            what = "file" if bind.file_only else "file or directory"
            hint = ("create it, or use --force to create what is missing" if bind.base
                    else "create it, or take the entry out of the configuration")
            raise _refuse(bind.origin, f"mount {bind.mount}: no such {what}: {bind.source}",
                          hint) from None
        _create(bind)
        return
    except OSError as err:
        raise _refuse(bind.origin, f"mount {bind.mount}: {bind.source}: {err.strerror}",
                      "check the permissions of the directories above it") from err
    if bind.file_only and stat.S_ISDIR(mode):
        raise _refuse(bind.origin, f"mount {bind.mount}: {bind.source} is a directory, not a file",
                      "use the mode without File in its name")


def _prepare_overlay(overlay: Overlay) -> None:
    for directory, _ in overlay.layers:
        if not os.path.isdir(directory):
            raise _refuse(overlay.origin, f"mount {overlay.mount}: no such directory: {directory}",
                          "create it, or take the entry out of the configuration")
    if overlay.writes:
        try:
            for part in ("upper", "work.0"):
                os.makedirs(f"{overlay.writes}/{part}", exist_ok=True)
        except OSError as err:
            raise _refuse(overlay.origin, f"mount {overlay.mount}: cannot create "
                          f"{overlay.writes}/upper: {err.strerror}",
                          "run red-wrap as the owner of the node") from err


def _create(bind: Bind) -> None:
    try:
        if bind.file_only:
            os.makedirs(os.path.dirname(bind.source), exist_ok=True)
            os.close(os.open(bind.source, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        else:
            os.makedirs(bind.source, exist_ok=True)
    except OSError as err:
        raise _refuse(bind.origin, f"mount {bind.mount}: cannot create {bind.source}: "
                      f"{err.strerror}", "create it as its owner") from err


def check_mount_points(mounts: Sequence[Mount]) -> None:
    """Refuse a mount point that bwrap would have to create in a read-only bind."""
    binds: list[Bind] = []
    for mount in mounts:
        outer = _enclosing(mount.mount, binds)
        between = [other for other in mounts if outer is not None and other is not mount
                   and not isinstance(other, Bind) and is_below(mount.mount, other.mount)
                   and is_below(other.mount, outer.mount)]
        if outer is not None and not outer.writable and not between:
            inside = outer.source + mount.mount[len(outer.mount.rstrip("/")):]
            if not os.path.lexists(inside):
                raise _refuse(mount.origin, f"mount {mount.mount}: {outer.mount} is read-only and "
                              f"has no such entry: {inside}", "create it there, or choose another "
                              "mount point")
        if isinstance(mount, Bind):
            binds.append(mount)
