# SPDX-License-Identifier: Apache-2.0
"""A bill of materials as SPDX 2.3 JSON, by spdx-tools (optional)."""

from __future__ import annotations

import hashlib
import io
import json

from license_expression import ExpressionError, get_spdx_licensing
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    ExtractedLicensingInfo,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)
from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

from redcheck.sbom import Bill, BillItem, BillNode, package_url

_DOCUMENT = "SPDXRef-DOCUMENT"


def write(bill: Bill) -> str:
    """The whole document."""
    licences = _Licences()
    packages = []
    relations = []
    for node in bill.nodes:
        packages.append(_node_package(node))
        relations.append(Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _id(node.ref)))
        if node.parent:
            relations.append(Relationship(_id(node.ref), RelationshipType.DEPENDS_ON,
                                          _id(node.parent)))
        for item in node.items:
            packages.append(_item_package(item, licences))
            relations.append(Relationship(_id(node.ref), RelationshipType.CONTAINS, _id(item.ref)))
            relations += [Relationship(_id(item.ref), RelationshipType.DEPENDS_ON, _id(need))
                          for need in item.needs]
    created = bill.created.replace(tzinfo=None)
    information = CreationInfo(
        "SPDX-2.3", _DOCUMENT, bill.name, f"urn:uuid:{bill.identifier}",
        [Actor(ActorType.TOOL, "red-check")], created)
    document = Document(information, packages=packages, relationships=relations,
                        extracted_licensing_info=licences.others)
    stream = io.StringIO()
    write_document_to_stream(document, stream, validate=False)
    return json.dumps(json.loads(stream.getvalue()), indent=2, ensure_ascii=False) + "\n"


def _id(ref: str) -> str:
    """An identifier that SPDX allows: letters, digits, dots and dashes."""
    shown = "".join(c if c.isascii() and c.isalnum() else "-" for c in ref)
    return f"SPDXRef-{shown}-{hashlib.sha256(ref.encode()).hexdigest()[:8]}"


def _node_package(node: BillNode) -> Package:
    return Package(
        _id(node.ref), node.alias, SpdxNoAssertion(), files_analyzed=False,
        summary=node.info or None, comment=f"node {node.path}, {node.name}",
        primary_package_purpose=PackagePurpose.CONTAINER)


def _item_package(item: BillItem, licences: _Licences) -> Package:
    found = licences.find(item.licence)
    return Package(
        _id(item.ref), item.name, SpdxNoAssertion(), version=item.version,
        supplier=Actor(ActorType.ORGANIZATION, item.supplier) if item.supplier
        else SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, item.payload_sha256)]
        if item.payload_sha256 else [],
        homepage=item.url or None, source_info=item.source or None,
        license_concluded=SpdxNoAssertion(), license_declared=found,
        summary=item.summary or None,
        comment=f"node {item.node.path}, header {item.header_digest}",
        external_references=[ExternalPackageRef(
            ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", package_url(item).to_string())])


class _Licences:
    """Licence texts of headers as SPDX knows them; ``others`` are not in its list."""

    def __init__(self) -> None:
        self._licensing = get_spdx_licensing()
        self.others: list[ExtractedLicensingInfo] = []
        self._known: dict[str, object] = {}

    def find(self, text: str) -> object:
        """An expression for ``text``."""
        if not text:
            return SpdxNoAssertion()
        if text not in self._known:
            try:
                self._known[text] = self._licensing.parse(text, validate=True, strict=True)
            except ExpressionError:
                reference = f"LicenseRef-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
                self.others.append(ExtractedLicensingInfo(
                    reference, text, text, comment="as the package's header has it"))
                self._known[text] = self._licensing.parse(reference)
        return self._known[text]
