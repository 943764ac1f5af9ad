# SPDX-License-Identifier: Apache-2.0
"""Whether the packages of a node fit on those of its ancestors.

librpm judges dependencies and conflicts: the node's packages are put to a test
transaction on the rpmdb of all ancestors. That is done once for each node, on the union that its
parent left, so that a tree costs little more than the sum of its nodes.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import rpm

from redcheck.findings import Finding
from redcheck.library import Library
from redcheck.owned import OwnedFile, read_files
from redcheck.packages import Installed, Package
from redcheck.scope import Layer
from redpak.values import dataclass, field
from redrpm.rpmdb import (
    Member,
    add_headers,
    build_family_rpmdb,
    open_rpmdb,
)

_RULES = {
    rpm.RPMPROB_REQUIRES: "dependency",
    rpm.RPMPROB_CONFLICT: "conflict",
}


@dataclass
class _Union:
    """What a family has: an rpmdb (its directory), packages by name, files by path."""

    rpmdb: str = ""
    names: dict[str, list[Package]] = field(default_factory=dict)
    files: dict[str, list[OwnedFile]] = field(default_factory=dict)


class Closure:
    """Checks nodes on their ancestors. What an ancestor adds to the union is kept for all of its
    children."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._unions: dict[str, _Union] = {}
        self._files: dict[str, dict[str, list[OwnedFile]]] = {}

    def check(self, layer: Layer) -> list[Finding]:
        """Everything that is wrong with ``layer`` in its family. Raises RedpakError."""
        installed = self._library.of(layer)
        below = self._union(layer.parent) if layer.parent else _Union()
        findings = list(_find_duplicates(layer, installed))
        findings += _find_shadows(layer, installed, below)
        findings += _find_obsoletes(layer, installed, below)
        findings += self._find_problems(layer, installed, below)
        findings += self._find_file_conflicts(layer, installed, below)
        return findings

    # -- dependencies -----------------------------------------------------------------------

    def _find_problems(self, layer: Layer, installed: Installed,
                       below: _Union) -> Iterator[Finding]:
        if not installed.packages:
            return
        seen = set()
        with open_rpmdb(below.rpmdb or self._empty_rpmdb()) as ts:
            for package in installed.packages:
                if not package.is_key:
                    shadows = package.name in below.names and not package.is_multi_install
                    # As imported, without the number that it has in its own rpmdb: librpm would
                    # take the union's header of that number for the package itself.
                    header = rpm.hdr(package.header.unload())
                    ts.addInstall(header, package.label, "u" if shadows else "i")
            ts.check()
            for problem in ts.problems() or ():
                # librpm takes a header that comes from an rpmdb for an installed package.
                text = str(problem).replace("(installed) ", "")
                rule = _RULES.get(problem.type)
                if rule is None or text in seen:
                    continue
                seen.add(text)
                yield layer.finding(rule, text, package=problem.pkgNEVR)

    def _empty_rpmdb(self) -> str:
        path = f"{self._library.directory}/empty"
        os.makedirs(path, exist_ok=True)
        return path

    def _union(self, layer: Layer) -> _Union:
        """What the family of ``layer`` has."""
        known = self._unions.get(layer.path)
        if known is None:
            known = self._unions[layer.path] = self._join(layer)
        return known

    def _join(self, layer: Layer) -> _Union:
        installed = self._library.of(layer)
        below = self._union(layer.parent) if layer.parent else _Union()
        own = {package.name for package in installed.packages
               if not package.is_multi_install}
        hidden = own & below.names.keys()
        names = {name: found for name, found in below.names.items() if name not in hidden}
        for package in installed.packages:
            names[package.name] = [*names.get(package.name, ()), package]
        labels = {package.label for name in hidden for package in below.names[name]}
        files = {path: kept for path, found in below.files.items()
                 if (kept := [file for file in found if file.package not in labels])
                 } if labels else dict(below.files)
        for path, mine in self.files_of(layer, installed).items():
            files[path] = [*files.get(path, ()), *mine]
        return _Union(self._join_rpmdbs(layer, installed, below, shadowing=bool(hidden)), names,
                      files)

    def _join_rpmdbs(self, layer: Layer, installed: Installed, below: _Union, *,
                     shadowing: bool) -> str:
        if not installed.packages:
            return below.rpmdb
        if not below.rpmdb:
            return installed.directory
        place = f"{self._library.directory}/union-{len(self._unions)}"
        if shadowing:
            members = [Member(member.path, self._library.of(member).directory)
                       for member in layer.lineage]
            return build_family_rpmdb(members, place).directory
        shutil.copytree(below.rpmdb, place)
        add_headers(installed.directory, {package.number for package in installed.packages}, place)
        return place

    # -- files ------------------------------------------------------------------------------

    def files_of(self, layer: Layer, installed: Installed) -> dict[str, list[OwnedFile]]:
        """The files of a layer, by their place in the view of its family."""
        known = self._files.get(layer.path)
        if known is None:
            known = self._files[layer.path] = {}
            paths = self._library.paths(layer)
            for package in installed.packages:
                for directory, name, file in read_files(package):
                    known.setdefault(f"{paths.directory(directory)}/{name}", []).append(file)
        return known

    def _find_file_conflicts(self, layer: Layer, installed: Installed,
                             below: _Union) -> Iterator[Finding]:
        own = {package.name for package in installed.packages if not package.is_multi_install}
        shadowed = {package.label for name in own for package in below.names.get(name, ())}
        for path, mine in self.files_of(layer, installed).items():
            others = below.files.get(path, ())
            for number, file in enumerate(mine):
                for other in (*mine[:number], *others):
                    if other.package not in shadowed and _conflict(file, other):
                        yield layer.finding(
                            "file-conflict", f"{path} of {file.package} is another file than that"
                            f" of {other.package}", package=file.package, path=path)


