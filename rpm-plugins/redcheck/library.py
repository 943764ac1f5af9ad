# SPDX-License-Identifier: Apache-2.0
"""The packages of all layers. Nothing is loaded for layers whose packages are not asked for."""

from __future__ import annotations

import os

from redcheck.rootfs import FamilyPaths
from redcheck.scope import Layer
from redpak.errors import TYPE_CHECKING, RedpakError

if TYPE_CHECKING:
    from typing import Any

    from redcheck.packages import Installed
    from redrpm.scratch import ScratchDirectory


class UnreadableError(RedpakError):
    """An rpmdb that could not be read, whatever is in it."""


class Library:
    """The packages of all layers, each read when it is first asked for."""

    def __init__(self) -> None:
        self._work: ScratchDirectory | None = None
        self._known: dict[str, Installed] = {}
        self._states: dict[str, list[Any]] = {}
        self._paths: dict[str, FamilyPaths] = {}
        self._asked = 0

    @property
    def directory(self) -> str:
        """A private directory, made when it is first asked for."""
        if self._work is None:
            from redrpm.scratch import ScratchDirectory  # loads tempfile

            self._work = ScratchDirectory()
        return self._work.name

    def of(self, layer: Layer) -> Installed:
        """What ``layer`` has installed. Raises RedpakError when its rpmdb is damaged,
        UnreadableError."""
        known = self._known.get(layer.path)
        if known is None:
            self._asked += 1
            try:
                place = f"{self.directory}/{self._asked}"
            except OSError as err:
                raise UnreadableError(f"{layer.rpmdb}: there is no place for a copy of the rpmdb:"
                                      f" {err.strerror}", hint="set TMPDIR") from err
            from redcheck.packages import Installed  # loads librpm

            known = self._known[layer.path] = Installed(layer, place)
        return known

    def state(self, layer: Layer) -> list[Any]:
        """What changes whenever the rpmdb of ``layer`` does, as it was when first asked for.
        Raises UnreadableError."""
        known = self._states.get(layer.path)
        if known is None:
            known = self._states[layer.path] = _rpmdb_state(layer)
        return known

    def paths(self, layer: Layer) -> FamilyPaths:
        """The view of the family of ``layer``, the topmost layer first."""
        known = self._paths.get(layer.path)
        if known is None:
            known = self._paths[layer.path] = FamilyPaths(
                [member.path for member in reversed(layer.lineage)])
        return known

    def close(self) -> None:
        """Remove the copies."""
        self._known.clear()
        if self._work is not None:
            self._work.cleanup()
            self._work = None


def _rpmdb_state(layer: Layer) -> list[Any]:
    found: list[Any] = [layer.rpmdb]
    try:
        for name in sorted(os.listdir(layer.rpmdb)):
            if name != ".rpm.lock" and not name.endswith("-shm"):
                info = os.lstat(f"{layer.rpmdb}/{name}")
                found.append([name, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns])
    except FileNotFoundError:
        pass
    except OSError as err:
        raise UnreadableError(f"{layer.rpmdb}: cannot read the rpmdb: {err.strerror}") from err
    return found
