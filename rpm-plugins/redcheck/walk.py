# SPDX-License-Identifier: Apache-2.0
"""The files of one layer beside what its packages say, directory by directory.

A directory's *signature* covers the name, inode, size, mode and ctime of each entry: no file can
change without changing it, short of setting the clock back. Where the signature is what it was
when the directory was last looked at, the findings are too. A ctime of the last moments before a
look proves nothing, as clocks tick coarsely (git calls such an entry racily clean): those
directories are looked at again.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redcheck.findings import Finding
from redcheck.leftovers import is_status_being_written
from redcheck.owned import Owned, OwnedFile
from redcheck.scope import Layer
from redcheck.verify import Accounts, compare, describe, is_content_only
from redpak.node import ADMIN_FILES, CONFIG_FILES, RESERVED_DIRECTORIES, STATUS_FILE

_TYPE = 0o170000  # the bits of st_mode that S_IFMT() keeps
_MARGIN_NS = 2_000_000_000  # two seconds: the coarsest clock of a file system (FAT)
# Files of a node that are there without a package: redpak's own and dnf's.
_OWN_FILES = frozenset((*CONFIG_FILES, *ADMIN_FILES))
_OWN_DIRECTORIES = ("etc/yum.repos.d", "etc/dnf", "etc/pki/rpm-gpg", "usr/lib/sysimage/libdnf5")
_SKIPPED = RESERVED_DIRECTORIES | {"private"}
# Below these anything may be: data of applications, caches, logs.
_LOOSE_TOPS = frozenset(("var", "run", "tmp", "dev", "proc", "sys", "home", "root"))
# Of a core OS, what its package manager alone fills.
_CORE_TOPS = frozenset(("usr", "opt"))

# A directory's record: signature, names that count (None: all), findings.
Record = list[Any]
Entries = list[tuple[str, os.stat_result]]


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
    """Walks one layer. ``load`` gives what its packages own, when that is needed; ``before`` is
    an earlier walk over the same packages."""

    def __init__(self, layer: Layer, load: Callable[[], Owned], accounts: Accounts,
                 derived: re.Pattern[str], before: Walk | None) -> None:
        self._layer = layer
        self._base = layer.path.rstrip("/")
        self._load = load
        self._owned: Owned | None = None
        self._owned_directories: set[str] = set()
        self._accounts = accounts
        self._derived = derived
        self._before = before or Walk(is_whole=False)
        self._children = {path[len(self._base):] for path in layer.children}
        self._to_children = {parent for child in self._children for parent in _parents(child)}
        self._own = _own_directories(layer)
        self._unreadable: set[str] = set()
        self._limit = time.time_ns() - _MARGIN_NS
        self.result = Walk()

    @property
    def owned(self) -> Owned:
        """What the packages own, by directory."""
        if self._owned is None:
            self._owned = self._load()
            for directory in self._owned:
                self._owned_directories.update((directory, *_parents(directory)))
        return self._owned

    def run(self) -> Walk:
        """Walk the layer."""
        if not self._before.is_whole:
            _ = self.owned
        pending = [""]
        seen: set[str] = set()
        while pending:
            directory = pending.pop()
            entries = self._read(directory)
            if entries is not None:
                seen.add(directory)
                pending += self._look(directory, entries)
        if self._owned is None:
            self.result.absent = self._before.absent
        else:
            self.result.absent = list(self._find_absent(seen))
        return self.result

    def _read(self, directory: str) -> Entries | None:
        full = self._base + directory
        entries: Entries = []
        try:
            with os.scandir(full or "/") as found:
                # The status changes with every proof, and is checked elsewhere.
                names = [entry for entry in found if directory or not (
                    entry.name == STATUS_FILE or is_status_being_written(entry.name))]
            for entry in names:
                with suppress(FileNotFoundError):  # gone meanwhile, the directory is not
                    entries.append((entry.name, entry.stat(follow_symlinks=False)))
        except FileNotFoundError:
            return None
        except OSError as err:
            self._unreadable.add(directory)
            self._cannot(full, err)
            return None
        return sorted(entries)

    def _look(self, directory: str, entries: Entries) -> list[str]:
        """Check the entries of one directory; the directories below it to look at."""
        strict = self._is_strict(directory)
        failures = len(self.result.unchecked)
        record = self._before.records.get(directory)
        names = None
        if not strict:
            names = record[1] if record and self._owned is None else self._names(directory)
        signature, newest = _sign(entries, names)
        if record is not None and record[0] == signature:
            findings = [Finding.restore(row) for row in record[2]]
        else:
            findings = list(self._check(directory, entries, strict=strict))
            if names is not None:
                names = self._names(directory)
                signature, newest = _sign(entries, names)
        self.result.findings += findings
        if newest < self._limit and failures == len(self.result.unchecked):
            self.result.records[directory] = [
                signature, names, [finding.stored() for finding in findings]]
        else:
            self.result.is_whole = False
        return [f"{directory}/{name}" for name, info in entries
                if stat.S_ISDIR(info.st_mode) and self._descends(directory, name, strict=strict)]

    def _names(self, directory: str) -> list[str]:
        return sorted(self.owned.get(directory, ()))

    def _is_strict(self, directory: str) -> bool:
        """Whether a file that no package owns is a finding here."""
        top = directory.split("/", 2)[1] if directory else ""
        return top in _CORE_TOPS if self._layer.is_core else top not in _LOOSE_TOPS

    def _descends(self, directory: str, name: str, *, strict: bool) -> bool:
        path = f"{directory}/{name}"
        if path in self._children or (not directory and name in _SKIPPED):
            return False
        if not self._layer.is_core and path in self._to_children:
            return False
        if strict or (self._layer.is_core and not directory and name in _CORE_TOPS):
            return True
        known = self._before.records if self._owned is None else self._owned_directories
        return path in known

    def _check(self, directory: str, entries: Entries, *, strict: bool) -> Iterable[Finding]:
        wanted = self.owned.get(directory, {})
        present = set()
        for name, info in entries:
            present.add(name)
            files = wanted.get(name)
            if files:
                yield from self._compare(directory, name, info, files)
            elif strict and not stat.S_ISDIR(info.st_mode):
                yield from self._stray(f"{directory}/{name}")
        for name, files in wanted.items():
            if name not in present:
                yield from self._missing(files)

    def _compare(self, directory: str, name: str, info: os.stat_result,
                 files: Sequence[OwnedFile]) -> Iterable[Finding]:
        place = f"{self._base}{directory}/{name}"
        for file in files:
            if file.is_replaced:
                continue
            try:
                difference = compare(file, place, info, self._accounts)
            except OSError as err:
                self._cannot(place, err)
                continue
            if not difference:
                continue
            changed = file.is_config and is_content_only(difference)
            yield self._layer.finding(
                "changed-config" if changed else "changed-file",
                f"{file.path}: {describe(difference)}", package=file.package, path=file.path)

    def _stray(self, path: str) -> Iterable[Finding]:
        relative = path[1:]
        if relative in _OWN_FILES or relative.startswith(self._own):
            return
        if self._layer.is_core and not self._owned:
            return  # it has no packages: nothing could own a file
        rule = "derived-file" if self._derived.fullmatch(path) else "unowned-file"
        yield self._layer.finding(rule, f"{path} belongs to no package", path=path)

    def _missing(self, files: Sequence[OwnedFile]) -> Iterable[Finding]:
        for file in files:
            if not file.may_be_missing and self._could_be_made(file):
                yield self._layer.finding("missing-file", f"{file.path} is missing",
                                          package=file.package, path=file.path)

    def _could_be_made(self, file: OwnedFile) -> bool:
        """Only root makes devices: an ordinary user's node is without."""
        is_device = stat.S_ISCHR(file.mode) or stat.S_ISBLK(file.mode)
        return self._accounts.privileged or not is_device

    def _find_absent(self, seen: set[str]) -> Iterable[Finding]:
        for directory, names in sorted(self.owned.items()):
            if directory not in seen and not self._is_hidden(directory):
                for files in names.values():
                    yield from self._missing(files)

    def _is_hidden(self, directory: str) -> bool:
        """Whether the directory could not be looked at, which was told."""
        return not self._unreadable.isdisjoint((directory, *_parents(directory)))

    def _cannot(self, path: str, error: OSError) -> None:
        self.result.is_whole = False
        self.result.unchecked.append(f"{path}: {error.strerror}")


