# SPDX-License-Identifier: Apache-2.0
"""Mounts that hide what packages installed."""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from redcheck.findings import Finding
from redcheck.scope import Layer
from redpak.effective import EffectiveConfig, EffectiveExport
from redpak.errors import TYPE_CHECKING
from redpak.load import REDMAIN

if TYPE_CHECKING:
    from typing import Any

    from redcheck.owned import OwnedFile

    Files = dict[str, list[OwnedFile]]


class HiddenFiles:
    """Finds the files that are out of sight in the namespace of a node. ``files_of`` gives the
    files of a layer by their place in it."""

    def __init__(self, files_of: Callable[[Layer], Files]) -> None:
        self._files_of = files_of
        self._sorted: dict[str, list[str]] = {}

    def check(self, layer: Layer, config: EffectiveConfig) -> Iterator[Finding]:
        """Each mount below another one, and the package files that it covers."""
        stacks = [tuple(stack) for _, stack in groupby(config.exports, lambda e: e.mount)]
        for stack in stacks:
            outer = _enclosing(stack[-1].mount, stacks)
            if outer and outer[-1].mode.is_overlay and stack[-1].node == REDMAIN:
                continue  # it lies beneath the family's layers (redwrap.layers)
            for source in _sources(outer) if outer else ():
                assert outer is not None
                covered = source + stack[-1].mount[len(outer[-1].mount.rstrip("/")):]
                if covered not in _sources(stack):
                    yield from self._find_covered(layer, stack[-1], covered)

    def _find_covered(self, layer: Layer, export: EffectiveExport,
                      covered: str) -> Iterator[Finding]:
        lineage = layer.lineage
        owner = max((member for member in lineage if _is_below(covered, member.inside)),
                    key=lambda member: len(member.inside), default=None)
        if owner is None:
            return
        place = covered[len(owner.inside.rstrip("/")):]
        hidden = list(self._files_below(owner, place))
        if not hidden:
            return
        by = next((member for member in lineage if member.alias == export.node), layer)
        packages = sorted({file.package for file in hidden})
        yield by.finding(
            "hidden-files", f"{export.mode.value} {export.mount} hides {hidden[0].path}"
            + (f" and {len(hidden) - 1} more" if len(hidden) > 1 else "")
            + f" of {', '.join(packages[:3])} in {owner.inside}", package=packages[0],
            path=hidden[0].path, file=export.origin.file, line=export.origin.line)

    def _files_below(self, layer: Layer, place: str) -> Iterator[OwnedFile]:
        files = self._files_of(layer)
        names = self._sorted.get(layer.path)
        if names is None:
            names = self._sorted[layer.path] = sorted(files)
        found = [place] if place in files else []
        position = bisect_left(names, f"{place}/")
        while position < len(names) and names[position].startswith(f"{place}/"):
            found.append(names[position])
            position += 1
        for name in found:
            # A directory is there to be mounted on.
            yield from (file for file in files[name]
                        if not stat.S_ISDIR(file.mode) and not file.is_ghost)


def mount_key(config: EffectiveConfig) -> list[Any]:
    """What the answer depends on, beside the packages."""
    return [[export.mode.value, export.mount, export.path, export.node, str(export.origin)]
            for export in config.exports]


def _enclosing(
    mount: str, stacks: Sequence[tuple[EffectiveExport, ...]]
) -> tuple[EffectiveExport, ...] | None:
    """The mounts that ``mount`` lies in, the nearest ones."""
    around = [stack for stack in stacks
              if stack[-1].mount != mount and _is_below(mount, stack[-1].mount)]
    return max(around, key=lambda stack: len(stack[-1].mount), default=None)


def _sources(stack: Sequence[EffectiveExport]) -> list[str]:
    """The directories (or files) that are visible at a mount."""
    return [export.path for export in stack if export.mode.is_bind or export.mode.is_overlay]


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
