# SPDX-License-Identifier: Apache-2.0
"""The lock manifest: exactly what a tree of nodes is, and all that is needed to build it again.

It holds each node's configuration, repositories and other files that no package brings, and names
its packages with the digests of their headers, which cover their files. Data below var and private
are the applications' own, and no part of it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import sqlite3
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import rpm

from redcheck.engine import Report
from redcheck.findings import Finding, Severity
from redcheck.library import Library
from redcheck.packages import Installed, Package
from redcheck.rootfs import RootFs
from redcheck.scope import Layer, Scope
from redpak.errors import RedpakError
from redpak.node import ADMIN_FILES, CONFIG_FILES, NodeState
from redpak.values import dataclass
from redrpm.dnfstate import DNF5, DNF5_STATE_DIR, last_writer, read_entries

_FORMAT = 1
_MAX_FILE = 1 << 20  # bytes of one file
_PLACES = ("etc/yum.repos.d", "etc/dnf", "etc/pki/rpm-gpg")
# Findings whose files only the manifest can bring back.
_EXTRA_RULES = frozenset(("changed-config", "unowned-file"))
_DEPENDENCY_REASONS = (1, 4)  # libdnf's TransactionItemReason: dependency, weak dependency
_DNF5_DEPENDENCY_REASONS = ("Dependency", "Weak Dependency")


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was read: nodes by their path from the top, parents first."""

    nodes: Mapping[str, Mapping[str, Any]]
    core: Mapping[str, Any] | None

    def data(self) -> dict[str, Any]:
        """The manifest as JSON has it."""
        data: dict[str, Any] = {"version": _FORMAT}
        if self.core is not None:
            data["core"] = self.core
        data["nodes"] = [{"path": path, **node} for path, node in self.nodes.items()]
        return data

    def text(self) -> str:
        """The manifest's file: the same tree gives the same bytes, all ASCII, as names of files
        need not be text."""
        return json.dumps(self.data(), indent=2) + "\n"


