# SPDX-License-Identifier: Apache-2.0
"""What a transaction would change, told from its stage: the answer to --plan."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from redpak.family import Family
from redpak.terminal import printable
from redpak.values import dataclass
from redrpm.journal import Step, StepKind


@dataclass(frozen=True)
class FilePlan:
    """Paths relative to the node; ``size_change`` is in bytes."""

    added: Sequence[str]
    replaced: Sequence[str]
    removed: Sequence[str]
    size_change: int


def plan_files(node: str, stage: str, steps: Sequence[Step], state: Collection[str]) -> FilePlan:
    """Sort ``steps`` by what they mean to a user; ``state`` are redpak's and dnf's own places."""
    added: list[str] = []
    replaced: list[str] = []
    removed: list[str] = []
    change = 0
    for step in steps:
        if any(step.path.startswith(f"{place}/") for place in state):
            continue
        if step.kind is StepKind.PUT_FILE:
            change += os.lstat(f"{stage}/{step.source}").st_size
        elif step.kind is not StepKind.REMOVE_FILE:
            continue
        exists = os.path.lexists(f"{node}/{step.path}")
        if exists:
            change -= os.lstat(f"{node}/{step.path}").st_size
        if step.kind is StepKind.REMOVE_FILE:
            removed.append(step.path)
        else:
            (replaced if exists else added).append(step.path)
    return FilePlan(added, replaced, removed, change)


def describe_plan(family: Family, plan: FilePlan, scriptlets: Sequence[str]) -> str:
    """What a transaction would change in the leaf of ``family``, for people."""
    lines = [f"\nPlan for node {family.leaf.alias} ({family.leaf.path}); nothing was changed."]
    for title, entries in (
        ("Files added", plan.added),
        ("Files replaced", plan.replaced),
        ("Files removed", plan.removed),
        ("Scriptlets run", scriptlets),
    ):
        lines += [f"{title}: {len(entries)}", *(f"  {printable(entry)}" for entry in entries)]
    return "\n".join([*lines, f"Change of size: {plan.size_change:+} bytes"])
