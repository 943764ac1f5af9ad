# SPDX-License-Identifier: Apache-2.0
"""What a layer has installed: the headers of its rpmdb, read from a private copy."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import Any

import rpm

from redcheck.scope import Layer
from redpak.errors import RedpakError
from redrpm.rpmdb import Member, copy_member, nevra, open_rpmdb
from redrpm.scratch import ScratchDirectory

KEY = "gpg-pubkey"


@dataclass(frozen=True)
class Package:
    """An installed package; ``number`` is that of its header in the rpmdb."""

    number: int
    label: str
    name: str
    header: Any

    @property
    def is_key(self) -> bool:
        """Whether it is only a key that was imported."""
        return self.name == KEY

    @property
    def is_multi_install(self) -> bool:
        """Whether several builds of it may be there side by side: keys, kernels."""
        return self.is_key or any(
            provide.startswith("installonlypkg(")
            for provide in self.header[rpm.RPMTAG_PROVIDENAME])


class Installed:
    """A layer's packages and the private copy of its rpmdb that they came from."""

    def __init__(self, layer: Layer, directory: str) -> None:
        """Read them; ``directory`` is new. Raises RedpakError."""
        self.directory = copy_member(Member(layer.path, layer.rpmdb), directory).directory
        self.packages: list[Package] = []
        if os.listdir(self.directory):
            with open_rpmdb(self.directory) as ts:
                matches = ts.dbMatch()
                for header in matches:
                    name = header[rpm.RPMTAG_NAME]
                    self.packages.append(
                        Package(matches.instance(), nevra(header), name, header))

    @property
    def keys(self) -> list[bytes]:
        """The public keys that the layer trusts."""
        return [base64.b64decode(text) for package in self.packages if package.is_key
                for text in package.header[rpm.RPMTAG_PUBKEYS]]


class Library:
    """The packages of all layers, each read when it is first asked for."""

    def __init__(self) -> None:
        self._work: ScratchDirectory | None = None
        self._known: dict[str, Installed] = {}
        self._asked = 0

    @property
    def directory(self) -> str:
        """A private directory, made when it is first asked for."""
        if self._work is None:
            self._work = ScratchDirectory()
        return self._work.name

    def of(self, layer: Layer) -> Installed:
        """What ``layer`` has installed. Raises RedpakError."""
        known = self._known.get(layer.path)
        if known is None:
            self._asked += 1
            place = f"{self.directory}/{self._asked}"
            try:
                known = Installed(layer, place)
            except OSError as err:
                raise RedpakError(f"{layer.rpmdb}: cannot copy the rpmdb: {err}") from err
            self._known[layer.path] = known
        return known

    def close(self) -> None:
        """Remove the copies."""
        self._known.clear()
        if self._work is not None:
            self._work.cleanup()
            self._work = None


def rpmdb_state(layer: Layer) -> list[Any]:
    """What changes whenever the rpmdb of ``layer`` does. Raises RedpakError."""
    found: list[Any] = [layer.rpmdb]
    try:
        for name in sorted(os.listdir(layer.rpmdb)):
            if name != ".rpm.lock" and not name.endswith("-shm"):
                info = os.lstat(f"{layer.rpmdb}/{name}")
                found.append([name, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns])
    except FileNotFoundError:
        pass
    except OSError as err:
        raise RedpakError(f"{layer.rpmdb}: cannot read the rpmdb: {err.strerror}") from err
    return found
