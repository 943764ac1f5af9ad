# SPDX-License-Identifier: Apache-2.0
"""Configuration files -> typed configuration; every fault of a file in one go."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterable

from redpak.errors import TYPE_CHECKING, ConfigError, RedpakError
from redpak.findings import Finding, Origin, Severity, did_you_mean
from redpak.kinds import RESERVED_ALIASES, BadValue, Kind
from redpak.schema import (
    CAPABILITY_KEYS,
    EXPORT_KEYS,
    HEADER_KEYS,
    SECTIONS,
    TAG_OF_KEY,
    TAGS,
    VARIABLE_KEYS,
    AdminConfig,
    Capability,
    CapabilityAction,
    EnvironMode,
    Export,
    ExportMode,
    Headers,
    Key,
    NodeConfig,
    Settings,
    Tag,
    Tags,
    Variable,
)
from redpak.yamltree import Mapping, Scalar, Sequence, Tree, parse_tree, read_text

if TYPE_CHECKING:
    from typing import Any

REDMAIN = "redmain"
# Variables that steer the dynamic linker never come from the caller (ld.so(8)).
LINKER_VARIABLES = ("LD_", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH", "MALLOC_")

# A hint costs up to a millisecond: faults without end must not become work without end.
MAX_FINDINGS = 100
MAX_MESSAGE = 400


class FileKind(enum.Enum):
    """What a file is for; it decides which sections and headers it may have."""

    NODE = "node"
    MAIN = "main"
    ADMIN = "admin"
    MAIN_ADMIN = "main admin"
    TEMPLATE = "template"


_GROUPS = frozenset(
    ".".join(declared.group[:depth])
    for declared in TAGS for depth in range(1, len(declared.group) + 1))
_OF_EXPORT = {key.name: key for key in EXPORT_KEYS}
_OF_VARIABLE = {key.name: key for key in VARIABLE_KEYS}
_OF_CAPABILITY = {key.name: key for key in CAPABILITY_KEYS}
_OF_HEADERS = {key.name: key for key in HEADER_KEYS}
_OF_MODE_LIST = [mode.value for mode in ExportMode]


def load_config(path: str, *, kind: FileKind = FileKind.NODE) -> NodeConfig:
    """The configuration in a file. Raises ConfigError with every fault, RedpakError unreadable."""
    return load_text(read_text(path), path, kind=kind)


def load_admin(path: str, *, kind: FileKind, node: str, owners: tuple[int, ...]) -> AdminConfig:
    """An administrative file, which counts only if root or one of `owners` alone can write it.

    `node` is the alias of the node it is for. Raises RedpakError and ConfigError.
    """
    owner = 0

    def check(status: os.stat_result) -> None:
        nonlocal owner
        owner = status.st_uid
        if owner not in (0, *owners):
            raise RedpakError(f"{path} belongs to user {owner} and cannot count as administrative",
                              hint="give it to root, or leave --admin out")
        if status.st_mode & 0o022:
            raise RedpakError(f"{path} can be written by others than its owner",
                              hint=f"run chmod go-w {path}")
    data = read_text(path, check)
    return AdminConfig(load_text(data, path, kind=kind, node=node), owner)


def load_text(data: bytes, file: str, *, kind: FileKind = FileKind.NODE,
              node: str = "") -> NodeConfig:
    """The configuration in `data`; `file` is for messages. Raises ConfigError with every fault."""
    config, findings = check_text(data, file, kind=kind, node=node)
    if config is None:
        raise ConfigError(findings)
    return config


def check_text(data: bytes, file: str, *, kind: FileKind = FileKind.NODE,
               node: str = "") -> tuple[NodeConfig | None, tuple[Finding, ...]]:
    """As load_text, but the faults are returned; the configuration is None when there are any."""
    reader = Reader(file, kind, node)
    try:
        config = reader.read_config(parse_tree(data, file))
    except ConfigError as error:
        return None, error.findings
    findings = sorted(reader.findings, key=lambda finding: (
        (finding.origin.line, finding.origin.column) if finding.origin else (0, 0)))
    return (None if findings else config), tuple(findings)


class Reader:
    """Turns the tree of one file into typed values and collects what is wrong with it."""

    def __init__(self, file: str, kind: FileKind = FileKind.NODE, node: str = "") -> None:
        self.file = file
        self.kind = kind
        self.node = REDMAIN if kind in (FileKind.MAIN, FileKind.MAIN_ADMIN) else node
        self.findings: list[Finding] = []

    # -- the file ---------------------------------------------------------------------------

    def read_config(self, tree: Tree | None) -> NodeConfig:
        """The whole file; faults go to `findings`."""
        sections = self._sections(tree)
        headers = self._read_headers(sections.get("headers"), tree)
        self.node = headers.alias or self.node
        return NodeConfig(
            file=self.file, headers=headers,
            settings=self._read_settings(sections.get("config"), "config"),
            exports=self._read_exports(sections.get("exports")),
            environ=self._read_environ(sections.get("environ")),
            enforce=self._read_settings(sections.get("enforce"), "enforce"))

    def fault(self, place: Tree | None, message: str, *, key: str = "", hint: str = "") -> None:
        """Note an error at a place of the file. Raises ConfigError when there are too many."""
        line, column = (place.line, place.column) if place is not None else (1, 1)
        text = (f"{key}: {message}" if key else message).translate(_VISIBLE)
        if len(text) > MAX_MESSAGE:
            text = text[:MAX_MESSAGE - 3] + "..."
        origin = Origin(self.file, line, column, self.node)
        self.findings.append(Finding(Severity.ERROR, text, origin, key, hint))
        if len(self.findings) == MAX_FINDINGS:
            self.findings.append(Finding(
                Severity.ERROR, f"has more than {MAX_FINDINGS} faults", origin,
                hint="correct these first"))
            raise ConfigError(self.findings)

    def _origin(self, place: Tree) -> Origin:
        return Origin(self.file, place.line, place.column, self.node)

    def _sections(self, tree: Tree | None) -> dict[str, Tree]:
        sections: dict[str, Tree] = {}
        if tree is None or (type(tree) is Scalar and tree.bare):
            return sections
        for name, section in self._items(tree, "", "the sections headers, config, exports and "
                                                   "environ"):
            key = name.text.lower()
            if key not in SECTIONS:
                self.fault(name, f'unknown section "{name.text}"',
                           hint=did_you_mean(key, SECTIONS, noun="sections"))
            elif key == "enforce" and self.kind not in (FileKind.MAIN, FileKind.MAIN_ADMIN):
                self.fault(name, "enforce: only main.yaml can have this section",
                           hint="write these keys under config")
            else:
                sections[key] = section
        return sections

    def _read_headers(self, tree: Tree | None, root: Tree | None) -> Headers:
        if tree is None and self.kind is not FileKind.NODE:
            return Headers()
        if tree is None:
            self.fault(root, "headers: the section is missing",
                       hint="start the file with headers: {alias: NAME}")
            return Headers()
        keys = _OF_HEADERS
        if self.kind is FileKind.TEMPLATE:
            keys = {"info": _OF_HEADERS["info"]}
        values, places = self.read_entry(tree, "headers", keys,
                                         lenient=self.kind is not FileKind.NODE)
        alias = values.get("alias", "")
        if self.kind is FileKind.NODE and alias in RESERVED_ALIASES:
            self.fault(places["alias"], f'"{alias}" is reserved', key="headers.alias",
                       hint="choose another alias")
        return Headers(**values)

    # -- generic ----------------------------------------------------------------------------

    def _items(self, tree: Tree, key: str, expected: str) -> list[tuple[Scalar, Tree]]:
        """The items of a mapping, without repeated keys; an empty value is an empty mapping."""
        if type(tree) is not Mapping:
            if not (type(tree) is Scalar and tree.bare):
                glued = type(tree) is Scalar and re.match(r"[\w-]+:\S", tree.text)
                self.fault(tree, f"expected {expected}", key=key, hint="put a space after the colon"
                           if glued else "write KEY: VALUE lines")
            return []
        items = []
        seen: dict[str, Scalar] = {}
        for name, value in tree.items:
            first = seen.setdefault(name.text.lower(), name)
            if first is not name:
                self.fault(name, f'the key "{name.text}" is here twice, first in line '
                                 f"{first.line}", key=key, hint="keep one of them")
            else:
                items.append((name, value))
        return items

    def _entries(self, tree: Tree | None, key: str) -> Iterable[Tree]:
        if tree is None or (type(tree) is Scalar and tree.bare):
            return ()
        if type(tree) is not Sequence:
            self.fault(tree, "expected a list", key=key, hint='start each entry with "- "')
            return ()
        return tree.items

    def read_entry(self, tree: Tree, section: str, keys: dict[str, Key], *,
                    lenient: bool = False) -> tuple[dict[str, Any], dict[str, Scalar]]:
        """The converted values of one mapping, and where each stands."""
        values: dict[str, Any] = {}
        places: dict[str, Scalar] = {}
        for name, value in self._items(tree, section, f"the keys {', '.join(keys)}"):
            key = keys.get(name.text.lower())
            if key is None:
                self.fault(name, f'unknown key "{name.text}"', key=section,
                           hint=did_you_mean(name.text, keys, noun="keys"))
                continue
            places[key.name] = name
            converted = self._convert(value, key.kind,
                                      f"{section}.{key.name}" if section else key.name)
            if converted is not _FAULTY:
                values[key.name] = converted
                places[key.name] = value  # type: ignore[assignment]
        if not lenient:
            for key in keys.values():
                if key.mandatory and key.name not in places:
                    self.fault(tree, f'the key "{key.name}" is missing', key=section,
                               hint=f"add {key.name}: with {key.kind.expects}")
        return values, places

    def _convert(self, tree: Tree, kind: Kind, key: str) -> Any:
        if type(tree) is not Scalar:
            self.fault(tree, f"expected {kind.expects}, not a "
                             f"{'list' if type(tree) is Sequence else 'mapping'}", key=key,
                       hint="write KEY: VALUE")
            return _FAULTY
        if tree.bare and kind.name != "text":
            self.fault(tree, f"has no value, expected {kind.expects}", key=key,
                       hint="write a value or remove the key")
            return _FAULTY
        try:
            return kind.parse(tree.text)
        except BadValue as error:
            shown = tree.text if len(tree.text) <= 60 else tree.text[:57] + "..."
            quoted = f'"{shown}"'
            message = f"{quoted} {error}, expected {kind.expects}" if str(error) else (
                f"{quoted} is not {kind.expects}")
            self.fault(tree, message, key=key, hint=error.hint)
            return _FAULTY

    # -- config and enforce -----------------------------------------------------------------

    def _read_settings(self, tree: Tree | None, section: str) -> Settings:
        if tree is None:
            return Settings()
        values: dict[str, Any] = {}
        origins: dict[str, tuple[Origin, ...]] = {}
        capabilities: tuple[Capability, ...] = ()
        pending: list[tuple[str, Tree]] = [("", tree)]
        while pending:
            prefix, group = pending.pop(0)
            for name, value in self._items(group, f"{section}.{prefix}".rstrip("."),
                                           "keys with their values"):
                key = f"{prefix}{name.text.lower()}"
                tag = TAG_OF_KEY.get(key)
                if tag is not None:
                    converted = self._read_tag(value, tag, section)
                    if converted is not _FAULTY and converted is not None:
                        values[tag.attribute] = converted
                        places = value.items if type(value) is Sequence else [name]
                        origins[key] = tuple(map(self._origin, places))
                elif key in _GROUPS:
                    pending.append((f"{key}.", value))
                elif key == "capabilities":
                    capabilities = self._read_capabilities(value, f"{section}.capabilities")
                else:
                    known = _keys_below(prefix)
                    self.fault(name, f'unknown key "{name.text}"',
                               key=f"{section}.{prefix}".rstrip("."),
                               hint=did_you_mean(name.text, known, noun="keys"))
        return Settings(Tags(**values), origins, capabilities)

    def _read_tag(self, tree: Tree, tag: Tag, section: str) -> Any:
        key = f"{section}.{tag.key}"
        if not tag.is_list:
            return self._convert(tree, tag.kind, key)
        # One value may stand without the brackets of a list.
        entries = [tree] if type(tree) is Scalar and not tree.bare else self._entries(tree, key)
        values = [self._convert(entry, tag.kind, key) for entry in entries]
        return tuple(value for value in values if value is not _FAULTY)

    def _read_capabilities(self, tree: Tree, key: str) -> tuple[Capability, ...]:
        found: dict[str, Capability] = {}
        for entry in self._entries(tree, key):
            values, places = self.read_entry(entry, key, _OF_CAPABILITY)
            if "cap" not in values or "add" not in values:
                continue
            cap = values["cap"]
            if cap in found:
                self.fault(places["cap"], f"{cap} is here twice, first in line "
                                          f"{found[cap].origin.line}", key=key,
                           hint="keep one of them")
                continue
            found[cap] = Capability(
                cap, CapabilityAction.ADD if values["add"] else CapabilityAction.DROP,
                values.get("info", ""), values.get("warn", ""), self._origin(entry))
        return tuple(found.values())

    # -- exports and environ ----------------------------------------------------------------

    def _read_exports(self, tree: Tree | None) -> tuple[Export, ...]:
        exports: list[Export] = []
        seen: dict[str, Export] = {}
        for entry in self._entries(tree, "exports"):
            values, places = self.read_entry(entry, "exports", _OF_EXPORT)
            if "mode" not in values or "mount" not in values:
                continue
            export = Export(values["mode"], values["mount"], values.get("path", ""),
                            values.get("info", ""), values.get("warn", ""), self._origin(entry),
                            values.get("optional", False))
            if not self._check_export(export, entry, places):
                continue
            first = seen.setdefault(export.mount, export)
            if first is not export and not (export.mode.is_overlay and first.mode.is_overlay):
                self.fault(places["mount"], f"{export.mount} is mounted twice, first in line "
                                            f"{first.origin.line}", key="exports.mount",
                           hint="keep one of them")
                continue
            exports.append(export)
        return tuple(exports)

    def _check_export(self, export: Export, entry: Tree, places: dict[str, Scalar]) -> bool:
        mode = export.mode
        before = len(self.findings)
        if not export.mount.startswith(("/", "$")):
            self.fault(places["mount"], f'"{export.mount}" is not absolute', key="exports.mount",
                       hint="start it with / or $")
        elif not export.mount.strip("/."):
            self.fault(places["mount"], "nothing can be mounted over the root itself",
                       key="exports.mount", hint="export the directories below it")
        if export.path and not mode.has_path:
            self.fault(places["path"], f"mode {mode.value} takes no path", key="exports.path",
                       hint="remove the path")
        elif not export.path and (mode.needs_path or "path" in places):
            self.fault(places.get("path", entry), f"mode {mode.value} needs a path",
                       key="exports.path", hint=_PATH_HINTS.get(mode, "write the source"))
        elif export.path and (mode.is_bind or mode.is_overlay):
            self._check_source(export.path, places["path"])
        elif mode is ExportMode.INTERNAL and not _NUMBER.fullmatch(export.path):
            self.fault(places["path"], f'"{export.path}" is not the number of a descriptor',
                       key="exports.path", hint=_PATH_HINTS[mode])
        return len(self.findings) == before

    def _check_source(self, path: str, place: Scalar) -> None:
        if not path.startswith(("/", "$")):
            self.fault(place, f'"{path}" is not absolute', key="exports.path",
                       hint="start it with / or $, such as $NODE_PATH/...")
        elif ".." in path.split("/") or "\n" in path:
            self.fault(place, 'the path has a ".." part or a line break', key="exports.path",
                       hint="write the path without them")

    def _read_environ(self, tree: Tree | None) -> tuple[Variable, ...]:
        environ: dict[str, Variable] = {}
        for entry in self._entries(tree, "environ"):
            values, places = self.read_entry(entry, "environ", _OF_VARIABLE)
            if "key" not in values or ("mode" in places and "mode" not in values):
                continue
            key, mode = values["key"], values.get("mode", EnvironMode.DEFAULT)
            if mode.has_value and "value" not in places:
                self.fault(entry, f'{key}: the key "value" is missing', key="environ",
                           hint="add value:, or use mode Remove or Inherit")
            elif not mode.has_value and values.get("value"):
                self.fault(places["value"], f"{key}: mode {mode.value} takes no value",
                           key="environ.value", hint="remove the value")
            elif mode is EnvironMode.INHERIT and key.startswith(LINKER_VARIABLES):
                self.fault(places["key"], f"{key} steers the dynamic linker and is never "
                                          "inherited", key="environ.key", hint="set its value")
            elif key in environ:
                self.fault(places["key"], f"{key} is here twice, first in line "
                                          f"{environ[key].origin.line}", key="environ.key",
                           hint="keep one of them")
            else:
                environ[key] = Variable(key, values.get("value", ""), mode,
                                        values.get("info", ""), values.get("warn", ""),
                                        self._origin(entry))
        return tuple(environ.values())


class _Faulty(enum.Enum):
    """The one value that says "a fault was noted"; None is a value of its own ("unset")."""

    FAULTY = "faulty"


_FAULTY = _Faulty.FAULTY
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_NUMBER = re.compile("[0-9]{1,9}")
_PATH_HINTS = {
    ExportMode.SYMLINK: "write what the link points to",
    ExportMode.EXECFD: "write the shell command whose output is the file",
    ExportMode.INTERNAL: "write the number of the descriptor that red-wrap inherits",
}


def _keys_below(prefix: str) -> list[str]:
    """The keys that may stand in the mapping `prefix` ("" or "cgroups.mem.")."""
    known = {key[len(prefix):].split(".")[0] for key in TAG_OF_KEY if key.startswith(prefix)}
    return sorted(known | ({"capabilities"} if not prefix else set()))
