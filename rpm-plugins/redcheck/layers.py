# SPDX-License-Identifier: Apache-2.0
"""What can be proven of one layer alone: its rpmdb, signatures and files."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redcheck.cache import LayerCache
from redcheck.findings import Finding
from redcheck.owned import Owned, collect_owned
from redcheck.packages import Library, rpmdb_state
from redcheck.rootfs import FamilyPaths
from redcheck.scope import Layer, Scope
from redcheck.signatures import check_headers, check_index
from redcheck.verify import Accounts, read_accounts
from redcheck.walk import LayerWalk, Walk
from redpak.errors import RedpakError
from redrpm.rpmdb import open_rpmdb


@dataclass(frozen=True)
class LayerTask:
    """One layer to check, with what its family says about it."""

    layer: Layer
    keys: Sequence[bytes]  # public keys that the family trusts
    signed: bool  # whether every package must be
    files: bool  # whether files are looked at


@dataclass
class LayerResult:
    """What was found, and what could not be checked."""

    findings: list[Finding]
    unchecked: list[str] = field(default_factory=list)
    packages: int = 0


def check_layer(task: LayerTask, scope: Scope, cache: LayerCache) -> LayerResult:
    """Check a layer; what the cache knows to be unchanged is not looked at again."""
    layer = task.layer
    library = Library()
    try:
        state = rpmdb_state(layer)
        result = _check_rpmdb(task, state, cache, library)
        if task.files:
            walk = _check_files(layer, scope, state, cache, library)
            result.findings += walk.all_findings()
            result.unchecked += walk.unchecked
        return result
    except RedpakError as err:
        return LayerResult([layer.finding("rpmdb", err.message, remedy=err.hint)])
    finally:
        library.close()
        cache.save()


def _check_rpmdb(task: LayerTask, state: Any, cache: LayerCache,
                 library: Library) -> LayerResult:
    key = [state, task.signed, sorted(key.hex() for key in task.keys) if task.signed else []]
    known = cache.get("rpmdb", key)
    if known is not None:
        return LayerResult([Finding.restore(row) for row in known["findings"]],
                           packages=known["packages"])
    layer = task.layer
    installed = library.of(layer)
    findings = list(check_headers(layer, installed.packages, keys=task.keys,
                                  required=task.signed))
    if installed.packages:
        with open_rpmdb(installed.directory) as ts:
            findings += check_index(layer, installed, ts)
    count = sum(not package.is_key for package in installed.packages)
    cache.put("rpmdb", key, {"findings": [finding.stored() for finding in findings],
                             "packages": count})
    return LayerResult(findings, packages=count)


def _check_files(layer: Layer, scope: Scope, state: Any, cache: LayerCache,
                 library: Library) -> Walk:
    paths = family_paths(layer)
    accounts = layer_accounts(layer)
    derived = derived_pattern(layer, scope)
    key = [state, accounts.privileged, derived.pattern, sorted(layer.children)]
    before = None
    known = cache.get("files", key)
    if known is not None and all(paths.directory(link) == place
                                 for link, place in known["links"].items()):
        before = Walk(records=known["records"], is_whole=known["whole"],
                      absent=[Finding.restore(row) for row in known["absent"]])
    links = known["links"] if before is not None and known is not None else {}

    def load() -> Owned:
        owned = collect_owned(library.of(layer).packages, paths)
        links.clear()
        links.update(paths.links)
        return owned

    walk = LayerWalk(layer, load, accounts, derived, before).run()
    cache.put("files", key, {
        "records": walk.records, "whole": walk.is_whole, "links": links,
        "absent": [finding.stored() for finding in walk.absent]})
    return walk


def family_paths(layer: Layer) -> FamilyPaths:
    """The view of a layer's family, the topmost layer first."""
    return FamilyPaths([member.path for member in reversed(layer.lineage)])


def layer_accounts(layer: Layer) -> Accounts:
    """Who can own the layer's files: anybody, when root owns it."""
    roots = [member.path for member in reversed(layer.lineage)]
    return read_accounts(roots, privileged=os.lstat(layer.path).st_uid == 0)


def derived_pattern(layer: Layer, scope: Scope) -> re.Pattern[str]:
    """One expression for the family's patterns of derived files."""
    configs = [scope.main.config, *(member.node.config for member in layer.lineage
                                    if member.node is not None)]
    return _one_pattern(tuple(pattern for config in configs
                              for pattern in config.tags.derived_files))


@functools.cache
def _one_pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")
