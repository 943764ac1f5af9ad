# SPDX-License-Identifier: Apache-2.0
"""The journal: a commit as a list of steps, written down before the first one is taken.

Each step can see that it is already done, so an interrupted commit is finished by taking all of
them again (design section 4). What a step replaces or removes is linked into the previous
generation first.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Optional

from redpak.errors import RedpakError
from redpak.files import write_file_atomic
from redrpm.stage import Stage, remove_tree
from redsys import libc

_VERSION = 1


class StepKind(Enum):
    """What a step does to its path in the node."""

    MAKE_DIRECTORY = "mkdir"
    PUT_FILE = "put"
    REMOVE_FILE = "remove"
    REMOVE_DIRECTORY = "rmdir"
    SET_METADATA = "meta"


@dataclass(frozen=True)
class Metadata:
    """Owner, permission bits and modification time (ns) of a directory."""

    uid: int
    gid: int
    mode: int
    mtime_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> Metadata:
        return cls(info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode), info.st_mtime_ns)


@dataclass(frozen=True)
class Step:
    """One change of the node. ``path`` and ``source`` (in the stage) are relative."""

    kind: StepKind
    path: str
    source: str = ""
    metadata: Optional[Metadata] = None
    before: Optional[Metadata] = None

    def __str__(self) -> str:
        return f"{self.kind.value} {self.path}"


@dataclass(frozen=True)
class Journal:
    """A commit. ``generation`` (nanoseconds since the epoch) names what it replaces."""

    generation: int
    steps: Sequence[Step]

    def dump(self) -> bytes:
        """The journal as JSON."""
        steps = [
            {**{key: value for key, value in vars(step).items() if value}, "kind": step.kind.value}
            for step in self.steps
        ]
        document = {"version": _VERSION, "generation": self.generation, "steps": steps}
        return json.dumps(document, default=vars).encode()

    @classmethod
    def load(cls, data: bytes) -> Journal:
        """Read what dump() wrote. Raises ValueError, KeyError or TypeError for anything else."""
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError(f"journal version {document['version']}")
        steps = []
        for row in document["steps"]:
            for key in ("metadata", "before"):
                if key in row:
                    row[key] = Metadata(**row[key])
            steps.append(Step(**{**row, "kind": StepKind(row["kind"])}))
        return cls(document["generation"], tuple(steps))


def journal_path(state_dir: str) -> str:
    """Where a node whose ``.redpak`` is ``state_dir`` keeps an unfinished commit."""
    return f"{state_dir}/journal"


def previous_path(state_dir: str, generation: int) -> str:
    """The directory that keeps what commit ``generation`` replaced."""
    return f"{state_dir}/previous.{generation}"


def commit(node: str, state_dir: str, stage: Stage, journal: Journal) -> None:
    """Make the node what the stage holds, whatever may kill us on the way.

    Raises RedpakError; when the journal was already written, the next command finishes the commit.
    """
    try:
        libc.syncfs(stage.path)
        write_file_atomic(journal_path(state_dir), journal.dump(), 0o600)
    except OSError as err:
        raise RedpakError(f"{node}: cannot write the journal: {err.strerror}") from err
    finish(node, state_dir, stage)


def finish(node: str, state_dir: str, stage: Stage) -> None:
    """Take every step of the node's journal and remove it. Raises RedpakError."""
    path = journal_path(state_dir)
    try:
        with open(path, "rb") as stream:
            journal = Journal.load(stream.read())
        saved = previous_path(state_dir, journal.generation)
        os.makedirs(saved, mode=0o700, exist_ok=True)
        for directory, steps in groupby(journal.steps, lambda step: os.path.dirname(step.path)):
            with _reach_directory(node, directory) as parent:
                # None: a later step has put something else in place of a directory on the way.
                if parent is not None:
                    for step in steps:
                        _take(step, parent, stage.path, saved)
        libc.syncfs(node)
        # One rename ends the commit: the journal becomes the description of what it replaced.
        os.rename(path, f"{saved}/journal")
        libc.syncfs(node)
    except (ValueError, KeyError, TypeError) as err:
        raise RedpakError(f"{path}: damaged journal: {err}", hint="restore the node") from err
    except OSError as err:
        raise RedpakError(
            f"{node}: the commit was interrupted: {err}",
            hint="make the file system writable; the next command on the node finishes it",
        ) from err
    discard_generations(state_dir, keep=journal.generation)


