# SPDX-License-Identifier: Apache-2.0
"""The software bill of materials of a family or a tree, whatever its format.

The formats are written by the libraries of their makers, which are optional: cyclonedx-python-lib
and spdx-tools. Nothing in a bill comes from the clock or from chance: the same tree gives the same
bytes.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import rpm

from redcheck.library import Library
from redcheck.manifest import header_digest
from redcheck.owned import read_files
from redcheck.packages import Package
from redcheck.reports import as_utf8
from redcheck.scope import Layer, Scope
from redpak.errors import RedpakError
from redpak.values import dataclass, field

# For uuid5(): what is named are the bills of redpak.
_NAMESPACE = uuid.UUID("6f1d3c1e-4d0c-5b7e-9a53-8a4b7f0f5a10")
# rpm 6 has another name for the same tag, and sets no algorithm: the name says it.
_PAYLOAD_DIGEST = getattr(rpm, "RPMTAG_PAYLOADSHA256", None) or rpm.RPMTAG_PAYLOADDIGEST
_PAYLOAD_ALGORITHM = getattr(rpm, "RPMTAG_PAYLOADSHA256ALGO", None) or rpm.RPMTAG_PAYLOADDIGESTALGO
_SHA256 = 8  # RFC 4880, 9.4
_VERSIONED = rpm.RPMSENSE_LESS | rpm.RPMSENSE_GREATER | rpm.RPMSENSE_EQUAL


@dataclass
class BillItem:
    """A package in a node. ``ref`` is unique in the bill; ``needs`` are refs of others."""

    ref: str
    node: BillNode
    name: str
    label: str
    epoch: int
    version: str
    arch: str
    licence: str
    supplier: str
    summary: str
    url: str
    payload_sha256: str  # of the archive that the package's files came in
    header_digest: str  # "algorithm:hex", as manifests have it
    source: str
    built: int  # seconds since the epoch
    needs: list[str] = field(default_factory=list)


@dataclass
class BillNode:
    """A node, or the core OS."""

    ref: str
    path: str
    alias: str
    name: str
    info: str
    parent: str  # the ref of the node above, when it is part of the bill
    items: list[BillItem] = field(default_factory=list)


@dataclass(frozen=True)
class Bill:
    """Everything that is in the checked layers of a scope."""

    nodes: list[BillNode]

    @property
    def name(self) -> str:
        """What it is the bill of."""
        return self.nodes[0].alias if self.nodes else "redpak"

    @property
    def created(self) -> datetime:
        """When the newest package was built: the bill is no older, and no clock is asked."""
        newest = max((item.built for node in self.nodes for item in node.items), default=0)
        return datetime.fromtimestamp(newest, timezone.utc)

    @property
    def identifier(self) -> uuid.UUID:
        """The same for the same content."""
        digest = hashlib.sha256()
        for node in self.nodes:
            digest.update(f"{node.path}\0{node.alias}\0{node.name}\0".encode())
            for item in node.items:
                digest.update(f"{item.label}\0{item.header_digest}\0".encode())
        return uuid.uuid5(_NAMESPACE, digest.hexdigest())


def read_bill(scope: Scope) -> Bill:
    """Read what the checked layers of ``scope`` have installed. Raises RedpakError."""
    for layer in scope.checked:
        if layer.faults:
            raise RedpakError(f"{layer.inside}: {layer.faults[0].message}",
                              hint="correct what red-check finds first")
    library = Library()
    try:
        refs: dict[tuple[str, int], BillItem] = {}
        nodes = [_read_node(layer, scope, library, refs) for layer in scope.checked]
        for layer in scope.checked:
            _find_needs(layer, library, refs)
        return Bill(nodes)
    finally:
        library.close()


def _read_node(layer: Layer, scope: Scope, library: Library,
               refs: dict[tuple[str, int], BillItem]) -> BillNode:
    config = layer.node.config.headers if layer.node else scope.main.config.headers
    checked = {member.path for member in scope.checked}
    above = next((member for member in reversed(layer.lineage[:-1]) if member.path in checked),
                 None)
    where = _place(layer, scope)
    node = BillNode(f"node:{where}", where, layer.alias, config.name or layer.alias, config.info,
                    f"node:{_place(above, scope)}" if above else "")
    packages = sorted(library.of(layer).packages,
                      key=lambda package: (package.label, header_digest(package), package.number))
    seen: dict[str, int] = {}
    for package in packages:
        if package.is_key:
            continue
        count = seen[package.label] = seen.get(package.label, 0) + 1
        suffix = f"#{count}" if count > 1 else ""
        item = _read_item(package, node, f"package:{where}:{package.label}{suffix}")
        refs[layer.path, package.number] = item
        node.items.append(item)
    return node


def _place(layer: Layer, scope: Scope) -> str:
    """A node's path from the top: the same wherever the tree is."""
    return "/" if layer.is_core else as_utf8(os.path.relpath(layer.path, scope.top))


