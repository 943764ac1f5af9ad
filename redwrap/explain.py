# SPDX-License-Identifier: Apache-2.0
"""The launch plan for people (--explain) and for programs (--json)."""

from __future__ import annotations

import json
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
    """Each mount, variable and tag, with the node, file and line that gave it."""
    mounts = [(step.mount, step.describe(), *_where(step.origin)) for step in plan.mounts]
    variables = [(step.key, step.describe(), *_where(step.origin)) for step in plan.operations
                 if isinstance(step, (SetVariable, UnsetVariable))]
    return "\n\n".join((
        _table(("MOUNT", "WHAT", "NODE", "WHERE"), mounts),
        _table(("VARIABLE", "VALUE", "NODE", "WHERE"), variables),
        _table(("TAG", "VALUE", "NODE", "WHERE"), list(_tag_rows(config)))))


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, each as wide as its widest cell; the last one is not filled up."""
    cells = [list(row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]])
        for row in cells)


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
