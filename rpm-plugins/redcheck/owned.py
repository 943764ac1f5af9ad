# SPDX-License-Identifier: Apache-2.0
"""The files of packages, as their headers describe them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import rpm

from redcheck.rootfs import FamilyPaths
from redpak.errors import TYPE_CHECKING

if TYPE_CHECKING:
    from redcheck.packages import Package

# rpm/rpmcrypto.h, hash algorithms (RFC 9580, 9.5), as hashlib calls them.
_ALGORITHMS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224",
               12: "sha3_256", 14: "sha3_512"}
# lib/rpmfiles.h, rpmfileState: the others were never installed.
_NORMAL, _REPLACED = 0, 1
_GHOST, _CONFIG, _MISSING_OK = rpm.RPMFILE_GHOST, rpm.RPMFILE_CONFIG, rpm.RPMFILE_MISSINGOK


class OwnedFile(NamedTuple):
    """One file of one package. ``path`` is as the package has it; sizes in bytes, times in s."""

    path: str
    package: str
    mode: int
    size: int
    mtime: int
    digest: str
    algorithm: str  # as hashlib calls it, "" for one that it does not know
    link: str
    flags: int
    verify: int  # RPMVERIFY_*: what the package wants compared
    user: str
    group: str
    device: int
    capabilities: str
    color: int
    is_replaced: bool  # by the file of a package that was forced in: it only has to be there

    @property
    def is_ghost(self) -> bool:
        """Whether the package only claims the path."""
        return bool(self.flags & _GHOST)

    @property
    def is_config(self) -> bool:
        """Whether an administrator is meant to change it."""
        return bool(self.flags & _CONFIG)

    @property
    def may_be_missing(self) -> bool:
        """Whether the package stands its absence."""
        return bool(self.flags & (_GHOST | _MISSING_OK))


# By directory of the layer (canonical, "" is its root), then by name.
Owned = dict[str, dict[str, list[OwnedFile]]]


def read_files(package: Package) -> Iterator[tuple[str, str, OwnedFile]]:
    """Directory (as the package has it), name and description of each file that was installed."""
    header = package.header
    names = header[rpm.RPMTAG_BASENAMES]
    if not names:
        return
    directories = [_text(name).rstrip("/") for name in header[rpm.RPMTAG_DIRNAMES]]
    count = len(names)
    algorithm = _ALGORITHMS.get(header[rpm.RPMTAG_FILEDIGESTALGO] or 1, "")
    rows = zip(
        names, header[rpm.RPMTAG_DIRINDEXES], header[rpm.RPMTAG_FILEMODES],
        header[rpm.RPMTAG_LONGFILESIZES] or header[rpm.RPMTAG_FILESIZES],
        header[rpm.RPMTAG_FILEMTIMES], header[rpm.RPMTAG_FILEDIGESTS],
        header[rpm.RPMTAG_FILELINKTOS], header[rpm.RPMTAG_FILEFLAGS],
        header[rpm.RPMTAG_FILEVERIFYFLAGS], header[rpm.RPMTAG_FILEUSERNAME],
        header[rpm.RPMTAG_FILEGROUPNAME], header[rpm.RPMTAG_FILERDEVS],
        _padded(header, rpm.RPMTAG_FILECAPS, count, ""),
        _padded(header, rpm.RPMTAG_FILECOLORS, count, 0),
        _padded(header, rpm.RPMTAG_FILESTATES, count, _NORMAL))
    for (name, directory_index, mode, size, mtime, digest, link, flags, verify, user, group,
         device, capabilities, color, state) in rows:
        if state not in (_NORMAL, _REPLACED):
            continue
        name, directory = _text(name), directories[directory_index]
        yield directory, name, OwnedFile(
            f"{directory}/{name}", package.label, mode & 0xffff, size, mtime, digest, algorithm,
            link, flags, verify, user, group, device, capabilities or "", color, state == _REPLACED)


def collect_owned(packages: Iterable[Package], paths: FamilyPaths) -> Owned:
    """All files of ``packages``, where the family has them."""
    owned: Owned = {}
    for package in packages:
        for directory, name, file in read_files(package):
            place = owned.setdefault(paths.directory(directory), {})
            place.setdefault(name, []).append(file)
    return owned


def restore_owned(stored: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]) -> Owned:
    """What collect_owned() gave, once JSON has said it."""
    return {directory: {name: [OwnedFile(*row) for row in rows] for name, rows in names.items()}
            for directory, names in stored.items()}


def _padded(header: Any, tag: int, count: int, default: Any) -> list[Any]:
    values = header[tag]
    # Without files of its kind a header lacks the whole array.
    return list(values) if values and len(values) == count else [default] * count


def _text(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)
