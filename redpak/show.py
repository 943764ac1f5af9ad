# SPDX-License-Identifier: Apache-2.0
"""What red-conf shows: trees of nodes, differences, and the findings of a validation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from redpak.errors import ConfigError, RedpakError
from redpak.expand import Caller
from redpak.family import Main, find_ancestors, find_descendants, load_family
from redpak.findings import Finding, Origin, Severity, printable
from redpak.load import FileKind, check_text
from redpak.merge import merge_family
from redpak.node import ADMIN_FILES, STATUS_FILE, NodeState, is_node, read_node, read_status
from redpak.plain import Data
from redpak.rpmnames import count_packages
from redpak.terminal import GREEN, RED, YELLOW, Look
from redpak.values import dataclass
from redpak.yamltext import scalar, without_notes
from redpak.yamltree import read_text

_COLOURS = {NodeState.ENABLE: GREEN, NodeState.DISABLE: YELLOW, NodeState.UNKNOWN: YELLOW,
            NodeState.ERROR: RED}


@dataclass(frozen=True)
class TreeEntry:
    """A node of a tree; `parent` is the path of the nearest node above it, or empty."""

    path: str
    parent: str
    alias: str
    state: NodeState
    packages: int | None
    problem: str = ""
    name: str = ""
    info: str = ""

    def data(self) -> Data:
        """The entry for programs."""
        return {"path": self.path, "parent": self.parent, "alias": self.alias,
                "state": self.state.value, "packages": self.packages, "problem": self.problem,
                "name": self.name, "info": self.info}


def read_tree(root: str) -> list[TreeEntry]:
    """The node at `root`, if it is one, and every node below, in the order of their paths.

    A node that cannot be read is an entry too. Raises RedpakError where it may not look.
    """
    root = os.path.realpath(root)
    if not os.path.isdir(root):
        raise RedpakError(f"{root} is not a directory", hint="check --redroot")
    paths = ([root] if is_node(root) else []) + find_descendants(root)
    known = set(paths)
    return [_read_entry(path, next((above for above in find_ancestors(path) if above in known),
                                   "")) for path in paths]


def _read_entry(path: str, parent: str) -> TreeEntry:
    try:
        node = read_node(path)
        return TreeEntry(path, parent, node.alias, node.status.state,
                         count_packages(node.rpmdb_dir),
                         "" if node.status.realpath == path else
                         f"created at {node.status.realpath}", node.name,
                         node.config.headers.info)
    except RedpakError as error:
        first = error.findings[0] if isinstance(error, ConfigError) else error
        return TreeEntry(path, parent, os.path.basename(path), NodeState.ERROR, None, str(first))


def draw_tree(entries: Sequence[TreeEntry], look: Look, *, verbose: bool = False) -> str:
    """The tree with box drawing, one node a line; `verbose` adds a line with name and info."""
    children: dict[str, list[TreeEntry]] = {}
    for entry in entries:
        children.setdefault(entry.parent, []).append(entry)
    lines: list[str] = []
    pending = [(entry, "", "") for entry in reversed(children.get("", []))]
    while pending:
        entry, head, indent = pending.pop()
        lines.append(head + _describe(entry, look, indent=len(head)))
        below = children.get(entry.path, [])
        if verbose and entry.name:
            bar = "│   " if below else "    "
            lines.append(indent + bar + printable(f"{entry.name}  {entry.info}").rstrip())
        pending += [(child, indent + ("└── " if child is below[-1] else "├── "),
                     indent + ("    " if child is below[-1] else "│   "))
                    for child in reversed(below)]
    return "\n".join(lines) + "\n" if lines else ""


def _describe(entry: TreeEntry, look: Look, *, indent: int) -> str:
    count = "?" if entry.packages is None else str(entry.packages)
    noun = "package" if entry.packages == 1 else "packages"
    where = entry.path if not entry.parent else os.path.relpath(entry.path, entry.parent)
    problem = printable(f"  ({entry.problem})" if entry.problem else "")
    head, tail = printable(f"{entry.alias}  "), f"  {count} {noun}  "
    taken = indent + len(head) + len(entry.state.value) + len(tail) + len(problem)
    state = look.paint(entry.state.value, _COLOURS[entry.state])
    return f"{head}{state}{tail}{look.cut(printable(where), taken)}{problem}"


def flatten(data: Any) -> dict[str, str]:
    """A configuration as keys with their values: exports by mount, variables by name."""
    flat: dict[str, str] = {}
    plain = without_notes(data)
    for section, content in plain.items():
        if section in ("exports", "environ"):
            name = "mount" if section == "exports" else "key"
            for entry in content:
                value = " ".join(f"{key}={scalar(part)}" for key, part in entry.items()
                                 if key != name)
                key = f"{section} {entry[name]}"
                flat[key] = f"{flat[key]}, {value}" if key in flat else value  # overlay layers
        else:
            _flatten_into(flat, section, content)
    return flat


def _flatten_into(flat: dict[str, str], prefix: str, content: Any) -> None:
    if isinstance(content, Mapping):
        for key, value in content.items():
            _flatten_into(flat, f"{prefix}.{key}", value)
    elif isinstance(content, list) and content and isinstance(content[0], Mapping):
        for entry in content:
            flat[f"{prefix} {entry['cap']}"] = "add" if entry["add"] else "drop"
    elif isinstance(content, list):
        flat[prefix] = ", ".join(map(str, content))
    else:
        flat[prefix] = scalar(content)


def differences(first: Any, second: Any) -> list[Data]:
    """What differs between two configurations; a value that one has not is None."""
    one, two = flatten(first), flatten(second)
    return [{"key": key, "first": one.get(key), "second": two.get(key)}
            for key in dict.fromkeys((*one, *two)) if one.get(key) != two.get(key)]


def draw_differences(found: Sequence[Data], look: Look) -> str:
    """Differences as lines that start with - and +."""
    return "".join(
        look.paint(printable(f"{sign} {difference['key']}: {difference[side]}"), colour) + "\n"
        for difference in found
        for side, sign, colour in (("first", "-", RED), ("second", "+", GREEN))
        if difference[side] is not None)


def draw_findings(findings: Sequence[Finding], look: Look) -> str:
    """Findings, each in a line."""
    colours = {Severity.ERROR: RED, Severity.WARNING: YELLOW}
    return "".join(f"{look.paint(finding.severity.value, colours[finding.severity])}: {finding}\n"
                   for finding in findings)


def validate(path: str, *, main: Main | None, environ: Mapping[str, str],
             caller: Caller) -> list[Finding]:
    """Everything that is wrong with a configuration file, or with a node and its family.

    For a node a `main` is needed; it is what the node's family is merged with.
    """
    try:
        if not os.path.isdir(path):
            return _validate_file(path)
        # Not the state: a disabled node may well have a sound configuration.
        if main is None:
            read_node(os.path.realpath(path), admin=True)
            return []
        family = load_family(os.path.abspath(path), main=main, admin=_has_admin(path), force=True)
        return list(merge_family(family, environ=environ, caller=caller).warnings)
    except ConfigError as error:
        return list(error.findings)
    except RedpakError as error:
        return [Finding(Severity.ERROR, error.message, None, "", error.hint)]


def _has_admin(path: str) -> bool:
    return any(os.path.exists(f"{path}/{name}") for name in ADMIN_FILES)


def _validate_file(path: str) -> list[Finding]:
    name = os.path.basename(path)
    if name == STATUS_FILE:
        read_status(os.path.dirname(os.path.abspath(path)))
        return []
    _, findings = check_text(read_text(path), path, kind=kind_of_file(path))
    return list(findings)


def kind_of_file(path: str) -> FileKind:
    """What a file is for, by its name and place."""
    name = os.path.basename(path)
    if name == "main.yaml":
        return FileKind.MAIN
    if name == "main-admin.yaml":
        return FileKind.MAIN_ADMIN
    if os.path.basename(os.path.dirname(os.path.abspath(path))) == "templates.d":
        return FileKind.TEMPLATE
    return FileKind.ADMIN if name.endswith("-admin.yaml") else FileKind.NODE


def finding_data(finding: Finding) -> Data:
    """A finding for programs."""
    origin = finding.origin or Origin("", 0, 0, "")
    return {"severity": finding.severity.value, "file": origin.file, "line": origin.line,
            "column": origin.column, "node": origin.node, "key": finding.key,
            "message": finding.message, "hint": finding.hint}