def _sign(entries: Entries, names: Collection[str] | None) -> tuple[str, int]:
    """The signature of a directory's entries (of those in ``names``), and the newest ctime."""
    if names is not None:
        chosen = frozenset(names)
        entries = [entry for entry in entries if entry[0] in chosen]
    rows: list[tuple[Any, ...]] = []
    newest = 0
    for name, info in entries:
        if info.st_mode & _TYPE == stat.S_IFDIR:
            # Its own signature tells what changes in it.
            rows.append((name, info.st_mode, info.st_uid, info.st_gid))
        else:
            ctime = info.st_ctime_ns
            newest = max(newest, ctime)
            rows.append((name, info.st_mode, info.st_ino, info.st_size, ctime))
    # repr() tells different rows apart, and is quick.
    return hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest(), newest


def _parents(path: str) -> list[str]:
    """The directories above ``path``, without the root itself."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _own_directories(layer: Layer) -> tuple[str, ...]:
    """Prefixes of what redpak and dnf keep in a node."""
    own = [f"{name}/" for name in _OWN_DIRECTORIES]
    if layer.node is not None:
        node = layer.node
        places = (node.rpmdb_dir, node.persist_dir, node.cache_dir, node.log_dir)
        own += [f"{os.path.relpath(place, node.path)}/" for place in places]
    return tuple(own)
