# SPDX-License-Identifier: Apache-2.0
"""Building a tree again from its manifest and the repositories that its nodes name.

Each node is made whole or not at all: it is disabled and says so until it is proven to be what
the manifest says; one that cannot be is removed. A thaw that was interrupted goes on where it
stopped.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import rpm

from redcheck.engine import Options, check, locked_scope
from redcheck.findings import Finding, Severity
from redcheck.manifest import Manifest, compare, decode, mode_of
from redcheck.reports import counted
from redcheck.scope import Request
from redpak.create import restore_node
from redpak.errors import RedpakError
from redpak.family import Main
from redpak.files import write_file_atomic
from redpak.node import ADMIN_FILES, CONFIG_FILES, NodeState, is_node, read_status, write_status
from redpak.values import replace
from redrpm.rpmdb import create_rpmdb, make_readable
from redsys.trees import remove_tree

UNFINISHED = "red-manager --thaw has not finished it"


class Install(Protocol):
    """What the front end's package manager does for a thaw."""

    def __call__(self, place: str, packages: Sequence[str], *, forced: bool,
                 dependencies: Sequence[str]) -> None:
        """Install exactly ``packages`` into the node at ``place``, some of them although an
        ancestor has another build (``forced``); ``dependencies`` were not asked for by a user.

        Raises RedpakError.
        """


def thaw(manifest: Manifest, top: str, *, main: Main, install: Install,
         notify: Callable[[str], None]) -> None:
    """Build the tree of ``manifest`` at the directory ``top``. Raises RedpakError."""
    for path, node in manifest.nodes.items():
        place = os.path.normpath(f"{top}/{path}")
        if is_node(place):
            if read_status(place).info != UNFINISHED:
                if _differences(place, node, main):
                    raise RedpakError(f"{place} is a node already, and another than the"
                                      " manifest's", hint="remove it, or choose another redpath")
                continue
            remove_tree(place)
        elif os.path.lexists(place) and (not os.path.isdir(place) or os.listdir(place)):
            raise RedpakError(f"{place} is in the way, a node is to be there",
                              hint="remove it, or choose another redpath")
        notify(f"Thawing node {node['alias']} in {place}: "
               f"{counted(len(node['packages']), 'package')}")
        try:
            _build_node(place, path, node, manifest, main=main, install=install)
        except BaseException:
            if is_node(place) and read_status(place).info == UNFINISHED:
                remove_tree(place)
            raise


def _build_node(place: str, path: str, wanted: Mapping[str, Any], manifest: Manifest, *,
                main: Main, install: Install) -> None:
    files = dict(wanted["files"])
    config = next((name for name in CONFIG_FILES if name in files), None)
    if config is None:
        raise RedpakError(f"the manifest has no configuration of node {path}",
                          hint="freeze the tree again")
    node = restore_node(place, decode(files[config]), main=main, info=UNFINISHED)
    create_rpmdb(node.rpmdb_dir)
    first = {name: entry for name, entry in files.items()
             if name in (*CONFIG_FILES, *ADMIN_FILES) or name.startswith(("etc/yum.repos.d/",
                                                                          "etc/dnf/", "etc/pki/"))}
    _write_files(place, first)
    if config != CONFIG_FILES[0]:
        os.unlink(f"{place}/{CONFIG_FILES[0]}")
    _import_keys(node.rpmdb_dir, wanted["keys"])
    packages = wanted["packages"]
    if packages:
        above = {row["name"] for ancestor in _ancestors(path, manifest)
                 for row in manifest.nodes[ancestor]["packages"]}
        forced = any(row["name"] in above for row in packages)
        install(place, [row["nevra"] for row in packages], forced=forced, dependencies=[
            row["nevra"] for row in packages if row.get("reason") == "dependency"])
    # A second time: packages may have put their own in place of some.
    _write_files(place, files)
    differences = _differences(place, {**wanted, "state": NodeState.DISABLE.value}, main)
    if differences:
        raise RedpakError(
            f"node {wanted['alias']} ({path}) did not become what the manifest says:"
            f" {differences[0].message}", hint="see whether its repositories still have exactly"
            " these packages")
    state = NodeState(wanted["state"])
    write_status(place, replace(read_status(place), state=state, info=""))


def _ancestors(path: str, manifest: Manifest) -> list[str]:
    return [other for other in manifest.nodes if other != path and (
        other == "." or f"{path}/".startswith(f"{other}/"))]


def _differences(place: str, wanted: Mapping[str, Any], main: Main) -> list[Finding]:
    """What keeps the node at ``place`` from being ``wanted``."""
    with locked_scope(Request(place, main.file), os.environ, lambda _text: None) as scope:
        report = check(scope, Options(), os.environ)
        found = compare(report, Manifest({".": wanted}, None))
    return found + [each for each in report.findings if each.severity is Severity.ERROR
                    and each.rule.name != "state"]


def _write_files(place: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, entry in files.items():
        path = f"{place}/{name}"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
                raise RedpakError(f"{path}: lies behind a symbolic link",
                                  hint="the manifest is not of this tree")
            if "link" in entry:
                if os.path.lexists(path):
                    os.unlink(path)
                os.symlink(entry["link"], path)
            else:
                write_file_atomic(path, decode(entry), mode_of(entry))
        except OSError as err:
            raise RedpakError(f"{path}: cannot write: {err.strerror}") from err


def _import_keys(rpmdb: str, keys: Sequence[str]) -> None:
    """Have the node trust ``keys``, those that its packages were checked with."""
    if not keys:
        return
    rpm.addMacro("_dbpath", rpmdb)
    try:
        ts = rpm.TransactionSet()
        for key in keys:
            if ts.pgpImportPubkey(base64.b64decode(key)) != 0:
                raise RedpakError(f"{rpmdb}: a public key of the manifest cannot be imported")
        ts.closeDB()
    except rpm.error as err:
        raise RedpakError(f"{rpmdb}: cannot import a key: {err}") from err
    finally:
        rpm.delMacro("_dbpath")
    make_readable(rpmdb)
