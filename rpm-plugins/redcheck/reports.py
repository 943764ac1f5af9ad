# SPDX-License-Identifier: Apache-2.0
"""A report as text for people."""

from __future__ import annotations

from itertools import groupby

from redcheck.engine import Report
from redcheck.findings import Finding, Severity
from redcheck.scope import Layer
from redpak.terminal import CYAN, GREEN, RED, YELLOW, Look, printable

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
        severity, where = rule.severity.value, printable(f"{findings[0].alias} ({node})")
        head = look.fill(f"{severity}: {where}: {rule.title} [{rule.name}]", "")
        lines.append(look.paint(severity, _COLOURS[rule.severity]) + head[len(severity):])
        lines += [look.fill(describe(each), "    ") for each in findings[:_LIMIT]]
        if len(findings) > _LIMIT:
            lines.append(f"    ... and {len(findings) - _LIMIT} more")
        lines.append(look.fill(f"why it matters: {rule.why}", "    "))
        remedies = dict.fromkeys(each.what_to_do for each in findings[:_LIMIT])
        lines += [look.fill(f"what to do: {printable(remedy)}", "    ") for remedy in remedies]
    lines += [f"{look.paint('could not check', RED)}: {printable(text)}"
              for text in report.unchecked]
    if verbose:
        lines += [_describe_layer(layer, report) for layer in report.scope.checked]
    if not quiet:
        lines.append(_summary(report, look))
    return "".join(f"{line}\n" for line in lines)


def describe(finding: Finding) -> str:
    """One line: what, and where."""
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
    where = printable(f"{layer.alias} ({layer.inside})")
    return f"{where}: {packages}, {counted(found, 'finding')}"


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


def as_utf8(text: str) -> str:
    """``text`` as UTF-8 can say it: names of files, and headers of packages, need not be text."""
    return text.encode(errors="backslashreplace").decode()


def counted(number: int, noun: str) -> str:
    """Such as "1 package" or "3 packages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
