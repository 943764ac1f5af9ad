# SPDX-License-Identifier: Apache-2.0
"""The journal: a commit as a list of steps, written down before the first one is taken.

Each step can see that it is already done, so an interrupted commit is finished by taking all of
them again (design section 4). What a step replaces or removes is linked into the previous
generation first.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import groupby
from typing import Optional

from redpak.errors import RedpakError
from redpak.values import dataclass
from redrpm.running import find_oldest_start, is_in_use, keep_layers_only, leave_layers
from redrpm.stage import Stage
from redsys import libc
from redsys.trees import remove_tree

_VERSION = 1
# What reading a damaged journal, or taking its steps, may raise.
BAD_JOURNAL = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class StepKind(Enum):
    """What a step does to its path in the node."""

    MAKE_DIRECTORY = "mkdir"
    PUT_FILE = "put"
    REMOVE_FILE = "remove"
    REMOVE_DIRECTORY = "rmdir"
    SET_METADATA = "meta"


@dataclass(frozen=True)
class Metadata:
    """Owner, permission bits, modification time (ns) and extended attributes of a directory.

    An owner of -1 is whoever commits: an ordinary user can name no other, and what the ids are
    called in the user namespace must not be written down. The attributes are those that the owner
    may set: the user class and POSIX ACLs, as pairs of name and value in hexadecimal.
    """

    uid: int
    gid: int
    mode: int
    mtime_ns: int
    attributes: Sequence[Sequence[str]] = ()

    @classmethod
    def of(
        cls, path: str, info: Optional[os.stat_result] = None, *, owner: bool = True
    ) -> Metadata:
        """Of the directory ``path``; ``info`` is what its stat was, if it has changed since."""
        info = info or os.lstat(path)
        attributes = []
        with contextlib.suppress(PermissionError):
            attributes = [
                (name, os.getxattr(path, name).hex())
                for name in sorted(os.listxattr(path))
                if name.startswith(("user.", "system.posix_acl_"))
            ]
        mode = stat.S_IMODE(info.st_mode)
        uid, gid = (info.st_uid, info.st_gid) if owner else (-1, -1)
        return cls(uid, gid, mode, info.st_mtime_ns, attributes)


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
        """Read what dump() wrote. Raises one of BAD_JOURNAL for anything else, RedpakError for what
        another version of redpak wrote."""
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise RedpakError(
                f"the journal has the format {document['version']} of another version of redpak",
                hint="use that version once more: red-manager --recover",
            )
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


def saved_path(previous: str, number: int) -> str:
    """Where the previous generation keeps what step ``number`` replaced or removed."""
    return f"{previous}/{number}"


def commit(node: str, state_dir: str, stage: Stage, journal: Journal) -> None:
    """Make the node what the stage holds, whatever may kill us on the way.

    Raises RedpakError; when the journal was already written, the next command finishes the commit.
    """
    path = journal_path(state_dir)
    try:
        stage.mark(journal.generation)
        with open(f"{path}.tmp", "wb", opener=_open_private) as stream:
            stream.write(journal.dump())
        libc.syncfs(stage.path)
        os.rename(f"{path}.tmp", path)
        libc.fsync(state_dir)
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
        if not os.path.isdir(stage.path):
            raise ValueError("its stage is gone")
        leave_layers(node, stage, saved, [step.path for step in journal.steps])
        numbered = enumerate(journal.steps)
        for directory, steps in groupby(numbered, lambda pair: os.path.dirname(pair[1].path)):
            with _reach_directory(node, directory) as parent:
                for number, step in steps:
                    if parent is not None:
                        _take(step, parent, stage.path, saved_path(saved, number))
                    elif step.kind is StepKind.PUT_FILE and _is_staged(step, stage.path):
                        raise NotADirectoryError(errno.ENOTDIR, "is no directory", directory)
                    # Else a later step has put something else in place of the directory.
        libc.syncfs(node)
        # One rename ends the commit: the journal becomes the description of what it replaced.
        os.rename(path, f"{saved}/journal")
        libc.fsync(saved)
        libc.fsync(state_dir)
    except BAD_JOURNAL as err:
        raise RedpakError(
            f"{path}: damaged journal: {err}",
            hint="restore the node from a backup, or create it anew",
        ) from err
    except OSError as err:
        raise RedpakError(
            f"{node}: the commit was interrupted: {err.filename or err}: {err.strerror}",
            hint="put that right; the next command on the node finishes it",
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
    """Remove every previous generation but ``keep``, incomplete ones included, and but for the
    directories that applications still run on."""
    others = [name for name in os.listdir(state_dir)
              if name.startswith("previous.") and name != f"previous.{keep}"]
    oldest_start = find_oldest_start(os.path.dirname(state_dir)) if others else None
    for name in others:
        saved, number = f"{state_dir}/{name}", name.partition(".")[2]
        if number.isdigit() and is_in_use(saved, int(number), oldest_start):
            keep_layers_only(saved)
        else:
            remove_tree(saved)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _take(step: Step, parent: int, stage: str, saved: str) -> None:
    """Take one step in the directory that is open as ``parent``."""
    name = os.path.basename(step.path)
    if step.kind is StepKind.MAKE_DIRECTORY:
        _make_directory(parent, name, saved)
    elif step.kind is StepKind.SET_METADATA:
        _set_metadata(parent, name, step.metadata)
    elif step.kind is StepKind.PUT_FILE:
        if _is_staged(step, stage):
            _save(parent, name, saved)
            os.rename(f"{stage}/{step.source}", name, dst_dir_fd=parent)
    elif step.kind is StepKind.REMOVE_FILE:
        info = _lstat(parent, name)
        if info is not None and not stat.S_ISDIR(info.st_mode):
            _save(parent, name, saved)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
    else:
        _remove_directory(parent, name)


def _is_staged(step: Step, stage: str) -> bool:
    """Whether a put is still to be done: its rename takes the source away."""
    return os.path.lexists(f"{stage}/{step.source}")


@contextlib.contextmanager
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


def _make_directory(parent: int, name: str, saved: str) -> None:
    info = _lstat(parent, name)
    if info is not None and not stat.S_ISDIR(info.st_mode):
        # An application put a file there since the transaction began.
        os.rename(name, saved, src_dir_fd=parent)
        info = None
    if info is None:
        os.mkdir(name, 0o700, dir_fd=parent)


def _set_metadata(parent: int, name: str, metadata: Optional[Metadata]) -> None:
    info = _lstat(parent, name)
    if metadata is None or info is None or not stat.S_ISDIR(info.st_mode):
        return
    if metadata.uid >= 0 and (info.st_uid, info.st_gid) != (metadata.uid, metadata.gid):
        os.chown(name, metadata.uid, metadata.gid, dir_fd=parent, follow_symlinks=False)
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        place = f"/proc/self/fd/{fd}"
        os.chmod(place, metadata.mode)
        for key, value in metadata.attributes:
            # A file system without them, as a target may have, is no reason to stop.
            with contextlib.suppress(OSError):
                os.setxattr(place, key, bytes.fromhex(value))
        os.utime(place, ns=(metadata.mtime_ns, metadata.mtime_ns))
    finally:
        os.close(fd)


def _save(parent: int, name: str, place: str) -> None:
    """Keep what stands at ``name``, if anything, in the previous generation."""
    info = _lstat(parent, name)
    if info is None:
        return
    if stat.S_ISDIR(info.st_mode):
        # An application made it since the transaction began: a rename makes room for the file.
        os.rename(name, place, src_dir_fd=parent)
        return
    try:
        os.link(name, place, src_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        pass  # linked before an interruption
    except OSError as err:
        # fs.protected_hardlinks (somebody else's file in the node of an ordinary user), another
        # subvolume, a file system without links, or too many: the file is away for a moment.
        if err.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK):
            raise
        os.rename(name, place, src_dir_fd=parent)


def _remove_directory(parent: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as err:
        # An application put a file there since the transaction began: it stays.
        if err.errno != errno.ENOTEMPTY:
            raise
