# SPDX-License-Identifier: Apache-2.0
"""What earlier checks proved of a layer, with what it depends on.

It lies in the node's .redpak when the caller may write there, else in the caller's own cache
directory; in an image nothing is ever written. Whoever may write a node may write its rpmdb too:
the cache adds nothing to trust. One that another ordinary user owns does not count.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from importlib.machinery import PathFinder

from redcheck.filesystems import trust_times
from redcheck.rootfs import RootFs
from redcheck.scope import Layer
from redpak.errors import TYPE_CHECKING
from redpak.files import write_file_atomic

if TYPE_CHECKING:
    from typing import Any

_MAX_BYTES = 256 * 1024 * 1024


class LayerCache:
    """One part of the cache of one layer: units by name, each with the key that it was made under.

    Each part is a file, which one process writes: a digest, and JSON that it holds for.
    """

    def __init__(self, part: str, layer: Layer, root: RootFs, environ: Mapping[str, str], *,
                 enabled: bool) -> None:
        trust = trust_times(layer) if enabled else None
        self._path = "" if trust is None else _find_place(part, layer, root, environ)
        # Findings say what they are found in.
        self._about = [_engine_digest(), trust,
                       [[member.path, member.inside, member.alias] for member in layer.lineage]]
        self._units: dict[str, Any] = {}
        self._changed = False
        if self._path:
            with contextlib.suppress(OSError, ValueError):
                about, units = json.loads(_read_sealed(self._path))
                if about == self._about:
                    self._units = units

    def get(self, name: str, key: Any) -> Any:
        """What was put under ``name`` with an equal ``key``; None when there is none."""
        unit = self._units.get(name)
        if unit is not None and unit["key"] == _digest(key):
            return unit["value"]
        return None

    def put(self, name: str, key: Any, value: Any) -> None:
        """Keep ``value``, which JSON must be able to say."""
        unit = {"key": _digest(key), "value": value}
        if self._units.get(name) != unit:
            self._units[name] = unit
            self._changed = True

    def save(self) -> None:
        """Write what has changed, if it can be written: without it the next check is slower."""
        if not (self._path and self._changed):
            return
        data = json.dumps([self._about, self._units], separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            write_file_atomic(self._path, b"%b\n%b" % (_seal(data), data), 0o600)


def _seal(data: bytes) -> bytes:
    """What shows that a disk, or an editor, has changed ``data``; it proves nothing of who wrote
    it."""
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


def _digest(key: Any) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def _find_place(part: str, layer: Layer, root: RootFs, environ: Mapping[str, str]) -> str:
    """The file of a part; "" when there can be none."""
    state = f"{layer.path}/.redpak"
    own = layer.node is not None and not root.is_image and os.path.isdir(state)
    if own and os.lstat(layer.path).st_uid == os.geteuid() and os.access(state, os.W_OK):
        return f"{state}/check-{part}.json"
    home = environ.get("XDG_CACHE_HOME", "")
    if not home.startswith("/"):
        home = f"{environ.get('HOME') or '/nonexistent'}/.cache"
    name = hashlib.sha256(os.fsencode(layer.path)).hexdigest()[:32]
    place = f"{home}/redpak/check/{name}-{part}.json"
    # Checking an image may not change a byte of it, wherever the cache directory is.
    return "" if root.is_image and root.has(os.path.realpath(place)) else place


def _read_sealed(path: str) -> bytes:
    """What save() wrote in a regular file of ours. Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_uid not in (0, os.geteuid()):
            raise ValueError(f"{path}: of another user")
        if info.st_mode & 0o022 or info.st_size > _MAX_BYTES:
            raise ValueError(f"{path}: others may write it, or it is too big")
        seal = stream.readline().rstrip(b"\n")
        data = stream.read()
    if seal != _seal(data):
        raise ValueError(f"{path}: damaged")
    return data


@functools.cache
def _engine_digest() -> str:
    """Another engine, or another rpm, may find more in what has not changed."""
    own = os.path.dirname(__file__)
    paths = sorted(f"{own}/{name}" for name in os.listdir(own) if name.endswith(".py"))
    # Its file stands for librpm, which is built with it; asking librpm for its version loads it.
    bindings = PathFinder.find_spec("rpm")
    if bindings is not None and bindings.origin:
        paths.append(bindings.origin)
    digest = hashlib.sha256()
    for path in paths:
        info = os.stat(path)
        digest.update(f"{path} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}\n".encode())
    return digest.hexdigest()
