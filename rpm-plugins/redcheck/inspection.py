# SPDX-License-Identifier: Apache-2.0
"""The files of one layer beside what its packages say.

Only directories that have changed are inspected: what this needs (the packages, librpm) is not
loaded for a layer without.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Collection, Iterable, Sequence

from redcheck.findings import Finding
from redcheck.owned import Owned, OwnedFile
from redcheck.scope import Layer
from redcheck.verify import Accounts, compare, describe, is_content_only
from redcheck.walk import parents
from redpak.errors import TYPE_CHECKING
from redpak.node import ADMIN_FILES, CONFIG_FILES

if TYPE_CHECKING:
    from redcheck.walk import Cannot, Entries

# Files of a node that are there without a package: redpak's own and dnf's.
_OWN_FILES = frozenset((*CONFIG_FILES, *ADMIN_FILES))
_OWN_DIRECTORIES = ("etc/yum.repos.d", "etc/dnf", "etc/pki/rpm-gpg", "usr/lib/sysimage/libdnf5")


class Inspection:
    """Inspects the directories of one layer. ``owned`` is what its packages own, by directory;
    ``derived`` matches paths of files that may be there without a package."""

    def __init__(self, layer: Layer, owned: Owned, accounts: Accounts, derived: re.Pattern[str],
                 cannot: Cannot) -> None:
        self._layer = layer
        self._base = layer.path.rstrip("/")
        self.owned = owned
        self.directories: set[str] = set()  # those with files of packages, and all above them
        for directory in owned:
            self.directories.update((directory, *parents(directory)))
        self._below: dict[str, list[str]] = {}  # their names, by the directory that they are in
        for directory in self.directories:
            above, slash, name = directory.rpartition("/")
            if slash:
                self._below.setdefault(above, []).append(name)
        self._accounts = accounts
        self._derived = derived
        self._cannot = cannot
        self._own = tuple(f"{name}/" for name in (*_OWN_DIRECTORIES, *layer.own_directories))

    def names(self, directory: str) -> list[str]:
        """The entries of a directory that packages say something of."""
        return sorted({*self.owned.get(directory, ()), *self._below.get(directory, ())})

    def check(self, directory: str, entries: Entries, *, strict: bool) -> Iterable[Finding]:
        """What is wrong in one directory. Files of no package count when ``strict``."""
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

    def find_absent(self, seen: Collection[str], unreadable: set[str]) -> Iterable[Finding]:
        """Files whose directory is not among those ``seen``, nor in one that is ``unreadable``,
        which was told."""
        for directory, names in sorted(self.owned.items()):
            if directory not in seen and unreadable.isdisjoint((directory, *parents(directory))):
                for files in names.values():
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
        if self._layer.is_core and not self.owned:
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


def match_any(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches a path that any of the shell ``patterns`` does."""
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")
