# SPDX-License-Identifier: Apache-2.0
"""The directories of one layer, and which of them have changed since they were last inspected.

A directory's *signature* covers the name, inode, size, mode and ctime of each entry: no file can
change without changing it, short of setting the clock back. Where the signature is what it was
when the directory was last looked at, the findings are too. A ctime of the last moments before a
look proves nothing, as clocks tick coarsely (git calls such an entry racily clean): those
directories are looked at again.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from redcheck.findings import Finding
from redcheck.leftovers import is_status_being_written
from redcheck.scope import Layer
from redpak.errors import TYPE_CHECKING
from redpak.node import RESERVED_DIRECTORIES, STATUS_FILE
from redpak.values import dataclass, field

if TYPE_CHECKING:
    from typing import Any

    from redcheck.inspection import Inspection

    Cannot = Callable[[str, OSError], None]  # hears what could not be looked at, and why
    # A directory's record: signature, names that count (None: all), findings.
    Record = list[Any]
    Entries = list[tuple[str, os.stat_result]]

_TYPE = 0o170000  # the bits of st_mode that S_IFMT() keeps
_IS_DIRECTORY = stat.S_IFDIR
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARGIN_NS = 2_000_000_000  # two seconds: the coarsest clock of a file system (FAT)
_SKIPPED = RESERVED_DIRECTORIES | {"private"}
# Below these anything may be: data of applications, caches, logs.
_LOOSE_TOPS = frozenset(("var", "run", "tmp", "dev", "proc", "sys", "home", "root"))
# Of a core OS, what its package manager alone fills.
_CORE_TOPS = frozenset(("usr", "opt"))


@dataclass
class Walk:
    """What one walk found, and what the next one needs to know."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    absent: list[Finding] = field(default_factory=list)  # files whose directory is missing
    is_whole: bool = True  # whether the records cover everything

    def all_findings(self) -> list[Finding]:
        """Everything that is wrong with the files."""
        return [*self.findings, *self.absent]


class LayerWalk:
    """Walks one layer. ``inspect`` makes what inspects directories, when one is to be; ``before``
    is an earlier walk over the same packages."""

    def __init__(self, layer: Layer, inspect: Callable[[Cannot], Inspection],
                 before: Walk | None) -> None:
        self._layer = layer
        self._base = layer.path.rstrip("/")
        self._inspect = inspect
        self._opened: Inspection | None = None
        self._before = before or Walk(is_whole=False)
        self._children = {path[len(self._base):] for path in layer.children}
        self._to_children = {parent for child in self._children for parent in parents(child)}
        self._unreadable: set[str] = set()
        self._limit = time.time_ns() - _MARGIN_NS
        self.result = Walk()

    @property
    def _inspection(self) -> Inspection:
        if self._opened is None:
            self._opened = self._inspect(self._cannot)
        return self._opened

    def run(self) -> Walk:
        """Walk the layer."""
        if not self._before.is_whole:
            _ = self._inspection
        pending = [""]
        seen: set[str] = set()
        while pending:
            directory = pending.pop()
            entries = self._read(directory)
            if entries is not None:
                seen.add(directory)
                pending += self._look(directory, entries)
        if self._opened is None:
            self.result.absent = self._before.absent
        else:
            self.result.absent = list(self._opened.find_absent(seen, self._unreadable))
        return self.result

    def _read(self, directory: str) -> Entries | None:
        full = self._base + directory
        try:
            entries = _read_entries(full or "/")
        except FileNotFoundError:
            return None
        except OSError as err:
            self._unreadable.add(directory)
            self._cannot(full, err)
            return None
        if not directory:
            # The status changes with every proof, and is checked elsewhere.
            entries = [entry for entry in entries if not (
                entry[0] == STATUS_FILE or is_status_being_written(entry[0]))]
        return entries

    def _look(self, directory: str, entries: Entries) -> list[str]:
        """Check the entries of one directory; the directories below it to look at."""
        strict = self._is_strict(directory)
        failures = len(self.result.unchecked)
        record = self._before.records.get(directory)
        names = None
        if not strict:
            names = (record[1] if record and self._opened is None
                     else self._inspection.names(directory))
        signature, newest = _sign(entries, names)
        if record is not None and record[0] == signature:
            findings = [Finding.restore(row) for row in record[2]]
        else:
            findings = list(self._inspection.check(directory, entries, strict=strict))
            if names is not None:
                names = self._inspection.names(directory)
                signature, newest = _sign(entries, names)
        self.result.findings += findings
        if newest < self._limit and failures == len(self.result.unchecked):
            self.result.records[directory] = [
                signature, names, [finding.stored() for finding in findings]]
        else:
            self.result.is_whole = False
        return [f"{directory}/{name}" for name, info in entries
                if info.st_mode & _TYPE == _IS_DIRECTORY
                and self._descends(directory, name, strict=strict)]

    def _is_strict(self, directory: str) -> bool:
        """Whether a file that no package owns is a finding here."""
        top = directory.split("/", 2)[1] if directory else ""
        if self._layer.is_core:
            return top in _CORE_TOPS
        return top not in _LOOSE_TOPS and directory not in self._to_children

    def _descends(self, directory: str, name: str, *, strict: bool) -> bool:
        path = f"{directory}/{name}"
        if path in self._children or (not directory and name in _SKIPPED):
            return False
        if self._layer.is_core and not directory and name in _CORE_TOPS:
            return True
        if strict and (self._layer.is_core or path not in self._to_children):
            return True
        return path in (self._before.records if self._opened is None else self._opened.directories)

    def _cannot(self, path: str, error: OSError) -> None:
        self.result.is_whole = False
        self.result.unchecked.append(f"{path}: {error.strerror}")


def _read_entries(path: str) -> Entries:
    """Names and status of what is in a directory, by name. Raises OSError."""
    # By descriptor: the kernel need not find the directory anew for each entry.
    descriptor = os.open(path, _DIRECTORY)
    try:
        with os.scandir(descriptor) as found:
            try:
                return sorted([(entry.name, entry.stat(follow_symlinks=False))
                               for entry in found])
            except FileNotFoundError:  # gone meanwhile, the directory is not
                return sorted(_stat_remaining(descriptor))
    finally:
        os.close(descriptor)


def _stat_remaining(descriptor: int) -> Iterator[tuple[str, os.stat_result]]:
    for name in os.listdir(descriptor):
        with suppress(FileNotFoundError):
            yield name, os.lstat(name, dir_fd=descriptor)


def _sign(entries: Entries, names: Collection[str] | None) -> tuple[str, int]:
    """The signature of a directory's entries (of those in ``names``), and the newest ctime."""
    if names is not None:
        chosen = frozenset(names)
        entries = [entry for entry in entries if entry[0] in chosen]
    rows: list[Any] = []  # flat: the mode tells how many members a row has
    newest = 0
    for name, info in entries:
        mode = info.st_mode
        if mode & _TYPE == _IS_DIRECTORY:
            # Its own signature tells what changes in it.
            rows += name, mode, info.st_uid, info.st_gid
        else:
            ctime = info.st_ctime_ns
            if ctime > newest:
                newest = ctime
            rows += name, mode, info.st_ino, info.st_size, ctime
    # Version 2: the same values give the same bytes, whoever else refers to them.
    return hashlib.blake2b(marshal.dumps(rows, 2), digest_size=16).hexdigest(), newest


def parents(path: str) -> list[str]:
    """The directories above ``path``, without the root itself."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)]
