# SPDX-License-Identifier: Apache-2.0
"""The launch plan for people (--explain) and for programs (--json)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from redpak.effective import EffectiveConfig
from redpak.findings import Origin
from redpak.schema import TAGS
from redwrap.operations import Data, Mount, Operation, SetVariable, UnsetVariable
from redwrap.plan import LaunchPlan

# Tags of transactions, which have no meaning in the namespace.
_NOT_HERE = frozenset(("rpmdir", "persistdir", "cachedir", "derived-files", "gpgcheck"))
_ADDED = ("red-wrap", "always")


def plan_as_text(plan: LaunchPlan) -> str:
    """The plan as bwrap options, one a line."""
    return "\n".join(line for line in map(str, plan.operations) if line)


def explain_plan(plan: LaunchPlan, config: EffectiveConfig) -> str:
    """Each mount, variable and tag, with the node, file and line that gave it; on a terminal in
    tables that fit, else at full length."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    mounts = [(step.mount, step.describe(), *_where(step.origin)) for step in plan.mounts]
    variables = [(step.key, step.describe(), *_where(step.origin)) for step in plan.operations
                 if isinstance(step, (SetVariable, UnsetVariable))]
    return "\n\n".join((
        _table(("MOUNT", "WHAT", "NODE", "WHERE"), mounts, columns),
        _table(("VARIABLE", "VALUE", "NODE", "WHERE"), variables, columns),
        _table(("TAG", "VALUE", "NODE", "WHERE"), list(_tag_rows(config)), columns)))


def _tag_rows(config: EffectiveConfig) -> Iterable[tuple[str, ...]]:
    for tag in TAGS:
        value = getattr(config.tags, tag.attribute)
        known = config.provenance.get(tag.key)
        if known is None or value is None or tag.key in _NOT_HERE:
            continue
        if tag.is_list:
            for part, origin in zip(value, known.origins):
                yield (tag.key, tag.kind.write(part), *_where(origin))
        else:
            yield (tag.key, tag.kind.write(value), *_where(known.origin))
    for capability in config.capabilities:
        yield (f"capabilities.{capability.cap}", capability.action.value,
               *_where(capability.origin))


def _where(origin: Optional[Origin]) -> tuple[str, str]:
    return _ADDED if origin is None else (origin.node, str(origin))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> str:
    """Columns, each as wide as its widest cell; the last one is not filled up. What does not fit
    is cut: the second column at its end, the last one, a place in a file, at its start."""
    cells = [list(row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    over = sum(widths) + 2 * (len(head) - 1) - columns if columns else 0
    for column, least in ((1, 24), (3, 24), (0, 20), (1, 12)):
        cut = min(max(over, 0), max(widths[column] - least, 0))
        widths[column] -= cut
        over -= cut
    return "\n".join(
        "  ".join(_cut(cell, width, at_start=column == len(head) - 1).ljust(width)
                  for column, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in cells)


def _cut(text: str, width: int, *, at_start: bool) -> str:
    if len(text) <= width:
        return text
    return f"...{text[3 - width:]}" if at_start else f"{text[:width - 3]}..."


def plan_as_json(plan: LaunchPlan) -> str:
    """The plan as JSON: operations in their order, each with the bwrap options and its origin."""
    return json.dumps({
        "bwrap": plan.bwrap,
        "path": plan.search,
        "chdir": plan.directory or None,
        "operations": [_operation(step) for step in plan.operations],
    }, indent=1, ensure_ascii=False)


def _operation(step: Operation) -> dict[str, Any]:
    entry: dict[str, Any] = {"operation": type(step).__name__, "arguments": list(step.arguments())}
    if isinstance(step, Mount):
        entry["mount"] = step.mount
    if not entry["arguments"]:
        entry["description"] = step.describe()
    if isinstance(step, (Data, SetVariable)) and step.command is not None:
        entry["command"] = step.command.text
    if step.origin is not None:
        entry["origin"] = {"node": step.origin.node, "file": step.origin.file,
                           "line": step.origin.line, "column": step.origin.column}
    return entry
