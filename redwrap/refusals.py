# SPDX-License-Identifier: Apache-2.0
"""What overlayfs refuses: the way around it where there is one, a clear message where not.

In a user namespace a mount point anywhere below a lower layer is refused (EINVAL; the kernel's
has_locked_children), as containers have them for single files of /etc and /usr. A directory of
such a layer is put together from its entries instead. A file system that cannot be a layer (vfat,
overlayfs on overlayfs, ...) is found by trying.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence

from redpak.values import replace
from redsys import libc
from redsys.mounts import read_mounts
from redwrap.errors import LaunchError
from redwrap.operations import Bind, FileSystem, Mount, Operation, Overlay, Symlink
from redwrap.plan import LaunchPlan
from redwrap.sources import is_below

_MOST_PARTS = 2000
_OPTIONS = "redirect_dir=nofollow,metacopy=off,index=off"


def split_around_mounts(plan: LaunchPlan) -> LaunchPlan:
    """The plan with overlays that have no mount point below a layer. Raises LaunchError."""
    if is_host_root() or not any(isinstance(step, Overlay) for step in plan.operations):
        return plan
    points = [path for path, _ in read_mounts() if path != "/"]
    operations: list[Operation] = []
    for step in plan.operations:
        if isinstance(step, Overlay) and len(step.layers) > 1 and _is_crossed(
                [directory for directory, _ in step.layers], points):
            operations += _split(step, points, {mount.mount for mount in plan.mounts})
        else:
            operations.append(step)
    if len(operations) == len(plan.operations):
        return plan
    # Whatever is in these directories counts now, so the plan is good for this launch only.
    return replace(plan, operations=tuple(operations), is_passing=True)


def _is_crossed(directories: Sequence[str], points: Sequence[str]) -> bool:
    return any(is_below(point, directory) and point != directory
               for directory in map(os.path.realpath, directories) for point in points)


def _split(overlay: Overlay, points: Sequence[str], planned: Collection[str]) -> list[Mount]:
    if overlay.writes:
        raise LaunchError(
            f"{overlay.origin}: mount {overlay.mount}: something is mounted below one of "
            f"{', '.join(directory for directory, _ in overlay.layers)}: without root it cannot be "
            f"a layer that is written over (node {overlay.origin and overlay.origin.node})",
            hint="unmount it, or make the export an Overlay")
    parts = list(_parts(overlay, points, planned))
    if len(parts) > _MOST_PARTS:
        raise LaunchError(
            f"{overlay.origin}: mount {overlay.mount}: something is mounted below a layer, and "
            f"there are too many files beside it ({len(parts)}) to do without overlayfs",
            hint="unmount it, or run red-wrap as root")
    return parts


def _parts(overlay: Overlay, points: Sequence[str], planned: Collection[str]) -> Iterator[Mount]:
    """The mounts that show what the overlay would, but for what the plan mounts there anyway."""
    yield FileSystem(overlay.origin, overlay.mount, "--tmpfs")
    names = {name for directory, _ in overlay.layers for name in os.listdir(directory)}
    for name in sorted(names):
        mount, layers = f"{overlay.mount}/{name}", _layers_of(overlay, name)
        if mount in planned:
            continue
        top, base = layers[0]
        if os.path.islink(top):
            yield Symlink(overlay.origin, mount, os.readlink(top))
        elif len(layers) == 1:
            yield Bind(overlay.origin, mount, top, writable=False, base=base)
        elif _is_crossed([directory for directory, _ in layers], points):
            yield from _parts(Overlay(overlay.origin, mount, layers, ""), points, planned)
        else:
            yield Overlay(overlay.origin, mount, layers, "")


def _layers_of(overlay: Overlay, name: str) -> tuple[tuple[str, str], ...]:
    """The directories that are merged under a name; what is none hides those beneath it."""
    found: list[tuple[str, str]] = []
    for directory, base in overlay.layers:
        path = f"{directory}/{name}"
        if not os.path.lexists(path):
            continue
        is_directory = os.path.isdir(path) and not os.path.islink(path)
        if is_directory or not found:
            found.append((path, base))
        if not is_directory:
            break
    return tuple(found)


def check_overlays(plan: LaunchPlan) -> None:
    """Try each overlay of the plan; raise LaunchError for one that the kernel refuses."""
    overlays = [mount for mount in plan.mounts if isinstance(mount, Overlay)
                and (len(mount.layers) > 1 or mount.writes)]
    if not overlays:
        return
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try_all(overlays, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        refusal = stream.read().decode().partition(" ")
    os.waitpid(pid, 0)
    for overlay in overlays:
        if overlay.writes:
            _remove_work(f"{overlay.writes}/work.try.{pid}")
    if refusal[0]:
        raise _explain(overlays[int(refusal[0])], int(refusal[2]))


def _remove_work(work: str) -> None:
    with contextlib.suppress(OSError):
        os.chmod(f"{work}/work", 0o700)  # overlayfs leaves it with mode 000
        os.rmdir(f"{work}/work")
    with contextlib.suppress(OSError):
        os.rmdir(work)


def _try_all(overlays: Sequence[Overlay], writer: int) -> None:
    """In a child: mount each overlay in a namespace of its own, write the number of the first that
    is refused, with errno."""
    entered = False
    try:
        at, as_root = 0, is_host_root()
        with contextlib.suppress(OSError):
            _enter_namespaces()
            libc.mount("none", "/", "", libc.MS_REC | libc.MS_PRIVATE)
            entered = True
        if not entered:
            return  # the launcher says what is wrong with namespaces
        for overlay in overlays:
            _try(overlay, as_root=as_root)
            at += 1
    except OSError as err:
        os.write(writer, f"{at} {err.errno}".encode())
    finally:
        os._exit(0)


def is_host_root() -> bool:
    """Whether the kernel takes our mounts as root's, not as those of a user namespace."""
    with open("/proc/self/uid_map", encoding="ascii") as stream:
        return os.geteuid() == 0 and stream.read().split() == ["0", "0", "4294967295"]