def read_manifest(path: str) -> Manifest:
    """Read a manifest. Raises RedpakError for what is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        if document["version"] != _FORMAT:
            raise ValueError(f"version {document['version']} is not known")
        nodes = {_checked_path(node["path"]): _checked_node(node) for node in document["nodes"]}
        core = document.get("core")
        if core is not None:
            _check_packages(core["packages"])
        return Manifest(nodes, core)
    except OSError as err:
        raise RedpakError(f"{path}: cannot read the manifest: {err.strerror}") from err
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise RedpakError(f"{path}: not a manifest: {_say(err)}",
                          hint="make one with red-manager --freeze=FILE") from err


def _checked_path(path: Any) -> str:
    if not isinstance(path, str) or path.startswith("/") or "\0" in path or not path or any(
            part in ("", "..") or (part == "." and path != ".") for part in path.split("/")):
        raise ValueError(f"{path!r} is not the path of a node")
    os.fsencode(path)  # UnicodeEncodeError is a ValueError
    return path


def _checked_node(node: Mapping[str, Any]) -> dict[str, Any]:
    for name, entry in node["files"].items():
        _checked_path(name)
        if "link" in entry:
            _check_texts(entry, "link")
        else:
            decode(entry)
            mode_of(entry)
    _check_packages(node["packages"])
    _check_texts(node, "alias", "name")
    NodeState(node["state"])
    for key in node["keys"]:
        base64.b64decode(key, validate=True)
    return {key: node[key] for key in ("alias", "name", "state", "files", "keys", "packages")}


def _check_packages(packages: Sequence[Mapping[str, Any]]) -> None:
    for package in packages:
        _check_texts(package, "name", "nevra", "digest")
        if package["nevra"].startswith("-") or "/" in package["nevra"]:
            raise ValueError(f"{package['nevra']!r} is not a package")


def _check_texts(entry: Mapping[str, Any], *keys: str) -> None:
    for key in keys:
        if not isinstance(entry[key], str) or "\0" in entry[key]:
            raise ValueError(f"{key} is {entry[key]!r}, not text")


def _say(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def mode_of(entry: Mapping[str, Any]) -> int:
    """The permissions of a file of a manifest. Raises ValueError, TypeError."""
    return int(entry["mode"], 8) & 0o777


def decode(entry: Mapping[str, Any]) -> bytes:
    """The content of a file of a manifest. Raises ValueError when it is not what it says."""
    data = (entry["text"].encode() if "text" in entry
            else base64.b64decode(entry["base64"], validate=True))
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError("a file's content does not have its digest")
    return data


# -- what a tree is -------------------------------------------------------------------------


def freeze(report: Report) -> Manifest:
    """The manifest of what was checked. Raises RedpakError for what is not sound."""
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    if errors or report.unchecked:
        first = errors[0].message if errors else report.unchecked[0]
        raise RedpakError(f"the tree is not sound: {first}",
                          hint="correct what red-check --tree finds, then freeze it")
    return describe(report)


def describe(report: Report) -> Manifest:
    """The manifest of what was checked, sound or not. Raises RedpakError."""
    scope = report.scope
    extra: dict[str, list[str]] = {}
    for finding in (*report.findings, *report.accepted):
        if finding.rule.name in _EXTRA_RULES:
            extra.setdefault(finding.node, []).append(finding.path)
    library = Library()
    try:
        nodes = {relative_path(layer, scope): _describe_node(layer, scope, library.of(layer), extra)
                 for layer in scope.checked if layer.node is not None}
        core = None
        if scope.core.checked:
            core = {"packages": _describe_packages(library.of(scope.core).packages, {})}
        return Manifest(nodes, core)
    finally:
        library.close()


def relative_path(layer: Layer, scope: Scope) -> str:
    """The path of a node from the top of what is checked."""
    return os.path.relpath(layer.path, scope.top)


def _describe_node(layer: Layer, scope: Scope, installed: Installed,
                   extra: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    assert layer.node is not None
    names = {path.lstrip("/") for path in extra.get(layer.inside, ())}
    names.update(_own_files(layer.path, scope.root))
    dependencies = _read_dependencies(layer.node.persist_dir, scope.root)
    return {
        "alias": layer.node.alias,
        "name": layer.node.name,
        "state": layer.node.status.state.value,
        "files": {name: _describe_file(layer, name) for name in sorted(names)},
        "keys": sorted(base64.b64encode(key).decode() for key in installed.keys),
        "packages": _describe_packages(installed.packages, dependencies),
    }


def _own_files(path: str, root: RootFs) -> Iterator[str]:
    for name in (*CONFIG_FILES, *ADMIN_FILES):
        if os.path.lexists(f"{path}/{name}"):
            yield name
    for place in _PLACES:
        if not root.is_plain(f"{path}/{place}"):
            continue
        for directory, below, files in os.walk(f"{path}/{place}"):
            links = [name for name in below if os.path.islink(f"{directory}/{name}")]
            for name in (*files, *links):
                yield os.path.relpath(f"{directory}/{name}", path)


def _describe_file(layer: Layer, name: str) -> dict[str, Any]:
    path = f"{layer.path}/{name}"
    try:
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            return {"link": os.readlink(path)}
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_FILE:
            raise RedpakError(f"{path}: cannot be frozen, it is no file of up to"
                              f" {_MAX_FILE >> 20} MiB", hint="package it, or move it to private")
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as err:
        raise RedpakError(f"{path}: cannot read: {err.strerror}") from err
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "mode": f"{info.st_mode & 0o777:04o}"}
    try:
        return {**entry, "text": data.decode()}
    except UnicodeDecodeError:
        return {**entry, "base64": base64.b64encode(data).decode()}


def _describe_packages(packages: Sequence[Package],
                       dependencies: Collection[str]) -> list[dict[str, Any]]:
    found = []
    for package in packages:
        if package.is_key:
            continue
        row = {"name": package.name, "nevra": package.label, "digest": header_digest(package)}
        if f"{package.name}.{package.header[rpm.RPMTAG_ARCH]}" in dependencies:
            row["reason"] = "dependency"
        found.append(row)
    return sorted(found, key=lambda row: row["nevra"])


def header_digest(package: Package) -> str:
    """What tells two builds apart: the digest of the header that the builder made."""
    for name, tag in (("sha256", rpm.RPMTAG_SHA256HEADER), ("sha1", rpm.RPMTAG_SHA1HEADER)):
        if package.header[tag]:
            return f"{name}:{package.header[tag]}"
    return ""


def _read_dependencies(state: str, root: RootFs) -> set[str]:
    """The packages, name.arch, that nobody asked for, as the dnf says that worked in the directory
    ``state`` last."""
    if last_writer(state) != DNF5:
        reasons = _read_reasons(f"{state}/history.sqlite", root)
        return {package for package, reason in reasons.items() if reason in _DEPENDENCY_REASONS}
    notes = f"{state}/{os.path.basename(DNF5_STATE_DIR)}/packages.toml"
    entries = read_entries(notes) if root.is_plain(notes) else ()
    return {package for package, reason in entries if reason in _DNF5_DEPENDENCY_REASONS}


def _read_reasons(history: str, root: RootFs) -> dict[str, int]:
    """Why dnf4 installed each package, by name.arch; it has no other record of it
    (libdnf, transaction/sql/create.sql). Nothing when there is no history."""
    if not root.is_plain(history) or not os.path.isfile(history):
        return {}
    query = ("SELECT rpm.name || '.' || rpm.arch, trans_item.reason FROM trans_item"
             " JOIN rpm ON rpm.item_id = trans_item.item_id ORDER BY trans_item.id")
    with contextlib.suppress(sqlite3.Error, OSError), tempfile.NamedTemporaryFile() as copy:
        with open(history, "rb") as stream:
            copy.write(stream.read())
        copy.flush()
        with contextlib.closing(sqlite3.connect(copy.name)) as database:
            return dict(database.execute(query))
    return {}


# -- is it that? ----------------------------------------------------------------------------


def compare(report: Report, wanted: Manifest) -> list[Finding]:
    """How what was checked differs from ``wanted``. Raises RedpakError."""
    scope = report.scope
    found = describe(report)
    layers = {relative_path(layer, scope): layer for layer in scope.checked
              if layer.node is not None}
    findings = []
    for path in sorted({*wanted.nodes, *layers}):
        if path not in layers:
            findings.append(scope.core.finding(
                "differs", f"the manifest's node {wanted.nodes[path]['alias']} ({path}) is"
                " missing", path=path))
        elif path not in wanted.nodes:
            findings.append(layers[path].finding("differs", "the manifest has no such node"))
        else:
            findings += _compare_node(layers[path], found.nodes[path], wanted.nodes[path])
    if wanted.core is not None and found.core is not None:
        findings += _compare_packages(scope.core, found.core, wanted.core)
    return findings


def _compare_node(layer: Layer, found: Mapping[str, Any],
                  wanted: Mapping[str, Any]) -> Iterator[Finding]:
    for key in ("alias", "name", "state"):
        if found[key] != wanted[key]:
            yield layer.finding("differs", f"the {key} is {found[key]}, not {wanted[key]}")
    for name in sorted({*found["files"], *wanted["files"]}):
        here, there = found["files"].get(name), wanted["files"].get(name)
        if here is None or there is None:
            what = "is missing" if here is None else "is not in the manifest"
            yield layer.finding("differs", f"/{name} {what}", path=f"/{name}")
        elif any(here.get(key) != there.get(key) for key in ("sha256", "mode", "link")):
            yield layer.finding("differs", f"/{name} is another file than the manifest's",
                                path=f"/{name}")
    for key in sorted({*found["keys"]} ^ {*wanted["keys"]}):
        what = "has" if key in wanted["keys"] else "does not have"
        digest = hashlib.sha256(base64.b64decode(key)).hexdigest()[:16]
        yield layer.finding("differs", f"the manifest {what} the public key with digest {digest}")
    yield from _compare_packages(layer, found, wanted)


def _compare_packages(layer: Layer, found: Mapping[str, Any],
                      wanted: Mapping[str, Any]) -> Iterator[Finding]:
    here = {row["nevra"]: row["digest"] for row in found["packages"]}
    there = {row["nevra"]: row["digest"] for row in wanted["packages"]}
    for label in sorted({*here, *there}):
        if label not in here:
            text = f"{label} is not installed"
        elif label not in there:
            text = f"{label} is not in the manifest"
        elif here[label] != there[label]:
            text = f"{label} is another build than the manifest's"
        else:
            continue
        yield layer.finding("differs", text, package=label)
