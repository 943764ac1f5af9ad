# SPDX-License-Identifier: Apache-2.0
"""A bill of materials as CycloneDX 1.6 JSON, by cyclonedx-python-lib (optional)."""

from __future__ import annotations

import json

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.dependency import Dependency
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion

from redcheck.sbom import Bill, BillItem, BillNode, package_url


def write(bill: Bill) -> str:
    """The whole document."""
    licences = LicenseFactory()
    top = Component(name=bill.name, type=ComponentType.PLATFORM, bom_ref="tree")
    components = [top]
    dependencies = [(top, [node.ref for node in bill.nodes])]
    for node in bill.nodes:
        made = _node_component(node)
        components.append(made)
        dependencies.append((made, [*([node.parent] if node.parent else []),
                                    *(item.ref for item in node.items)]))
        for item in node.items:
            made = _item_component(item, licences)
            components.append(made)
            dependencies.append((made, item.needs))
    refs = {str(component.bom_ref.value): component.bom_ref for component in components}
    document = Bom(
        components=components[1:], serial_number=bill.identifier,
        metadata=BomMetaData(component=top, timestamp=bill.created),
        dependencies=[Dependency(made.bom_ref, [Dependency(refs[ref]) for ref in needs])
                      for made, needs in dependencies])
    text = make_outputter(document, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def _node_component(node: BillNode) -> Component:
    return Component(
        name=node.alias, type=ComponentType.CONTAINER, bom_ref=node.ref,
        description=node.info or None,
        properties=[Property(name="redpak:node:path", value=node.path),
                    Property(name="redpak:node:name", value=node.name)])


def _item_component(item: BillItem, licences: LicenseFactory) -> Component:
    properties = [Property(name="redpak:node:path", value=item.node.path),
                  Property(name="redpak:package:nevra", value=item.label),
                  Property(name="redpak:package:header", value=item.header_digest)]
    return Component(
        name=item.name, version=item.version, type=ComponentType.LIBRARY, bom_ref=item.ref,
        purl=package_url(item), description=item.summary or None,
        supplier=OrganizationalEntity(name=item.supplier) if item.supplier else None,
        licenses=[licences.make_from_string(item.licence)] if item.licence else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=item.payload_sha256)]
        if item.payload_sha256 else None,
        external_references=[ExternalReference(type=ExternalReferenceType.WEBSITE,
                                               url=XsUri(item.url))] if item.url else None,
        properties=properties)