def _enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        libc.unshare(libc.CLONE_NEWNS)
        return
    libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                       ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
            stream.write(text)


def _try(overlay: Overlay, *, as_root: bool) -> None:
    paths = [directory for directory, _ in overlay.layers]
    opened = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths]
    names = [f"/proc/self/fd/{fd}" for fd in opened]
    options = _OPTIONS if as_root else f"{_OPTIONS},userxattr"
    if overlay.writes:
        upper = os.open(f"{overlay.writes}/upper", os.O_PATH | os.O_CLOEXEC)
        work = f"{overlay.writes}/work.try.{os.getpid()}"
        os.mkdir(work, 0o700)
        place = os.open(work, os.O_PATH | os.O_CLOEXEC)
        options += f",upperdir=/proc/self/fd/{upper},workdir=/proc/self/fd/{place}"
    elif len(names) == 1:
        return
    libc.mount("overlay", "/", "overlay", libc.MS_NOSUID, f"{options},lowerdir={':'.join(names)}")


def _explain(overlay: Overlay, code: int) -> LaunchError:
    mounts = sorted(read_mounts(), key=lambda mount: -len(mount[0]))
    directories = [directory for directory, _ in overlay.layers]
    if overlay.writes:
        directories.insert(0, f"{overlay.writes}/upper")
    kinds = [next((kind for point, kind in mounts if is_below(os.path.realpath(path), point)), "?")
             for path in directories]
    stack = ", ".join(f"{path} ({kind})" for path, kind in zip(directories, kinds))
    node = overlay.origin.node if overlay.origin is not None else ""
    return LaunchError(
        f"{overlay.origin}: mount {overlay.mount}: the kernel takes no overlay of {stack}: "
        f"{os.strerror(code)} (node {node})",
        hint="put the node on a file system that can be a layer (ext4, xfs, btrfs, tmpfs; an"
        " overlay only once), or give it the template default")
