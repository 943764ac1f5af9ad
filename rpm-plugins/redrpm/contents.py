# SPDX-License-Identifier: Apache-2.0
"""What a transaction is about to write, read from the headers of its packages.

The view needs it before the first file is written: which directories to make writable, which
configuration files of the core OS must not turn the package's own into `.rpmnew`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any

import rpm

from redpak.errors import RedpakError
from redpak.values import dataclass
from redrpm.rpmdb import nevra

# Made fresh for each view (design section 3.3): what lands there is not kept.
VOLATILE_TOPS = frozenset({"dev", "proc", "run", "sys", "tmp"})
# What rpm 4.19 and later start to make the accounts that a package declares, sysusers.d(5).
SYSUSERS = "%{?__systemd_sysusers}"
# By tag; what rpm before 4.19 does not know is left out.
_INCOMING = ("pretrans", "pre", "post", "posttrans")
_OUTGOING = ("preuntrans", "preun", "postun", "postuntrans")
_SCRIPT_TAGS = {"pre": "PREIN", "post": "POSTIN"}
_TRIGGER_TAGS = (
    ("trigger", rpm.RPMTAG_TRIGGERSCRIPTS),
    ("filetrigger", rpm.RPMTAG_FILETRIGGERSCRIPTS),
    ("transfiletrigger", rpm.RPMTAG_TRANSFILETRIGGERSCRIPTS),
)


@dataclass(frozen=True)
class TransactionContents:
    """Absolute paths that packages to install bring; directories without trailing slash."""

    directories: frozenset[str] = frozenset()
    configs: frozenset[str] = frozenset()
    symlinks: frozenset[str] = frozenset()

    @property
    def tops(self) -> set[str]:
        """Names of the top-level directories the packages write below."""
        return {path.split("/", 2)[1] for path in self.directories if path != "/"}


def read_header(path: str) -> Any:
    """The header of a package file. Raises RedpakError."""
    (header,) = read_headers([path])
    return header


def read_headers(paths: Iterable[str]) -> list[Any]:
    """The headers of package files, signatures unchecked (dnf or rpm check them).

    Raises RedpakError.
    """
    ts = rpm.TransactionSet()
    ts.setVSFlags(-1)
    headers = []
    for path in paths:
        try:
            with open(path, "rb") as stream:
                headers.append(ts.hdrFromFdno(stream.fileno()))
        except OSError as err:
            raise RedpakError(f"{path}: {err.strerror}") from err
        except rpm.error as err:
            raise RedpakError(f"{path}: not an rpm package: {err}") from err
    return headers


def read_contents(headers: Iterable[Any]) -> TransactionContents:
    """Collect the paths of ``headers``. Raises RedpakError for what a node cannot hold."""
    directories: set[str] = set()
    configs: set[str] = set()
    symlinks: set[str] = set()
    for header in headers:
        if header.isSource():
            raise RedpakError(f"{header[rpm.RPMTAG_NAME]}: is a source package",
                              hint="a node takes packages that rpmbuild has built")
        links: dict[int, tuple[str, str]] = {}
        for entry in rpm.files(header):
            name = os.fsdecode(entry.name) if isinstance(entry.name, bytes) else entry.name
            _check_name(header, name)
            directory = os.path.dirname(name)
            if directory == "/":
                _check_top_level(header, entry, name)
            directories.add(directory)
            if entry.fflags & rpm.RPMFILE_CONFIG and not entry.fflags & rpm.RPMFILE_GHOST:
                configs.add(name)
            if entry.nlink > 1:
                _check_hard_link(header, entry, name, links)
            if entry.linkto:
                symlinks.add(name)
            elif stat.S_ISDIR(entry.mode):
                directories.add(name)
    return TransactionContents(frozenset(directories), frozenset(configs), frozenset(symlinks))


def _scriptlet_names(header: Any, wanted: Iterable[str]) -> list[str]:
    names = []
    for name in wanted:
        tag = getattr(rpm, f"RPMTAG_{_SCRIPT_TAGS.get(name, name.upper())}", None)
        if tag is not None and header[tag]:
            names.append(name)
    return names + [name for name, tag in _TRIGGER_TAGS if header[tag]]


def declares_accounts(header: Any) -> bool:
    """Whether rpm makes accounts for a package: it provides them with a line of sysusers.d(5)."""
    return any(
        version and name.startswith(("user(", "group(", "groupmember("))
        for name, version in zip(header[rpm.RPMTAG_PROVIDENAME], header[rpm.RPMTAG_PROVIDEVERSION])
    )


def list_scriptlets(incoming: Iterable[Any], outgoing: Iterable[Any]) -> list[str]:
    """A line for each package that has scriptlets for its installation or removal, or triggers, by
    their names in a spec file."""
    named = []
    for header in incoming:
        sysusers = ["sysusers"] if declares_accounts(header) and rpm.expandMacro(SYSUSERS) else []
        named.append((header, sysusers + _scriptlet_names(header, _INCOMING)))
    named += [(header, _scriptlet_names(header, _OUTGOING)) for header in outgoing]
    return [f"{nevra(header)}: {', '.join(names)}" for header, names in named if names]


def lost_capabilities(headers: Iterable[Any]) -> list[str]:
    """A line for each package whose file capabilities only root can set."""
    return [
        f"{nevra(header)}: file capabilities are not set, root is needed"
        for header in headers
        if any(header[rpm.RPMTAG_FILECAPS])
    ]


def _check_name(header: Any, name: str) -> None:
    """Nobody has vouched for the package yet, and its paths are about to be joined to ours."""
    root, *parts = name.split("/")
    if root or (name != "/" and not {"", ".", ".."}.isdisjoint(parts)):
        raise RedpakError(f"{header[rpm.RPMTAG_NAME]}: ships {name!r}, which is no path of a file",
                          hint="do not install this package")


def _check_top_level(header: Any, entry: Any, name: str) -> None:
    if stat.S_ISDIR(entry.mode) or (os.path.islink(name) and os.readlink(name) == entry.linkto):
        return
    raise RedpakError(
        f"{header[rpm.RPMTAG_NAME]}: ships {name}, a file in the root directory itself",
        hint="a node holds files below top-level directories only",
    )


def _check_hard_link(
    header: Any, entry: Any, name: str, links: dict[int, tuple[str, str]]
) -> None:
    """Each top-level directory is a file system of its own in the view; links cannot cross."""
    top = name.split("/", 2)[1]
    first_top, first_name = links.setdefault(entry.inode, (top, name))
    if first_top != top:
        raise RedpakError(
            f"{header[rpm.RPMTAG_NAME]}: hard link from {first_name} to {name}",
            hint="hard links across top-level directories cannot be kept in a node",
        )