def _read_item(package: Package, node: BillNode, ref: str) -> BillItem:
    header = package.header
    payload = header[_PAYLOAD_DIGEST]

    def text(tag: int) -> str:
        return as_utf8(header[tag] or "")

    return BillItem(
        ref, node, package.name, package.label, header[rpm.RPMTAG_EPOCH] or 0,
        f"{text(rpm.RPMTAG_VERSION)}-{text(rpm.RPMTAG_RELEASE)}",
        text(rpm.RPMTAG_ARCH), text(rpm.RPMTAG_LICENSE),
        text(rpm.RPMTAG_VENDOR) or text(rpm.RPMTAG_PACKAGER),
        text(rpm.RPMTAG_SUMMARY), text(rpm.RPMTAG_URL),
        payload[0] if payload and header[_PAYLOAD_ALGORITHM] in (_SHA256, None) else "",
        header_digest(package), text(rpm.RPMTAG_SOURCERPM), header[rpm.RPMTAG_BUILDTIME] or 0)


# -- who needs whom -------------------------------------------------------------------------


def _find_needs(layer: Layer, library: Library,
                refs: Mapping[tuple[str, int], BillItem]) -> None:
    """Which packages of the family have what those of ``layer`` require."""
    providers = _Providers()
    for member in layer.lineage:
        for package in library.of(member).packages:
            if (member.path, package.number) in refs:
                providers.add(refs[member.path, package.number].ref, package)
    for package in library.of(layer).packages:
        item = refs.get((layer.path, package.number))
        if item is not None:
            needed = {ref for ref in providers.of(package) if ref != item.ref}
            item.needs = sorted(needed)


class _Providers:
    """Who provides a name, and who has a file."""

    def __init__(self) -> None:
        self._names: dict[str, list[tuple[str, Package]]] = {}
        self._files: dict[str, list[str]] = {}

    def add(self, ref: str, package: Package) -> None:
        for name in set(package.header[rpm.RPMTAG_PROVIDENAME]):
            self._names.setdefault(name, []).append((ref, package))
        for directory, name, _file in read_files(package):
            self._files.setdefault(f"{directory}/{name}", []).append(ref)

    def of(self, package: Package) -> Iterator[str]:
        for need in rpm.ds(package.header, "requirename"):
            found = self._names.get(need.N(), ())
            if not need.Flags() & _VERSIONED:
                yield from (ref for ref, _ in found)
            for ref, other in found if need.Flags() & _VERSIONED else ():
                if any(provide.N() == need.N() and provide.Compare(need)
                       for provide in rpm.ds(other.header, "providename")):
                    yield ref
            yield from self._files.get(need.N(), ())


# -- formats --------------------------------------------------------------------------------


def _cyclonedx(bill: Bill) -> str:
    from redcheck.sbom_cyclonedx import write
    return write(bill)


def _spdx(bill: Bill) -> str:
    from redcheck.sbom_spdx import write
    return write(bill)


FORMATS: Mapping[str, tuple[Callable[[Bill], str], str]] = {
    "cyclonedx": (_cyclonedx, "cyclonedx-python-lib"), "spdx": (_spdx, "spdx-tools")}


def write_bill(bill: Bill, name: str) -> str:
    """``bill`` in the format ``name``. Raises RedpakError when its library is not installed."""
    write, library = FORMATS[name]
    try:
        return write(bill)
    except ImportError as err:
        place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        target = "" if place.endswith("-packages") else f"--target={place} "
        raise RedpakError(f"--sbom={name} needs the Python package {library}: {err}",
                          hint=f"install it: pip install {target}{library}") from err


def package_url(item: BillItem) -> Any:
    """The purl of a package (package-url, type rpm). Raises ImportError."""
    from packageurl import PackageURL
    qualifiers = {"arch": item.arch, "epoch": str(item.epoch) if item.epoch else "",
                  "upstream": item.source}
    vendor = "".join(c for c in item.supplier.lower() if c.isalnum() or c in ".-_")
    return PackageURL("rpm", vendor or None, item.name, item.version,
                      {key: value for key, value in qualifiers.items() if value})
