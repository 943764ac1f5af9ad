# SPDX-License-Identifier: Apache-2.0
"""What configurations say, each by itself and all of a family together."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence

from redcheck.findings import Finding
from redcheck.scope import Layer, Scope
from redpak.effective import EffectiveConfig
from redpak.errors import ConfigError, RedpakError
from redpak.expand import Caller
from redpak.findings import Finding as Fault
from redpak.findings import Severity
from redpak.load import FileKind, load_admin
from redpak.merge import merge_family
from redpak.node import ADMIN_FILES, Node, NodeState

_DAY_MS = 86_400_000
_CLOCK_MS = 60_000  # what two clocks may differ by


def check_files(layer: Layer) -> Iterator[Finding]:
    """What is wrong with a node's own configuration files."""
    for fault in layer.faults:
        yield layer.config_finding("configuration", fault)
    for name in ADMIN_FILES if layer.node is not None else ():
        path = f"{layer.path}/{name}"
        if os.path.lexists(path):
            try:
                load_admin(path, kind=FileKind.ADMIN, node=layer.alias,
                           owners=(os.lstat(layer.path).st_uid,))
            except ConfigError as err:
                for fault in err.findings:
                    yield layer.config_finding("configuration", fault)
            except RedpakError as err:
                yield layer.finding("configuration", err.message, file=path, remedy=err.hint)


def check_family_names(layer: Layer) -> Iterator[Finding]:
    """Aliases must differ within a family."""
    for other in layer.lineage[1:-1]:
        if layer.node is not None and other.alias == layer.alias:
            yield layer.finding(
                "alias", f"the alias {layer.alias} belongs to {other.inside} too",
                file=layer.node.config_file)


def check_names(layers: Sequence[Layer]) -> Iterator[Finding]:
    """Names must differ everywhere."""
    known: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.node is not None and layer.node.name:
            known.setdefault(layer.node.name, []).append(layer)
    for name, holders in known.items():
        for layer in holders if len(holders) > 1 else ():
            other = next(each for each in holders if each is not layer)
            assert layer.node is not None
            yield layer.finding("name", f"the name {name} belongs to {other.inside} too",
                                file=layer.node.config_file)


def check_owner(layer: Layer) -> Iterator[Finding]:
    """An ancestor belongs to root or to the node's owner."""
    owner = os.lstat(layer.path).st_uid
    for other in layer.lineage[1:-1]:
        if os.lstat(other.path).st_uid not in (0, owner):
            yield layer.finding("owner", f"ancestor {other.alias} ({other.inside}) belongs neither"
                                f" to root nor to the owner of {layer.inside}")


def check_status(layer: Layer, node: Node) -> Iterator[Finding]:
    """The state, the place and the time of the last proof."""
    status = node.status
    file = node.status_file
    if status.state is not NodeState.ENABLE:
        because = f" ({status.info})" if status.info else ""
        yield layer.finding("state", f"the state is {status.state.value}{because}", file=file)
    if status.realpath != layer.inside:
        yield layer.finding("moved", f"the node was created at {status.realpath}", file=file)
    if status.timestamp > time.time() * 1000 + _CLOCK_MS:
        yield layer.finding("state", "the last proof lies in the future", file=file,
                            remedy="set the clock, and check the node again")


def check_age(layer: Layer, node: Node, config: EffectiveConfig) -> Iterator[Finding]:
    """Whether red-wrap would refuse the node for the age of its proof (tag maxage)."""
    days = (time.time() * 1000 - node.status.timestamp) / _DAY_MS
    if config.tags.maxage is not None and days > config.tags.maxage:
        origin = config.provenance["maxage"].origin
        yield layer.finding("expired", f"the last proof is {int(days)} days old, config.maxage"
                            f" allows {config.tags.maxage}", file=origin.file, line=origin.line)


class FamilyMerge:
    """The effective configuration of one node, and what is wrong with it."""

    def __init__(self, layer: Layer, scope: Scope, environ: Mapping[str, str]) -> None:
        self._layer = layer
        self._scope = scope
        self.config: EffectiveConfig | None = None
        self._faults: list[tuple[str, Fault]] = []
        family, caller = scope.family(layer), Caller.current()
        try:
            self.config = merge_family(family, environ=environ, caller=caller)
        except ConfigError as err:
            self._faults += [("configuration", fault) for fault in err.findings]
            return
        warnings = self.config.warnings
        loosened: set[Fault] = set()
        if warnings:
            try:
                merge_family(family, environ=environ, caller=caller, strict=True)
            except ConfigError as err:
                loosened = set(err.findings)
        self._faults += [("loosened" if fault in loosened else "merge", fault)
                         for fault in warnings]

    def findings(self) -> Iterator[Finding]:
        """Each fault where it stands: in the node, in an ancestor, or in the core OS's file."""
        for rule, fault in self._faults:
            if fault.severity is Severity.ERROR:
                rule = "configuration"
            yield self._owner(fault.origin.node if fault.origin else "").config_finding(rule, fault)
        if self.config is not None:
            yield from self._find_missing_sources(self.config)

    def _owner(self, alias: str) -> Layer:
        return next((layer for layer in self._layer.lineage if layer.alias == alias), self._layer)

    def _find_missing_sources(self, config: EffectiveConfig) -> Iterator[Finding]:
        root = self._scope.root
        for export in config.exports:
            mode = export.mode
            if export.optional or not (mode.is_bind or mode.is_overlay):
                continue
            host = root.host(export.path)
            what = f"{mode.value} {export.mount}"
            if not os.path.lexists(host) or not os.path.exists(host):
                text = f"{what}: {export.path} does not exist"
            elif mode.is_file and os.path.isdir(host):
                text = f"{what}: {export.path} is a directory, not a file"
            elif mode.is_overlay and not os.path.isdir(host):
                text = f"{what}: {export.path} is not a directory"
            else:
                continue
            yield self._owner(export.node).finding(
                "export-source", text, path=export.path, file=export.origin.file,
                line=export.origin.line)
