# SPDX-License-Identifier: Apache-2.0
"""What configurations say, each by itself and all of a family together."""

from __future__ import annotations

import enum
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


def check_admin_files(layer: Layer) -> Iterator[Finding]:
    """What is wrong with a node's administrative configuration."""
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


class _Source(enum.Enum):
    """What there is at the source of an export."""

    NOTHING = enum.auto()
    DIRECTORY = enum.auto()
    FILE = enum.auto()


class Merger:
    """Merges the configurations of families, as one caller and for one scope."""

    def __init__(self, scope: Scope, environ: Mapping[str, str]) -> None:
        self._scope = scope
        self._environ = environ
        self._caller = Caller.current()
        self._sources: dict[str, _Source] = {}  # the nodes of a tree export the same ones

    def check(self, layer: Layer) -> tuple[EffectiveConfig | None, list[Finding]]:
        """The effective configuration of a node, if there is any, and what is wrong with it: each
        finding where it stands, in the node, in an ancestor, or in the core OS's file."""
        try:
            config = self._merge(layer)
        except ConfigError as err:
            return None, [_place(layer, "configuration", fault) for fault in err.findings]
        loosened: Sequence[Fault] = ()
        if config.warnings:
            try:
                self._merge(layer, strict=True)
            except ConfigError as err:
                loosened = err.findings
        findings = [_place(layer, "loosened" if fault in loosened else "merge", fault)
                    for fault in config.warnings]
        return config, [*findings, *self._find_missing_sources(layer, config)]

    def _merge(self, layer: Layer, *, strict: bool = False) -> EffectiveConfig:
        return merge_family(self._scope.family(layer), environ=self._environ,
                            caller=self._caller, strict=strict)

    def _find_missing_sources(self, layer: Layer, config: EffectiveConfig) -> Iterator[Finding]:
        for export in config.exports:
            mode = export.mode
            if export.optional or not (mode.is_bind or mode.is_overlay):
                continue
            source = self._source(export.path)
            what = f"{mode.value} {export.mount}"
            if source is _Source.NOTHING:
                text = f"{what}: {export.path} does not exist"
            elif mode.is_file and source is _Source.DIRECTORY:
                text = f"{what}: {export.path} is a directory, not a file"
            elif mode.is_overlay and source is not _Source.DIRECTORY:
                text = f"{what}: {export.path} is not a directory"
            else:
                continue
            yield _owner(layer, export.node).finding(
                "export-source", text, path=export.path, file=export.origin.file,
                line=export.origin.line)

    def _source(self, path: str) -> _Source:
        known = self._sources.get(path)
        if known is None:
            host = self._scope.root.host(path)
            known = (_Source.DIRECTORY if os.path.isdir(host)
                     else _Source.FILE if os.path.exists(host) else _Source.NOTHING)
            self._sources[path] = known
        return known


def _place(layer: Layer, rule: str, fault: Fault) -> Finding:
    if fault.severity is Severity.ERROR:
        rule = "configuration"
    return _owner(layer, fault.origin.node if fault.origin else "").config_finding(rule, fault)


def _owner(layer: Layer, alias: str) -> Layer:
    """The member of the family that is called ``alias``; the layer itself if there is none."""
    return next((member for member in layer.lineage if member.alias == alias), layer)
