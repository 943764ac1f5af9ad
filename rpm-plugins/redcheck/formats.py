# SPDX-License-Identifier: Apache-2.0
"""A report as JSON, SARIF and JUnit XML, for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from redcheck.engine import GROUPS, Report
from redcheck.findings import RULES, Finding, Severity
from redcheck.reports import as_utf8, describe
from redcheck.scope import Layer
from redpak import VERSION


def as_json(report: Report) -> str:
    """The report as conf/red-check.schema.json describes it."""
    document = {
        "version": 1,
        "tool": {"name": "red-check", "version": VERSION},
        "proven": report.is_proven,
        "status": report.status,
        "root": report.scope.root.path,
        "nodes": [_layer_data(layer, report) for layer in report.scope.checked],
        "findings": [finding.data() for finding in report.findings],
        "accepted": [finding.data() for finding in report.accepted],
        "unchecked": report.unchecked,
        "stamped": report.stamped,
    }
    return json.dumps(_clean(document), indent=2, ensure_ascii=False) + "\n"


def _layer_data(layer: Layer, report: Report) -> Mapping[str, Any]:
    return {"path": layer.inside, "alias": layer.alias,
            "name": layer.node.name if layer.node else "",
            "packages": report.packages.get(layer.inside, 0)}


def _clean(value: Any) -> Any:
    """``value`` as UTF-8 can say it."""
    if isinstance(value, str):
        return as_utf8(value)
    if isinstance(value, Mapping):
        return {key: _clean(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    return value


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0 (OASIS), one run; findings that a baseline accepts are suppressed."""
    names = list(RULES)
    rules = [{
        "id": rule.name, "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.title}: {rule.why}."},
        "help": {"text": f"What to do: {rule.remedy}."},
        "defaultConfiguration": {"level": rule.severity.value},
        "properties": {"tags": [rule.group]}} for rule in RULES.values()]
    results = [{**_sarif_result(each), "ruleIndex": names.index(each.rule.name)}
               for each in report.findings]
    results += [{**_sarif_result(each), "ruleIndex": names.index(each.rule.name),
                 "suppressions": [{"kind": "external", "justification": "in the baseline"}]}
                for each in report.accepted]
    run = {
        "tool": {"driver": {"name": "red-check", "semanticVersion": VERSION, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "invocations": [{
            "executionSuccessful": not report.unchecked,
            "exitCode": report.status,
            "toolExecutionNotifications": [
                {"level": "error", "message": {"text": text}} for text in report.unchecked]}],
        "results": results,
    }
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
                "runs": [run]}
    return json.dumps(_clean(document), indent=2, ensure_ascii=False) + "\n"


def _sarif_result(finding: Finding) -> dict[str, Any]:
    file = finding.file or f"{finding.node.rstrip('/')}{finding.path}" or "/"
    place: dict[str, Any] = {"artifactLocation": {"uri": "file://" + quote(os.fsencode(file))}}
    if finding.line:
        place["region"] = {"startLine": finding.line}
    logical = [{"name": finding.alias, "fullyQualifiedName": finding.family or finding.alias,
                "kind": "namespace"}]
    if finding.package:
        logical.append({"name": finding.package, "kind": "module"})
    return {
        "ruleId": finding.rule.name,
        "level": finding.severity.value,
        "message": {"text": f"{finding.message}; {finding.what_to_do}"},
        "locations": [{"physicalLocation": place, "logicalLocations": logical}],
        "partialFingerprints": {"redCheck/v1": finding.fingerprint},
    }


def as_junit(report: Report) -> str:
    """JUnit XML: a suite for each node, a case for each part of the check."""
    root = ElementTree.Element("testsuites", name="red-check")
    for layer in report.scope.checked:
        mine = [each for each in report.findings if each.node == layer.inside]
        suite = _junit_suite(layer.family_name or layer.alias, mine)
        root.append(suite)
    known = {layer.inside for layer in report.scope.checked}
    others = [each for each in report.findings if each.node not in known]
    for node, found in groupby(others, lambda each: each.node):
        root.append(_junit_suite(node, list(found)))
    if report.unchecked:
        suite = ElementTree.SubElement(root, "testsuite", name="could not be checked", tests="1",
                                       failures="0", errors="1")
        case = ElementTree.SubElement(suite, "testcase", classname="red-check", name="access")
        error = ElementTree.SubElement(case, "error", message=_xml(report.unchecked[0]))
        error.text = _xml("\n".join(report.unchecked))
    for number in ("tests", "failures", "errors"):
        root.set(number, str(sum(int(suite.get(number, "0")) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_suite(name: str, findings: Sequence[Finding]) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_xml(name))
    failures = 0
    for group in GROUPS:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(name), name=group)
        mine = [each for each in findings if each.rule.group == group]
        notes = [each for each in mine if each.severity is Severity.NOTE]
        bad = [each for each in mine if each.severity is not Severity.NOTE]
        for finding in bad[:1]:
            failures += 1
            failure = ElementTree.SubElement(case, "failure", type=finding.rule.name,
                                             message=_xml(describe(finding)))
            failure.text = _xml("\n".join(_junit_lines(bad)))
        if notes:
            ElementTree.SubElement(case, "system-out").text = _xml("\n".join(_junit_lines(notes)))
    suite.set("tests", str(len(GROUPS)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    return suite


def _junit_lines(findings: Sequence[Finding]) -> Iterator[str]:
    for each in findings:
        yield (f"{each.severity.value}: {describe(each)} [{each.rule.name}]; {each.rule.why};"
               f" {each.what_to_do}")


def _xml(text: str) -> str:
    """``text`` as XML 1.0 can say it."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "json": as_json, "sarif": as_sarif, "junit": as_junit}
