# SPDX-License-Identifier: Apache-2.0
"""Back to the previous generation of a node: a commit like any other (design section 4)."""

from __future__ import annotations

import os

from redpak.errors import RedpakError
from redpak.family import Family
from redrpm.coherence import find_problems
from redrpm.hold import NodeHold
from redrpm.journal import Journal, Step, StepKind, generations, previous_path
from redrpm.locking import Notify
from redrpm.rpmdb import Member, build_family_rpmdb, family_members
from redrpm.stage import Stage


def roll_back(
    family: Family, *, notify: Notify, wait: bool = True, force: bool = False
) -> list[str]:
    """Make the leaf of ``family`` what it was before its last commit; what the user should know.

    What the rollback replaces becomes the previous generation in turn: doing it twice changes
    nothing. Raises RedpakError, with the node as it was.
    """
    hold = NodeHold(family, notify=notify, wait=wait, force=force)
    try:
        node = hold.node
        found = generations(node.state_dir)
        if not found:
            raise RedpakError(
                f"node {node.alias} ({node.path}): no previous generation to return to"
            )
        saved = previous_path(node.state_dir, found[-1])
        with open(f"{saved}/journal", "rb") as stream:
            journal = Journal.load(stream.read())
        steps = invert_journal(journal, saved, hold.stage)
        rpmdb = _family_rpmdb_after(hold, steps)
        return hold.conclude(steps, rpmdb)
    finally:
        hold.close()


def invert_journal(journal: Journal, saved: str, stage: Stage) -> list[Step]:
    """The steps that undo ``journal``; the saved files are linked into ``stage``.

    Raises OSError.
    """
    steps: list[Step] = []
    times: list[Step] = []
    for step in reversed(journal.steps):
        kept = os.path.lexists(f"{saved}/{step.path}")
        if step.kind is StepKind.SET_METADATA:
            if step.before is not None:
                times.insert(0, Step(step.kind, step.path, "", step.before, step.metadata))
        elif step.kind is StepKind.MAKE_DIRECTORY:
            steps.append(Step(StepKind.REMOVE_DIRECTORY, step.path))
        elif step.kind is StepKind.REMOVE_DIRECTORY:
            steps.append(Step(StepKind.MAKE_DIRECTORY, step.path))
            times.insert(0, Step(StepKind.SET_METADATA, step.path, metadata=step.before))
        elif kept:
            steps.append(Step(StepKind.PUT_FILE, step.path, _link(saved, step.path, stage)))
        elif step.kind is StepKind.PUT_FILE:
            steps.append(Step(StepKind.REMOVE_FILE, step.path))
    # Directories get their times back last, the deepest first, as in any commit.
    return steps + sorted(times, key=lambda step: -step.path.count("/"))


def _link(saved: str, path: str, stage: Stage) -> str:
    """A second name for a saved file: a put takes it away, and a crash must find it again."""
    target = f"{stage.path}/previous/{path}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.link(f"{saved}/{path}", target, follow_symlinks=False)
    return f"previous/{path}"


def _family_rpmdb_after(hold: NodeHold, steps: list[Step]) -> str:
    """The family rpmdb with the leaf as it was; the leaf must still fit on its ancestors."""
    node = hold.node
    relative = os.path.relpath(node.rpmdb_dir, node.path)
    restored = Member(node.path, f"{hold.stage.path}/previous/{relative}")
    leaf = restored if os.path.isdir(restored.directory) else Member(node.path, node.rpmdb_dir)
    ancestors = family_members(hold.family)[:-1]
    below = f"{hold.stage.path}/below"
    build_family_rpmdb(ancestors, below)
    problems = find_problems(below, [leaf])
    if problems:
        raise RedpakError(
            f"node {node.alias} ({node.path}): its previous generation does not fit on its"
            f" ancestors any more: {'; '.join(sorted(problems))}"
        )
    after = f"{hold.stage.path}/after"
    build_family_rpmdb([*ancestors, leaf], after)
    return after
