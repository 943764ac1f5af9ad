# SPDX-License-Identifier: Apache-2.0
"""What a layer has installed: the headers of its rpmdb, read from a private copy."""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from typing import Any

import rpm

from redcheck.library import UnreadableError
from redcheck.scope import Layer
from redpak.errors import RedpakError
from redpak.values import dataclass
from redrpm.rpmdb import (
    Member,
    check_database,
    copy_member,
    count_headers,
    nevra,
    open_rpmdb,
)

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
        """Read them; ``directory`` is new. Raises RedpakError, UnreadableError."""
        try:
            copy_member(Member(layer.path, layer.rpmdb), directory, sound=False)
        except OSError as err:
            raise UnreadableError(f"{layer.rpmdb}: cannot copy the rpmdb: {err.strerror}") from err
        except RedpakError as err:
            raise UnreadableError(err.message, hint=err.hint) from err
        check_database(directory, layer.rpmdb)
        self.directory = directory
        self.packages: list[Package] = []
        if not os.listdir(self.directory):
            return
        try:
            with open_rpmdb(self.directory) as ts:
                matches = ts.dbMatch()
                for header in matches:
                    name = header[rpm.RPMTAG_NAME]
                    self.packages.append(
                        Package(matches.instance(), nevra(header), name, header))
        except RedpakError as err:
            raise _damaged(layer, "rpm cannot open it") from err
        stored = count_headers(self.directory)
        if stored is not None and stored != len(self.packages):
            raise _damaged(layer, f"rpm reads {len(self.packages)} of its {stored} headers")

    @property
    def keys(self) -> list[bytes]:
        """The public keys that the layer trusts."""
        found = []
        for package in self.packages:
            for text in package.header[rpm.RPMTAG_PUBKEYS] if package.is_key else ():
                with suppress(ValueError):  # a key that is not readable vouches for nothing
                    found.append(base64.b64decode(text))
        return found


def _damaged(layer: Layer, how: str) -> RedpakError:
    return RedpakError(f"{layer.rpmdb}: damaged rpmdb: {how}",
                       hint="restore the node from a backup, or create it anew")
