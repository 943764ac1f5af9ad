# SPDX-License-Identifier: Apache-2.0
"""Package files as rpm's command line names them: paths, patterns, manifests, addresses."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterable, Iterator

import rpm

from redpak.errors import RedpakError
from redsys.run import run

# rpm's lead (lib/rpmlead.c): what every package begins with.
_MAGIC = b"\xed\xab\xee\xdb"
_ADDRESS = re.compile(r"(https?|ftp|hkp)://", re.IGNORECASE)
_DEEPEST = 8  # of manifests that name manifests


def find_package_files(words: Iterable[str], downloads: str) -> list[str]:
    """The package files that ``words`` mean, in their order; what is at an address is fetched into
    the directory ``downloads``. A manifest is a text that lists packages (rpm(8)).

    Raises RedpakError for what does not exist or is neither.
    """
    return list(_find(words, downloads, 0))


def find_files(words: Iterable[str], downloads: str) -> list[str]:
    """The files that ``words`` name, whatever they are; fetched where they are addresses."""
    return [
        path for word in words for path in (
            [fetch(word, downloads)] if is_address(word) else _expand(word)
        )
    ]


def is_address(word: str) -> bool:
    """Whether rpm would fetch it."""
    return bool(_ADDRESS.match(word))


def fetch(address: str, directory: str) -> str:
    """Fetch a file as rpm itself does: with the command of its macro %_urlhelper."""
    helper = rpm.expandMacro("%{?_urlhelper}")
    if not helper:
        raise RedpakError(f"{address}: cannot fetch: rpm's macro %_urlhelper is not defined")
    os.makedirs(directory, exist_ok=True)
    name = os.path.basename(address.rstrip("/")).partition("?")[0] or "file"
    target = os.path.join(directory, name)
    run([*shlex.split(helper), target, address], package="curl")
    return target


def _find(words: Iterable[str], downloads: str, depth: int) -> Iterator[str]:
    for word in words:
        if is_address(word):
            yield fetch(word, downloads)
            continue
        for path in _expand(word):
            if _is_package(path):
                yield path
            elif depth < _DEEPEST:
                yield from _find(_read_manifest(path), downloads, depth + 1)
            else:
                raise RedpakError(f"{path}: manifests name each other")


def _expand(word: str) -> list[str]:
    """A path, or the paths that fit a pattern."""
    return sorted(glob.glob(word)) if glob.has_magic(word) and not os.path.exists(word) else [word]


def _is_package(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == _MAGIC
    except OSError as err:
        raise RedpakError(f"{path}: {err.strerror}") from err


def _read_manifest(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            lines = [line.partition("#")[0].strip() for line in stream]
    except UnicodeDecodeError:
        lines = []
    words = [word for line in lines for word in line.split()]
    if not words or any(not word.isprintable() for word in words):
        raise RedpakError(f"{path}: not an rpm package (or package manifest)")
    return words
