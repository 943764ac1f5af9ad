# SPDX-License-Identifier: Apache-2.0
"""The machine that is checked: this one, or one whose root directory is an image's.

An image's symbolic links mean paths of the image. They are followed here, step by step, as chroot
would: the kernel would follow them out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from redpak.values import dataclass, field

_MAX_LINKS = 40  # as the kernel: path_resolution(7)


@dataclass(frozen=True)
class RootFs:
    """A root directory, absolute and real; "/" is this machine."""

    path: str

    @property
    def is_image(self) -> bool:
        """Whether it is another machine's."""
        return self.path != "/"

    def host(self, inside: str) -> str:
        """Where the absolute path ``inside`` of that machine is on this one.

        Its links are followed; what does not exist stays as it is written.
        """
        if not self.is_image:
            return inside
        parts = [part for part in inside.split("/") if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                del done[-1:]
                continue
            here = "/".join((self.path, *done, part))
            if links < _MAX_LINKS and os.path.islink(here):
                links += 1
                target = os.readlink(here)
                if target.startswith("/"):
                    done = []
                parts = [word for word in target.split("/") if word not in ("", ".")] + parts
            else:
                done.append(part)
        return "/".join((self.path, *done))

    def inside(self, host: str) -> str:
        """The path that ``host``, a real path of this machine, has on that one."""
        if not self.is_image:
            return host
        return host[len(self.path):] or "/"

    def has(self, host: str) -> bool:
        """Whether the real path ``host`` belongs to that machine."""
        return not self.is_image or f"{host}/".startswith(f"{self.path}/")

    def exists(self, inside: str) -> bool:
        """Whether there is something at ``inside``, links followed."""
        return os.path.exists(self.host(inside))

    def is_plain(self, host: str) -> bool:
        """Whether no step on the way to ``host``, within an image, is a symbolic link."""
        return not self.is_image or self.host(self.inside(host)) == host


@dataclass
class FamilyPaths:
    """Where a path of a package lies in the view of a family (design section 3.3).

    ``layers`` are the directories that are stacked, the topmost first. A directory that is a link
    in the topmost layer that has it is where the link leads; no link is left to the kernel.
    """

    layers: Sequence[str]
    places: dict[str, str] = field(default_factory=dict)  # what directory() gave
    _visible: dict[str, list[str]] = field(default_factory=dict)

    def directory(self, path: str) -> str:
        """The place of the absolute directory ``path``, without links; "" is the root."""
        path = path.rstrip("/")
        known = self.places.get(path)
        if known is None:
            known = self.places[path] = self._resolve(path)
        return known

    @property
    def links(self) -> dict[str, str]:
        """The directories that are elsewhere than it seems, of those that were asked for."""
        return {path: place for path, place in self.places.items() if path != place}

    def agree(self, places: Mapping[str, str]) -> bool:
        """Whether each directory of ``places`` still is where that says."""
        return all(self.directory(path) == place for path, place in places.items())

    def _resolve(self, path: str) -> str:
        self._visible.setdefault("", [layer.rstrip("/") for layer in self.layers])
        above, _, name = path.rpartition("/")
        place, pending = self.places.get(above), [name]
        if place is None:
            place, pending = "", path.split("/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                place = place.rpartition("/")[0]
            elif name not in ("", "."):
                full = f"{place}/{name}"
                target = self._look(place, full) if links < _MAX_LINKS else None
                if target is None:
                    place = full
                else:
                    links += 1
                    place = "" if target.startswith("/") else place
                    pending += target.split("/")[::-1]
        return place

    def _look(self, parent: str, full: str) -> str | None:
        """Note in which layers ``full`` is a directory; the target when the topmost is a link."""
        if full in self._visible:
            return None
        found: list[str] = []
        for layer in self._visible.get(parent, ()):
            try:
                mode = os.lstat(layer + full).st_mode
            except OSError:
                continue
            if stat.S_ISDIR(mode):
                found.append(layer)
                continue
            if stat.S_ISLNK(mode) and not found:
                return os.readlink(layer + full)
            break
        self._visible[full] = found
        return None
