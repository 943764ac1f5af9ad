# SPDX-License-Identifier: Apache-2.0
"""The files of one layer: what the cache knows, and a walk over what is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from redcheck.cache import LayerCache
from redcheck.findings import Finding
from redcheck.library import Library, UnreadableError
from redcheck.scope import Layer, Scope
from redcheck.walk import LayerWalk, Walk
from redpak.errors import TYPE_CHECKING, RedpakError

if TYPE_CHECKING:
    from typing import Any

    from redcheck.inspection import Inspection
    from redcheck.owned import Owned
    from redcheck.walk import Cannot
    from redcheck.workers import Result


def check_files(layer: Layer, scope: Scope, environ: Mapping[str, str], *,
                use_cache: bool) -> Result:
    """Check the files of a layer; what the cache knows to be unchanged is not looked at again.

    ``findings``, as they are stored, and what is ``unchecked``; or the ``error`` in the rpmdb for
    which nothing was checked, with a ``hint``.
    """
    check = _FileCheck(layer, scope, environ, use_cache=use_cache)
    try:
        walk = check.run()
        return {"findings": [finding.stored() for finding in walk.all_findings()],
                "unchecked": walk.unchecked}
    except UnreadableError as err:
        return {"findings": [], "unchecked": [str(err)]}
    except RedpakError as err:
        return {"error": err.message, "hint": err.hint}
    finally:
        check.library.close()


class _FileCheck:
    def __init__(self, layer: Layer, scope: Scope, environ: Mapping[str, str], *,
                 use_cache: bool) -> None:
        self.library = Library()
        self._layer = layer
        self._scope = scope
        self._open_cache = partial(LayerCache, layer=layer, root=scope.root, environ=environ,
                                   enabled=use_cache)
        self._paths = self.library.paths(layer)
        self._is_collected = False  # whether the cache did not know what the packages own

    def run(self) -> Walk:
        """Walk the layer. Raises RedpakError."""
        cache = self._open_cache("files")
        key = [self.library.state(self._layer), self._accounts_state(),
               derived_patterns(self._layer, self._scope), sorted(self._layer.children),
               self._layer.own_directories]
        known = cache.get("files", key)
        before = None
        if known is not None and self._paths.agree(known["places"]):
            before = Walk(records=known["records"], is_whole=known["whole"],
                          absent=[Finding.restore(row) for row in known["absent"]])
        walk = LayerWalk(self._layer, self._inspect, before).run()
        if before is not None and self._is_collected:
            # Directories are elsewhere now; what their new places lack, no record of them tells.
            walk = LayerWalk(self._layer, self._inspect, None).run()
        cache.put("files", key, {
            "records": walk.records, "whole": walk.is_whole, "places": self._unseen_places(walk),
            "absent": [finding.stored() for finding in walk.absent]})
        cache.save()
        return walk

    def _accounts_state(self) -> list[Any] | None:
        """What changes whenever the names of users and groups do; None where they do not matter.
        """
        if not is_privileged(self._layer):
            return None
        found = []
        for path in self._paths.layers:
            place = f"{path.rstrip('/')}/etc"
            if os.path.islink(place):
                continue  # redcheck.verify reads none of it either
            for name in ("passwd", "group"):
                with suppress(OSError):
                    info = os.lstat(f"{place}/{name}")
                    found.append([path, name, info.st_ino, info.st_size, info.st_ctime_ns])
        return found

    def _unseen_places(self, walk: Walk) -> dict[str, str]:
        """Where directories of packages are, other than where the layer itself has them: of those
        no walk sees a change."""
        return {path: place for path, place in self._paths.places.items()
                if path != place or place not in walk.records}

    def _inspect(self, cannot: Cannot) -> Inspection:
        from redcheck.inspection import Inspection, match_any  # these load librpm
        from redcheck.verify import read_accounts

        accounts = read_accounts(self._paths.layers, privileged=is_privileged(self._layer))
        return Inspection(
            self._layer, self._owned(), accounts,
            match_any(derived_patterns(self._layer, self._scope)), cannot)

    def _owned(self) -> Owned:
        """What the packages own. The headers say the same at ten times the cost; it is a part of
        its own, as only layers with a changed file need it."""
        from redcheck.owned import collect_owned, restore_owned

        cache = self._open_cache("owned")
        key = self.library.state(self._layer)
        known = cache.get("owned", key)
        if known is not None and self._paths.agree(known["places"]):
            return restore_owned(known["files"])
        self._is_collected = True
        owned = collect_owned(self.library.of(self._layer).packages, self._paths)
        cache.put("owned", key, {"places": self._paths.places, "files": owned})
        cache.save()
        return owned


def is_privileged(layer: Layer) -> bool:
    """Whether anybody can own the layer's files: root owns it."""
    return os.lstat(layer.path).st_uid == 0


def derived_patterns(layer: Layer, scope: Scope) -> list[str]:
    """The family's patterns of derived files."""
    configs = [scope.main.config, *(member.node.config for member in layer.lineage
                                    if member.node is not None)]
    return [pattern for config in configs for pattern in config.tags.derived_files]
