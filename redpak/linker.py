# SPDX-License-Identifier: Apache-2.0
"""The dynamic linker's cache of a merged family: where it looks, and what a cache was made from.

A node's libraries can lie where the core OS's linker does not look by itself (/usr/lib64 on Debian,
a directory of ld.so.conf.d): ld.so.cache tells it. A cache is named by a digest of the state of
every directory it was made from, so that one of another state is never found.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from redpak.files import write_file_atomic
from redpak.values import dataclass

CACHE_FILE = "/etc/ld.so.cache"
# Where packages put libraries, whatever the core OS's linker was built with.
STANDARD_DIRECTORIES = ("/usr/lib64", "/usr/lib")
_MAX_INCLUDES = 8
_KEPT = 2  # caches of other callers or configurations, beside the newest


@dataclass(frozen=True)
class LibraryDirectory:
    """A directory of the merged root: `sources` are what it is made of, topmost first."""

    path: str
    sources: tuple[str, ...]

    @property
    def is_family(self) -> bool:
        """Whether a node has something there."""
        return self.sources != (self.path,)

    def states(self) -> Iterator[str]:
        """The state of each source, and of the processor-specific directories in it."""
        for source in self.sources:
            for path in (source, *sorted(glob.glob(f"{glob.escape(source)}/glibc-hwcaps/*"))):
                yield _state(path)


def _state(path: str) -> str:
    try:
        info = os.stat(path)
    except OSError:
        return f"{path}: nothing"
    # Any file added, replaced or removed changes the ctime, which nobody can set.
    return f"{path}: {info.st_dev} {info.st_ino} {info.st_ctime_ns}"


def find_directories(etc: Sequence[str], sources: Callable[[str], Sequence[str]]
                     ) -> list[LibraryDirectory]:
    """Where the linker is to look: the directories that some node has first.

    `etc` are the layers of the family's /etc, topmost first; `sources` gives the directories behind
    one of the merged root.
    """
    paths = [*read_configuration(etc), *STANDARD_DIRECTORIES, *read_configuration(["/etc"])]
    # /lib64 and /usr/lib64 are one.
    paths = [os.path.realpath(path) if os.path.islink(f"/{path.split('/')[1]}") else path
             for path in paths]
    found = [LibraryDirectory(path, tuple(sources(path))) for path in dict.fromkeys(paths)]
    found = [directory for directory in found if directory.sources]
    return sorted(found, key=lambda directory: not directory.is_family)


def configuration_files(etc: Sequence[str]) -> list[str]:
    """The files and directories of the linker's configuration that exist in `etc`."""
    names = ("ld.so.conf", "ld.so.conf.d")
    found = [f"{directory}/{name}" for directory in etc for name in names]
    found += [path for directory in etc
              for path in sorted(glob.glob(f"{glob.escape(directory)}/ld.so.conf.d/*.conf"))]
    return [path for path in found if os.path.exists(path)]


def read_configuration(etc: Sequence[str]) -> list[str]:
    """The directories that ld.so.conf and ld.so.conf.d name (ldconfig(8)), in their order.

    ld.so.conf.d counts though no ld.so.conf includes it: that is part of a core OS.
    """
    found = list(_read_file("/etc/ld.so.conf", etc, 0))
    found += _read_include("/etc/ld.so.conf.d/*.conf", etc, 0)
    return list(dict.fromkeys(found))


def _read_file(path: str, etc: Sequence[str], depth: int) -> Iterator[str]:
    real = next((place for place in _places(path, etc) if os.path.isfile(place)), None)
    if real is None or depth > _MAX_INCLUDES:
        return
    try:
        with open(real, encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                yield from _read_include(os.path.join("/etc", pattern), etc, depth)
        elif words and words[0].startswith("/") and "=" not in words[0]:
            yield os.path.normpath(words[0].rstrip(":,"))


def _read_include(pattern: str, etc: Sequence[str], depth: int) -> Iterator[str]:
    names = {place[len(directory):] for directory in etc
             for place in glob.glob(glob.escape(directory) + pattern[len("/etc"):])
             if pattern.startswith("/etc/")}
    for name in sorted(names):
        yield from _read_file(f"/etc{name}", etc, depth + 1)


def _places(path: str, etc: Sequence[str]) -> Iterator[str]:
    for directory in etc:
        yield directory + path[len("/etc"):]


def cache_name(directories: Sequence[LibraryDirectory]) -> str:
    """The name of the file with the cache of `directories` as they are now."""
    digest = hashlib.sha256()
    for directory in directories:
        digest.update(f"{directory.path}\n".encode("utf-8", "surrogateescape"))
        for state in directory.states():
            digest.update(f" {state}\n".encode("utf-8", "surrogateescape"))
    return f"ld.so.cache-{digest.hexdigest()[:32]}"


def find_cache(name: str, stores: Sequence[str]) -> Optional[str]:
    """The cache of that name, where one of the directories has it."""
    return next((f"{store}/{name}" for store in stores if os.path.isfile(f"{store}/{name}")), None)


def store_cache(name: str, data: bytes, store: str) -> str:
    """Keep a cache, and of older ones the newest few; its path. Raises OSError."""
    path = f"{store}/{name}"
    write_file_atomic(path, data)
    others = [entry for entry in os.scandir(store)
              if entry.name.startswith("ld.so.cache-") and entry.name != name]
    others.sort(key=lambda entry: -entry.stat(follow_symlinks=False).st_mtime_ns)
    for entry in others[_KEPT:]:
        os.unlink(entry.path)
    return path
