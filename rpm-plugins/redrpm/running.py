# SPDX-License-Identifier: Apache-2.0
"""Applications that run on the layers of a node while a commit changes it.

overlayfs caches what it looked up in its layers: an application whose layers change sees a mix of
old and new for as long as it runs. So when one runs, a commit leaves it the directories themselves,
moves them into the previous generation, and changes copies (hard links) in their place. The marks
of running applications are made by red-wrap, before it opens a layer; the journal is written before
we look for marks: whoever comes second knows of the other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from typing import Optional

from redpak.family import find_descendants
from redrpm.stage import Stage
from redsys.mounts import read_mounts
from redsys.trees import remove_tree

_MARKS = "running"  # as in red-wrap
_KEPT = "layer."  # what the previous generation calls a top-level directory
_STATE_DIRECTORY = ".redpak"
_NO_LAYERS = frozenset(("var", "private", _STATE_DIRECTORY))


def find_oldest_start(node: str) -> Optional[int]:
    """When the oldest application began (ns since 1970) that runs on the directories of `node`: in
    it or in a node below it. 0 when that is unknown, None when there is none."""
    starts: list[int] = []
    for path in (node, *find_descendants(node, lenient=True)):
        starts += _find_starts(f"{path}/{_STATE_DIRECTORY}")
    return min(starts, default=None)


def _find_starts(state_dir: str) -> Iterator[int]:
    # Whoever cannot leave a mark of his own holds the directory itself.
    if os.path.isdir(state_dir) and _is_locked(state_dir, fcntl.LOCK_EX):
        yield 0
    directory = f"{state_dir}/{_MARKS}"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(directory):
            mark = f"{directory}/{name}"
            with contextlib.suppress(FileNotFoundError):
                if _is_locked(mark, fcntl.LOCK_SH):
                    start = os.stat(mark).st_mtime_ns
                    # In the future: the clock has gone back since, and says nothing of the order.
                    yield start if start <= time.time_ns() else 0


def _is_locked(path: str, lock: int) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return True  # somebody else's: it may be
    try:
        fcntl.flock(fd, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def leave_layers(node: str, stage: Stage, saved: str, paths: Sequence[str]) -> None:
    """Before the first step of a commit that changes `paths`: if an application runs, put copies
    in the place of the top-level directories that they lie in; it keeps the old ones, in `saved`.

    Where something is mounted the application sees the change: a mount would move with its
    directory, to where the next commit removes what is in it.

    Each part can see that it is done, as the steps of a journal. Raises OSError.
    """
    tops = sorted({path.partition("/")[0] for path in paths})
    for top in tops:
        fresh = f"{stage.path}/{_KEPT}{top}"
        # Interrupted between the two renames. Without a fresh one a later step has removed it.
        if os.path.isdir(f"{saved}/{_KEPT}{top}") and os.path.isdir(fresh) and (
                not os.path.lexists(f"{node}/{top}")):
            os.rename(fresh, f"{node}/{top}")
    if find_oldest_start(node) is None:
        return
    holding = {path[len(node) + 1:].partition("/")[0]
               for path in find_descendants(node, lenient=True)}
    holding |= {point[len(node) + 1:].partition("/")[0]
                for point, _kind in read_mounts() if point.startswith(f"{node}/")}
    for top in tops:
        kept = f"{saved}/{_KEPT}{top}"
        if top not in holding and top not in _NO_LAYERS and not os.path.isdir(kept) and (
                _is_directory(f"{node}/{top}")):
            _leave_layer(f"{node}/{top}", f"{stage.path}/{_KEPT}{top}", kept)


def _leave_layer(layer: str, fresh: str, kept: str) -> None:
    if not os.path.isdir(fresh):
        remove_tree(f"{fresh}.part")
        link_tree(layer, f"{fresh}.part")
        os.rename(f"{fresh}.part", fresh)
    try:
        os.rename(layer, kept)
    except OSError as err:
        if err.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        return  # a mount point cannot be moved: its applications see the change
    os.rename(fresh, layer)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def is_in_use(saved: str, generation: int, oldest_start: Optional[int]) -> bool:
    """Whether an application may run on what commit `generation` left it in `saved`."""
    return oldest_start is not None and oldest_start < generation and any(
        name.startswith(_KEPT) for name in os.listdir(saved))


def keep_layers_only(saved: str) -> None:
    """Remove all of a previous generation but what applications run on. Raises OSError."""
    for name in os.listdir(saved):
        if not name.startswith(_KEPT):
            remove_tree(f"{saved}/{name}")


def link_tree(source: str, target: str) -> None:
    """Copy a tree by hard links: directories are new, with all their attributes. Raises OSError."""
    info = os.lstat(source)
    os.mkdir(target)
    with _readable(source, info), os.scandir(source) as entries:
        for entry in entries:
            place = f"{target}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                link_tree(entry.path, place)
            else:
                _link_file(entry.path, place)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.chown(target, info.st_uid, info.st_gid)
    shutil.copystat(source, target)
    os.chmod(target, stat.S_IMODE(info.st_mode))


@contextlib.contextmanager
def _readable(directory: str, info: os.stat_result) -> Iterator[None]:
    """A package may ship a directory that its owner cannot read."""
    if info.st_mode & 0o500 == 0o500 or info.st_uid != os.geteuid():
        yield
        return
    os.chmod(directory, stat.S_IMODE(info.st_mode) | 0o500)
    try:
        yield
    finally:
        os.chmod(directory, stat.S_IMODE(info.st_mode))


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as err:
        # fs.protected_hardlinks, another file system, too many links.
        if err.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK) or not stat.S_ISREG(
                os.lstat(source).st_mode):
            raise
        shutil.copy2(source, target, follow_symlinks=False)
