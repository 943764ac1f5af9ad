# SPDX-License-Identifier: Apache-2.0
"""A report as text for people, and as JSON, SARIF and JUnit XML for programs."""

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
from redcheck.scope import Layer
from redpak.terminal import CYAN, GREEN, RED, YELLOW, Look, printable

VERSION = "0.1.0"
_LIMIT = 20  # findings of one kind in one node that text shows


_PLAIN = Look()
_COLOURS = {Severity.ERROR: RED, Severity.WARNING: YELLOW, Severity.NOTE: CYAN}


def as_text(report: Report, look: Look = _PLAIN, *, quiet: bool = False,
            verbose: bool = False) -> str:
    """The report for people: what, where, why it matters, what to do.

    When ``verbose``, with a line for each node; when ``quiet``, with nothing but the findings.
    """
    lines: list[str] = []
    for (node, rule), found in groupby(report.findings, lambda each: (each.node, each.rule)):
        findings = list(found)
        alias = findings[0].alias
        severity = rule.severity.value
        head = look.fill(f"{severity}: {alias} ({node}): {rule.title} [{rule.name}]", "")
        lines.append(look.paint(severity, _COLOURS[rule.severity]) + head[len(severity):])
        lines += [look.fill(_describe(each), "    ") for each in findings[:_LIMIT]]
        if len(findings) > _LIMIT:
            lines.append(f"    ... and {len(findings) - _LIMIT} more")
        lines.append(look.fill(f"why it matters: {rule.why}", "    "))
        remedies = dict.fromkeys(each.what_to_do for each in findings[:_LIMIT])
        lines += [look.fill(f"what to do: {remedy}", "    ") for remedy in remedies]
    lines += [f"{look.paint('could not check', RED)}: {printable(text)}"
              for text in report.unchecked]
    if verbose:
        lines += [_describe_layer(layer, report) for layer in report.scope.checked]
    if not quiet:
        lines.append(_summary(report, look))
    return "".join(f"{line}\n" for line in lines)


def _describe(finding: Finding) -> str:
    text = finding.message
    if finding.package and finding.package not in text:
        text = f"{finding.package}: {text}"
    if finding.file:
        line = f":{finding.line}" if finding.line else ""
        text = f"{finding.file}{line}: {text}"
    return printable(text)


def _describe_layer(layer: Layer, report: Report) -> str:
    found = sum(finding.node == layer.inside for finding in report.findings)
    packages = counted(report.packages.get(layer.inside, 0), "package")
    return f"{layer.alias} ({layer.inside}): {packages}, {counted(found, 'finding')}"


def _summary(report: Report, look: Look) -> str:
    layers = report.scope.checked
    nodes = sum(not layer.is_core for layer in layers)
    packages = sum(report.packages.values())
    scope = f"{counted(nodes, 'node')}, {counted(packages, 'package')}"
    if any(layer.is_core for layer in layers):
        scope = f"the core OS, {scope}"
    counts = [counted(sum(each.severity is severity for each in report.findings), severity.value)
              for severity in Severity
              if any(each.severity is severity for each in report.findings)]
    if report.accepted:
        counts.append(f"{len(report.accepted)} accepted by the baseline")
    verdict = "Proven" if report.is_proven else "Not proven"
    if report.unchecked:
        verdict = "Could not be checked"
    verdict = look.paint(verdict, GREEN if verdict == "Proven" else RED)
    return f"{verdict}: {scope}" + (f"; {', '.join(counts)}" if counts else "")


def counted(number: int, noun: str) -> str:
    """Such as "1 package" or "3 packages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    """``value`` as UTF-8 can say it: names of files need not be text."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
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
                                             message=_xml(_describe(finding)))
            failure.text = _xml("\n".join(_junit_lines(bad)))
        if notes:
            ElementTree.SubElement(case, "system-out").text = _xml("\n".join(_junit_lines(notes)))
    suite.set("tests", str(len(GROUPS)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    return suite


def _junit_lines(findings: Sequence[Finding]) -> Iterator[str]:
    for each in findings:
        yield (f"{each.severity.value}: {_describe(each)} [{each.rule.name}]; {each.rule.why};"
               f" {each.what_to_do}")


def _xml(text: str) -> str:
    """``text`` as XML 1.0 can say it."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "json": as_json, "sarif": as_sarif, "junit": as_junit}
