# SPDX-License-Identifier: Apache-2.0
"""Adoption: what a core OS without rpm packages provides, as one package in an rpmdb of ours.

Debian hosts and many Yocto images have no rpmdb. Packages of a node need their C library and shell
all the same: a generated package provides them, and rpm and the solver see it as installed
(design section 8). The host's own package database is never touched.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import rpm

from redpak.errors import RedpakError
from redpak.family import Main
from redpak.osrelease import read_os_release
from redpak.values import dataclass, replace
from redrpm.hostfacts import read_host_facts, stamp
from redrpm.rpmdb import (
    database_files,
    header_stream,
    import_headers,
    make_readable,
    open_rpmdb,
    read_names,
)

PACKAGE = "redpak-core-os"
_EQUAL = rpm.RPMSENSE_EQUAL
_BINARY = 7  # rpmtag.h, RPM_BIN_TYPE: no binding names it everywhere




@dataclass(frozen=True)
class Adoption:
    """What is registered, and where; ``changed`` is false when it was so before."""

    rpmdb_dir: str
    summary: str
    provides: Mapping[str, str]  # versions by name
    changed: bool = False

    @property
    def libraries(self) -> int:
        """How many sonames and symbol versions of libraries."""
        return sum(".so" in name and not name.startswith("/") for name in self.provides)

    @property
    def programs(self) -> int:
        """How many programs and dynamic loaders."""
        return sum(name.startswith("/") for name in self.provides)

    def describe(self) -> str:
        """Everything, one a line, for people."""
        lines = [f"{self.summary}, registered in {self.rpmdb_dir}:"]
        for name, version in sorted(self.provides.items()):
            lines.append(f"{name} = {version}" if version else name)
        return "\n".join(lines)


def adopt_core_os(main: Main, *, refresh: bool = False) -> Adoption:
    """Register what the running core OS provides in the rpmdb that main.yaml names.

    Nothing is scanned when nothing changed since the last time, unless ``refresh`` insists. Raises
    RedpakError, with nothing changed.
    """
    directory = main.rpmdb_dir
    foreign = sorted(set(read_names(directory).values()) - {PACKAGE})
    if foreign:
        raise RedpakError(
            f"{directory}: the core OS has an rpmdb ({len(foreign)} packages), nothing to adopt"
        )
    mark = stamp()
    known = _read_header(directory)
    if known is not None and not refresh and known[rpm.RPMTAG_COOKIE] == mark:
        return _describe(directory, known)
    facts = read_host_facts()
    header = _make_header(read_os_release(), facts.provides, mark)
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".adopt-") as fresh:
            import_headers(fresh, header_stream([header]))
            make_readable(fresh)
            for name in os.listdir(fresh):
                os.chmod(f"{fresh}/{name}", 0o644)
                os.rename(f"{fresh}/{name}", f"{directory}/{name}")
    except OSError as err:
        raise _cannot_write(main, err) from err
    return replace(_describe(directory, header), changed=True)


def show_adoption(main: Main) -> Adoption:
    """What is registered. Raises RedpakError when nothing is."""
    header = _read_header(main.rpmdb_dir)
    if header is None:
        raise RedpakError(f"{main.rpmdb_dir}: the core OS is not adopted",
                          hint="adopt it with red-manager --adopt")
    return _describe(main.rpmdb_dir, header)


def unadopt_core_os(main: Main) -> bool:
    """Undo the adoption; whether there was one. Raises RedpakError."""
    directory = main.rpmdb_dir
    names = sorted(set(read_names(directory).values()))
    if PACKAGE not in names:
        return False
    if names != [PACKAGE]:
        raise RedpakError(f"{directory}: holds other packages too, it is not an adoption's alone")
    try:
        for name in database_files(directory):
            os.unlink(f"{directory}/{name}")
    except OSError as err:
        raise _cannot_write(main, err) from err
    return True


def _cannot_write(main: Main, err: OSError) -> RedpakError:
    return RedpakError(
        f"{main.rpmdb_dir}: cannot write the rpmdb of the core OS: {err.strerror}",
        hint="run it as the owner of that directory, or name another one (rpmdir) in"
        f" {main.file}",
    )


def _read_header(directory: str) -> Any:
    """The header of an adopted core OS; None when there is none. Raises RedpakError."""
    if PACKAGE not in read_names(directory).values():
        return None
    with open_rpmdb(directory) as ts:
        return next(iter(ts.dbMatch("name", PACKAGE)))


def _describe(directory: str, header: Any) -> Adoption:
    pairs = zip(header[rpm.RPMTAG_PROVIDENAME], header[rpm.RPMTAG_PROVIDEVERSION])
    return Adoption(directory, header[rpm.RPMTAG_SUMMARY], dict(pairs))


def _make_header(release: dict[str, str], facts: Mapping[str, str], mark: str) -> Any:
    version = release.get("VERSION_ID", "0").replace("-", "_") or "0"
    provides = {PACKAGE: f"{version}-1", "system-release": version,
                "system-release(releasever)": version, **facts}
    header = rpm.hdr()
    header[rpm.RPMTAG_NAME] = PACKAGE
    header[rpm.RPMTAG_VERSION] = version
    header[rpm.RPMTAG_RELEASE] = "1"
    header[rpm.RPMTAG_ARCH] = rpm.expandMacro("%{_arch}")
    header[rpm.RPMTAG_OS] = "linux"
    header[rpm.RPMTAG_SUMMARY] = f"What {release.get('PRETTY_NAME', 'the core OS')} provides"
    header[rpm.RPMTAG_DESCRIPTION] = "Generated by red-manager --adopt; it has no files."
    header[rpm.RPMTAG_LICENSE] = "Apache-2.0"
    header[rpm.RPMTAG_SIZE] = 0
    header[rpm.RPMTAG_INSTALLTIME] = int(time.time())
    header[rpm.RPMTAG_COOKIE] = mark
    header[rpm.RPMTAG_PROVIDENAME] = list(provides)
    header[rpm.RPMTAG_PROVIDEVERSION] = list(provides.values())
    header[rpm.RPMTAG_PROVIDEFLAGS] = [_EQUAL if each else 0 for each in provides.values()]
    return rpm.hdr(_seal(header.unload()))


def _seal(blob: bytes) -> bytes:
    """A header's entries as an immutable region, as rpmbuild makes them: rpm 6 imports no other.

    The region is an index entry before all others, and a copy of it behind the data that says how
    many bytes of index it covers (rpm's format of headers).
    """
    count, size = struct.unpack_from(">II", blob)
    entry = struct.pack(">IIiI", rpm.RPMTAG_HEADERIMMUTABLE, _BINARY, size, 16)
    trailer = struct.pack(
        ">IIiI", rpm.RPMTAG_HEADERIMMUTABLE, _BINARY, -16 * (count + 1), 16
    )
    lead = struct.pack(">II", count + 1, size + 16)
    return lead + entry + blob[8:] + trailer
