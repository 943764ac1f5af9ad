# SPDX-License-Identifier: Apache-2.0
"""What a host without rpm packages has: libraries, programs, interpreters, packages of dpkg.

Only what is really there is told, in the names by which packages of rpm require it. dpkg's names
stand in parentheses, dpkg(libc6): bare, they would satisfy the requirement of an rpm package that
merely has the same name and means other files.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator

import rpm

from redpak.values import dataclass
from redsys.run import run

DPKG_STATUS = "/var/lib/dpkg/status"
_PROGRAM_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
_LOADERS = ("/lib/ld-*.so*", "/lib64/ld-*.so*", "/usr/lib/ld-*.so*", "/usr/lib64/ld-*.so*")
# What changes when any of that does; ldconfig writes its cache whenever a library comes or goes.
_WITNESSES = (
    "/etc/ld.so.cache", "/etc/os-release", "/etc/passwd", "/etc/group", DPKG_STATUS,
    *_PROGRAM_DIRECTORIES,
)
# Part of the stamp: what this module makes of a host. Count it up when that changes.
_EDITION = "2"
# glibc's package provides this by hand: the dynamic linker reads DT_GNU_HASH.
_ALWAYS = ("rtld(GNU_HASH)",)


@dataclass(frozen=True)
class HostFacts:
    """Provides of the host: of libraries, of programs and loaders by path, of accounts; versions
    by name."""

    libraries: tuple[str, ...]
    files: tuple[str, ...]
    accounts: tuple[str, ...]
    versions: dict[str, str]

    @property
    def provides(self) -> dict[str, str]:
        """All of them, with their versions, "" where there is none."""
        plain = [*self.libraries, *_ALWAYS, *self.files, *self.accounts]
        return {**dict.fromkeys(plain, ""), **self.versions}


def stamp() -> str:
    """A word that is another one when the host may have changed: a few stat(2), nothing is read."""
    lines = [_EDITION, rpm.__version__]
    for path in _WITNESSES:
        try:
            info = os.stat(path)
        except OSError:
            continue
        lines.append(f"{path} {info.st_ino} {info.st_size} {info.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_host_facts() -> HostFacts:
    """Look at the host. Raises RedpakError."""
    files = sorted({*_find_programs(), *(path for form in _LOADERS for path in glob.glob(form))})
    versions: dict[str, str] = {}
    if os.path.exists(DPKG_STATUS):
        with open(DPKG_STATUS, encoding="utf-8", errors="replace") as stream:
            versions.update(dpkg_provides(stream, os.uname().machine))
    found = re.fullmatch(r"python(3\.\d+)", os.path.basename(os.path.realpath("/usr/bin/python3")))
    if found:
        # What rpm's dependency generator makes modules require.
        versions["python(abi)"] = found[1]
    accounts = [f"{kind}({name})" for kind, path in (("user", "/etc/passwd"),
                ("group", "/etc/group")) for name in sorted(_names_in(path))]
    return HostFacts(tuple(sorted(_find_sonames())), tuple(files), tuple(accounts), versions)


def dpkg_provides(lines: Iterable[str], machine: str) -> Iterator[tuple[str, str]]:
    """Name and version of each installed package in dpkg's status file, as provides.

    A package of a foreign architecture is dpkg(NAME:ARCHITECTURE).
    """
    native = {"x86_64": "amd64", "aarch64": "arm64", "i686": "i386", "armv7l": "armhf"}
    stanza: dict[str, str] = {}
    for line in [*lines, "\n"]:
        key, colon, value = line.partition(": ")
        if line.strip() == "":
            name, version = stanza.get("Package", ""), stanza.get("Version", "")
            if name and version and stanza.get("Status", "").endswith(" installed"):
                architecture = stanza.get("Architecture", "all")
                if architecture not in ("all", native.get(machine, machine)):
                    name = f"{name}:{architecture}"
                yield f"dpkg({name})", version
            stanza = {}
        elif colon and not line.startswith(" "):
            stanza[key] = value.strip()


def _find_sonames() -> set[str]:
    """Sonames with their symbol versions, as rpmbuild writes them in Requires."""
    libraries = sorted(set(_list_libraries()))
    elfdeps = rpm.expandMacro("%{_rpmconfigdir}/elfdeps")
    # elfdeps cuts the last character of each line, which it takes for the line's end.
    listing = "".join(f"{path}\n" for path in libraries).encode()
    return set(run([elfdeps, "--provides"], data=listing, package="rpm").decode().split())


def _list_libraries() -> Iterator[str]:
    """The libraries that the dynamic linker finds: "NAME (TYPE) => PATH" lines of ldconfig."""
    for line in run(["/sbin/ldconfig", "-p"], package="libc-bin").decode().splitlines():
        path = line.rpartition(" => ")[2].strip()
        if path.startswith("/"):
            yield path


def _find_programs() -> set[str]:
    found: set[str] = set()
    for directory in _PROGRAM_DIRECTORIES:
        if os.path.isdir(directory):
            found.update(f"{directory}/{name}" for name in os.listdir(directory))
    return found


def _names_in(path: str) -> set[str]:
    """The accounts of passwd(5) or group(5): rpm 6 has packages require the owners of files."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            names = {line.partition(":")[0].strip() for line in stream}
    except OSError:
        return set()
    return {name for name in names if name and not name.startswith(("#", "+", "-"))}
