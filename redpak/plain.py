# SPDX-License-Identifier: Apache-2.0
"""Configurations -> plain data in the form of a configuration file, which the loader reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from redpak.effective import EffectiveConfig, Overridden
from redpak.expand import expand_known, family_aliases, literal, own_names
from redpak.family import Family
from redpak.findings import Origin
from redpak.kinds import Share
from redpak.node import NodeStatus
from redpak.schema import (
    TAGS,
    Capability,
    CapabilityAction,
    EnvironMode,
    ExportMode,
    Headers,
    NodeConfig,
    Rule,
    Settings,
    Tag,
)
from redpak.yamltext import Noted

Data = dict[str, Any]
Write = Callable[[str], str]


def config_data(config: NodeConfig) -> Data:
    """One file's configuration as it says it, in canonical spelling."""
    data: Data = {"headers": _headers(config.headers), "config": _settings(config.settings)}
    data["exports"] = [_without_empty({
        "mode": export.mode.value, "mount": export.mount, "path": export.path,
        "optional": export.optional, "info": export.info, "warn": export.warn})
        for export in config.exports]
    data["environ"] = [_variable(variable.key, variable.value, variable.mode, variable.info,
                                 variable.warn) for variable in config.environ]
    data["enforce"] = _settings(config.enforce)
    return {section: value for section, value in data.items() if value}


def effective_data(family: Family, effective: EffectiveConfig, *, expanded: bool) -> Data:
    """The effective configuration as that of a single node, each value noted with its origin.

    Not expanded, the names of the node a text stands in are replaced, the others stay names.
    """
    # A single node would be a family of its own.
    aliases = {"FAMILY_ALIASES": family_aliases(family)}
    known = {"redmain": own_names(None) | aliases,
             **{node.alias: own_names(node) | aliases for node in family.nodes}}

    def write(value: str, raw: str, node: str) -> str:
        return literal(value) if expanded else expand_known(raw, known[node])
    return {
        "headers": _headers(family.leaf.config.headers),
        "config": _effective_tags(effective, known, expanded=expanded),
        "exports": [Noted(_without_empty({
            "mode": export.mode.value,
            "mount": write(export.mount, export.written[0], export.node),
            "path": "" if not export.written[1] and export.path == export.mount
                    else export.path if export.mode is ExportMode.EXECFD
                    else write(export.path, export.written[1], export.node),
            "optional": export.optional, "info": export.info, "warn": export.warn}),
            note(export.origin, export.overrode)) for export in effective.exports],
        "environ": [Noted(_variable(
            variable.key, write(variable.value, variable.written, variable.node)
            if variable.mode is EnvironMode.DEFAULT else variable.value,
            variable.mode, variable.info, variable.warn),
            note(variable.origin, variable.overrode)) for variable in effective.environ],
    }


def provenance_data(effective: EffectiveConfig) -> Data:
    """Where every effective value came from, for programs."""
    return {
        "config": {key: {"from": [_origin(origin) for origin in dict.fromkeys(found.origins)],
                         "overrode": _overrode(found.overrode)}
                   for key, found in effective.provenance.items()},
        "exports": [{"mount": export.mount, "from": [_origin(export.origin)],
                     "overrode": _overrode(export.overrode)} for export in effective.exports],
        "environ": [{"key": variable.key, "from": [_origin(variable.origin)],
                     "overrode": _overrode(variable.overrode)}
                    for variable in effective.environ],
        "dropped": _overrode(effective.dropped),
    }


def status_data(status: NodeStatus) -> Data:
    """A node's status as its file has it."""
    return {"state": status.state.value, "realpath": status.realpath,
            "timestamp": status.timestamp, "info": status.info}


def note(origin: Origin, overrode: Iterable[Overridden]) -> str:
    """One line: where a value came from, and what it overrode."""
    parts = [f"{origin.node}, {origin}"]
    parts += [f"not {lost.value!r} of {lost.origin} ({lost.reason})" for lost in overrode]
    return "; ".join(parts)


def _headers(headers: Headers) -> Data:
    return _without_empty({"alias": headers.alias, "name": headers.name, "info": headers.info})


def _without_empty(entry: Data) -> Data:
    return {key: value for key, value in entry.items() if value not in ("", None, False)}


def _variable(key: str, value: str, mode: EnvironMode, info: str, warn: str) -> Data:
    entry = {"key": key, "value": value, "mode": mode.value, "info": info, "warn": warn}
    if not mode.has_value:
        del entry["value"]
    return {name: text for name, text in entry.items() if text or name == "value"}


def _origin(origin: Origin) -> Data:
    return {"file": origin.file, "line": origin.line, "node": origin.node}


def _overrode(overrode: Iterable[Overridden]) -> list[Data]:
    return [{**_origin(lost.origin), "value": lost.value, "reason": lost.reason}
            for lost in overrode]


def _settings(settings: Settings) -> Data:
    data: Data = {}
    for tag in TAGS:
        value = getattr(settings.tags, tag.attribute)
        if value is not None and value != ():
            _put(data, tag, _tag_value(value, tag, str))
    if settings.capabilities:
        data["capabilities"] = [_capability(capability) for capability in settings.capabilities]
    return data


def _capability(capability: Capability) -> Data:
    entry = {"cap": capability.cap, "add": capability.action is CapabilityAction.ADD}
    return {**entry, **_without_empty({"info": capability.info, "warn": capability.warn})}


def _put(data: Data, tag: Tag, value: Any) -> None:
    for group in tag.group:
        data = data.setdefault(group, {})
    data[tag.key.rpartition(".")[2]] = value


def _tag_value(value: Any, tag: Tag, write: Write) -> Any:
    """A tag's value as data; `write` treats the text of the kinds that expand."""
    if isinstance(value, tuple):
        return [_tag_value(part, tag, write) for part in value]
    if isinstance(value, (bool, int)) and tag.kind.name != "umask":
        return value
    if isinstance(value, Share):
        return write(value.path) if value.path else str(value)
    text = tag.kind.write(value)
    return write(text) if tag.expands else text


def _effective_tags(effective: EffectiveConfig, known: Mapping[str, Mapping[str, str]], *,
                    expanded: bool) -> Data:
    data: Data = {}
    for tag in TAGS:
        found = effective.provenance.get(tag.key)
        if found is None:
            continue
        value = getattr(effective.tags, tag.attribute)
        if tag.rule is Rule.CUMULATE:
            _put(data, tag, [
                Noted(literal(part) if expanded and tag.expands else
                      _tag_value(raw, tag, _writer(known[origin.node])), note(origin, ()))
                for part, raw, origin in zip(value, found.written, found.origins)])
            continue
        shown = _tag_value(value, tag, literal) if expanded else (
            _tag_value(found.written[0], tag, _writer(known[found.origin.node])))
        _put(data, tag, Noted(shown, note(found.origin, found.overrode)))
    if effective.capabilities:
        data["capabilities"] = [
            Noted(_capability(capability), note(
                capability.origin, effective.provenance[f"capabilities.{capability.cap}"].overrode))
            for capability in effective.capabilities]
    return data


def _writer(known: Mapping[str, str]) -> Write:
    return lambda raw: expand_known(raw, known)