def _conflict(one: OwnedFile, other: OwnedFile) -> bool:
    """Whether two packages cannot both have their file at one path (lib/rpmfi.c,
    rpmfilesCompare; lib/transaction.c, handleInstInstalledFile)."""
    if one.is_ghost or other.is_ghost or one.package == other.package:
        return False
    if one.mode != other.mode or (one.user, one.group) != (other.user, other.group):
        return True
    if one.color and other.color and one.color != other.color:
        return False  # programs for two kinds of processor: the preferred one wins
    if stat.S_ISLNK(one.mode):
        return one.link != other.link
    if stat.S_ISREG(one.mode):
        return (one.size, one.digest) != (other.size, other.digest)
    return not stat.S_ISDIR(one.mode) and one.device != other.device


# -- duplicates -----------------------------------------------------------------------------


def _find_duplicates(layer: Layer, installed: Installed) -> Iterator[Finding]:
    builds: dict[tuple[str, Any], list[Package]] = {}
    for package in installed.packages:
        if not package.is_multi_install:
            key = package.name, package.header[rpm.RPMTAG_ARCH]
            builds.setdefault(key, []).append(package)
    for (name, _), found in builds.items():
        if len(found) > 1:
            labels = ", ".join(package.label for package in found)
            yield layer.finding("duplicate", f"{name} is installed {len(found)} times: {labels}",
                                package=found[0].label)


def _find_obsoletes(layer: Layer, installed: Installed, below: _Union) -> Iterator[Finding]:
    """Packages that say of each other, by name and version, that they replace them."""
    own: dict[str, list[Package]] = {}
    for package in installed.packages:
        own.setdefault(package.name, []).append(package)
    above = [package for found in below.names.values() for package in found]
    for package in installed.packages:
        for name in package.header[rpm.RPMTAG_OBSOLETENAME]:
            for other in (*own.get(name, ()), *below.names.get(name, ())):
                yield from _obsolete(layer, package, other)
    for package in above:
        for name in package.header[rpm.RPMTAG_OBSOLETENAME]:
            for other in own.get(name, ()):
                yield from _obsolete(layer, package, other)


def _obsolete(layer: Layer, package: Package, other: Package) -> Iterator[Finding]:
    build = rpm.ds((other.name, rpm.RPMSENSE_EQUAL, _evr(other)), "provides")
    wanted = rpm.ds(package.header, "obsoletename")
    if package.name != other.name and any(
            each.N() == other.name and each.Compare(build) for each in wanted):
        yield layer.finding("obsolete", f"{other.label} is obsoleted by {package.label}",
                            package=other.label)


def _evr(package: Package) -> str:
    header = package.header
    epoch = f"{header[rpm.RPMTAG_EPOCH]}:" if header[rpm.RPMTAG_EPOCH] else ""
    return f"{epoch}{header[rpm.RPMTAG_VERSION]}-{header[rpm.RPMTAG_RELEASE]}"


def _find_shadows(layer: Layer, installed: Installed, below: _Union) -> Iterator[Finding]:
    for package in _single(installed.packages):
        for other in below.names.get(package.name, ()):
            yield layer.finding("shadow", f"{package.label} shadows {other.label} of an ancestor",
                                package=package.label)


def _single(packages: Iterable[Package]) -> Iterator[Package]:
    return (package for package in packages if not package.is_multi_install)
