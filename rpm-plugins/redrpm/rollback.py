# SPDX-License-Identifier: Apache-2.0
"""Back to the previous generation of a node: a commit like any other (design section 4)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.node import Node
from redrpm.coherence import find_problems
from redrpm.hold import NodeHold
from redrpm.journal import (
    BAD_JOURNAL,
    Journal,
    Step,
    StepKind,
    generations,
    previous_path,
    saved_path,
)
from redrpm.locking import Notify
from redrpm.rpmdb import (
    Member,
    build_family_rpmdb,
    check_database,
    copy_member,
    family_members,
)
from redrpm.stage import Stage


def roll_back(
    family: Family,
    *,
    notify: Notify,
    wait: bool = True,
    force: bool = False,
    check: Callable[[str, str], None] = lambda _before, _after: None,
) -> list[str]:
    """Make the leaf of ``family`` what it was before its last commit; what the user should know.

    What the rollback replaces becomes the previous generation in turn: doing it twice changes
    nothing. ``check`` gets copies of the leaf's rpmdb as it is and as it will be, and may raise
    RedpakError. Raises RedpakError, with the node as it was.
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
        steps = invert_journal(_read_journal(saved), saved, hold.stage)
        rpmdb = _family_rpmdb_after(hold, steps, check)
        return hold.conclude(steps, rpmdb)
    except OSError as err:
        raise RedpakError(f"{hold.node.path}: cannot roll back: {err}") from err
    finally:
        hold.close()


def _read_journal(saved: str) -> Journal:
    path = f"{saved}/journal"
    try:
        with open(path, "rb") as stream:
            return Journal.load(stream.read())
    except (OSError, *BAD_JOURNAL) as err:
        raise RedpakError(
            f"{path}: damaged journal: {err}", hint="there is no way back to that generation"
        ) from err


def invert_journal(journal: Journal, saved: str, stage: Stage) -> list[Step]:
    """The steps that undo ``journal``; the saved files are linked into ``stage``.

    Raises OSError.
    """
    steps: list[Step] = []
    times: list[Step] = []
    made = {step.path: step.metadata for step in journal.steps if step.metadata is not None}
    for number, step in reversed(list(enumerate(journal.steps))):
        place = saved_path(saved, number)
        if step.kind is StepKind.SET_METADATA:
            if step.before is not None:
                times.append(Step(step.kind, step.path, "", step.before, step.metadata))
        elif step.kind is StepKind.MAKE_DIRECTORY:
            before = made.get(step.path)
            steps.append(Step(StepKind.REMOVE_DIRECTORY, step.path, before=before))
        elif step.kind is StepKind.REMOVE_DIRECTORY:
            steps.append(Step(StepKind.MAKE_DIRECTORY, step.path))
            times.append(Step(StepKind.SET_METADATA, step.path, metadata=step.before))
        elif _is_file(place):
            steps.append(Step(StepKind.PUT_FILE, step.path, _link(place, number, stage)))
        elif step.kind is StepKind.PUT_FILE:
            steps.append(Step(StepKind.REMOVE_FILE, step.path))
    # Directories get their times back last, the deepest first, as in any commit.
    return steps + sorted(times, key=lambda step: -step.path.count("/"))


def _is_file(path: str) -> bool:
    return os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path))


def _link(place: str, number: int, stage: Stage) -> str:
    """A second name for a saved file: a put takes it away, and a crash must find it again."""
    os.makedirs(f"{stage.path}/previous", exist_ok=True)
    target = f"{stage.path}/previous/{number}"
    try:
        os.link(place, target, follow_symlinks=False)
    except OSError as err:
        if err.errno not in (errno.EPERM, errno.EMLINK):  # as a commit meets them (_save)
            raise
        shutil.copy2(place, target, follow_symlinks=False)
    return f"previous/{number}"


def _family_rpmdb_after(
    hold: NodeHold, steps: list[Step], check: Callable[[str, str], None]
) -> str:
    """The family rpmdb with the leaf as it was; the leaf must still fit on its ancestors."""
    node = hold.node
    # It may be its damage that shall be undone.
    own = Member(node.path, node.rpmdb_dir)
    now = copy_member(own, f"{hold.stage.path}/now", sound=False)
    leaf = _rpmdb_after(hold, steps)
    check(now.directory, leaf.directory)
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


def read_previous_rpmdb(node: Node, saved: str, directory: str) -> None:
    """Make ``directory``, a copy of the node's rpmdb, what it was before the commit whose old files
    are in ``saved``. Raises RedpakError, OSError."""
    place = os.path.relpath(node.rpmdb_dir, node.path)
    for number, step in enumerate(_read_journal(saved).steps):
        folder, name = os.path.split(step.path)
        if folder == place and _is_file(saved_path(saved, number)):
            shutil.copyfile(saved_path(saved, number), f"{directory}/{name}")


def _rpmdb_after(hold: NodeHold, steps: list[Step]) -> Member:
    """The leaf's rpmdb as ``steps`` leave it, in a copy."""
    node = hold.node
    own = Member(node.path, node.rpmdb_dir)
    leaf = copy_member(own, f"{hold.stage.path}/leaf", sound=False)
    place = os.path.relpath(node.rpmdb_dir, node.path)
    for step in steps:
        directory, name = os.path.split(step.path)
        if directory == place and step.kind is StepKind.PUT_FILE:
            shutil.copyfile(f"{hold.stage.path}/{step.source}", f"{leaf.directory}/{name}")
        elif directory == place and step.kind is StepKind.REMOVE_FILE:
            os.unlink(f"{leaf.directory}/{name}")
    check_database(leaf.directory, node.rpmdb_dir)
    return leaf