def generations(state_dir: str) -> list[int]:
    """The complete previous generations, oldest first."""
    found = []
    for name in os.listdir(state_dir):
        prefix, _, number = name.partition(".")
        complete = os.path.exists(f"{state_dir}/{name}/journal")
        if prefix == "previous" and number.isdigit() and complete:
            found.append(int(number))
    return sorted(found)


def discard_generations(state_dir: str, *, keep: int) -> None:
    """Remove every previous generation but ``keep``, incomplete ones included."""
    for name in os.listdir(state_dir):
        if name.startswith("previous.") and name != f"previous.{keep}":
            remove_tree(f"{state_dir}/{name}")


def _take(step: Step, parent: int, stage: str, saved: str) -> None:
    """Take one step in the directory that is open as ``parent``."""
    name = os.path.basename(step.path)
    if step.kind is StepKind.MAKE_DIRECTORY:
        _make_directory(parent, name)
    elif step.kind is StepKind.SET_METADATA:
        _set_metadata(parent, name, step.metadata)
    elif step.kind is StepKind.PUT_FILE:
        source = f"{stage}/{step.source}"
        if os.path.lexists(source):
            _save(parent, name, f"{saved}/{step.path}")
            os.rename(source, name, dst_dir_fd=parent)
    elif step.kind is StepKind.REMOVE_FILE:
        if _save(parent, name, f"{saved}/{step.path}"):
            os.unlink(name, dir_fd=parent)
    else:
        _remove_directory(parent, name)


@contextmanager
def _reach_directory(node: str, path: str) -> Iterator[Optional[int]]:
    """A descriptor of the node's directory ``path``, reached without following a symlink.

    None when something on the way is missing or no directory.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    current: Optional[int] = os.open(node, flags)
    try:
        for part in filter(None, path.split("/")):
            assert current is not None
            try:
                below = _open_directory(part, current)
            except (FileNotFoundError, NotADirectoryError):
                below = None
            except OSError as err:
                if err.errno != errno.ELOOP:
                    raise
                below = None
            os.close(current)
            current = below
            if current is None:
                break
        yield current
    finally:
        if current is not None:
            os.close(current)


def _open_directory(name: str, parent: int) -> int:
    """Open a directory, after giving its owner, who is us, the bits that entries need.

    A package may ship a directory that its owner cannot write; the last step for the directory
    sets its mode.
    """
    fd = os.open(
        name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
    )
    info = os.stat(fd)
    if info.st_mode & 0o300 != 0o300 and info.st_uid == os.geteuid() != 0:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(info.st_mode) | 0o300)
    return fd


def _lstat(parent: int, name: str) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _make_directory(parent: int, name: str) -> None:
    if _lstat(parent, name) is None:
        os.mkdir(name, 0o700, dir_fd=parent)


def _set_metadata(parent: int, name: str, metadata: Optional[Metadata]) -> None:
    info = _lstat(parent, name)
    if metadata is None or info is None or not stat.S_ISDIR(info.st_mode):
        return
    if (info.st_uid, info.st_gid) != (metadata.uid, metadata.gid):
        os.chown(name, metadata.uid, metadata.gid, dir_fd=parent, follow_symlinks=False)
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        place = f"/proc/self/fd/{fd}"
        os.chmod(place, metadata.mode)
        os.utime(place, ns=(metadata.mtime_ns, metadata.mtime_ns))
    finally:
        os.close(fd)


def _save(parent: int, name: str, place: str) -> bool:
    """Link a file into the previous generation; False when there is no such file."""
    info = _lstat(parent, name)
    if info is None or stat.S_ISDIR(info.st_mode):
        return False
    os.makedirs(os.path.dirname(place), exist_ok=True)
    try:
        os.link(name, place, src_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        pass  # linked before an interruption
    except PermissionError:
        # fs.protected_hardlinks, or a file that may not be linked: keep a copy.
        shutil.copy2(f"/proc/self/fd/{parent}/{name}", place, follow_symlinks=False)
    return True


def _remove_directory(parent: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as err:
        # An application put a file there since the transaction began: it stays.
        if err.errno != errno.ENOTEMPTY:
            raise
