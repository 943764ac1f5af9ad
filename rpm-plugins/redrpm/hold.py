# SPDX-License-Identifier: Apache-2.0
"""An exclusive hold on a node, and the one way by which it is changed: verify, journal, commit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from redpak.create import set_state
from redpak.errors import RedpakError
from redpak.family import Family, find_descendants
from redpak.node import NodeState, read_node
from redrpm.coherence import Incoherence, find_incoherences, find_problems
from redrpm.journal import Journal, Step, commit
from redrpm.locking import Notify, lock_family
from redrpm.rpmdb import Member, build_family_rpmdb, family_members
from redrpm.stage import Stage
from redsys.lock import NodeLock

_MARK = "does not fit on its ancestors: "


class NodeHold:
    """Holds the leaf of ``family`` exclusively, its ancestors shared, with an empty stage.

    Whatever a killed command left has been healed. ``force`` lets a change through that breaks
    descendants. ``notify`` shows a line to the user.
    """

    def __init__(
        self, family: Family, *, notify: Notify, wait: bool = True, force: bool = False
    ) -> None:
        """Lock, recover, make the stage. Raises RedpakError; the node is then as it was."""
        self.family = family
        self.node = family.leaf
        self._notify = notify
        self._force = force
        check_owners(family)
        self._locks: Sequence[NodeLock] = lock_family(family, notify=notify, wait=wait)
        self.stage = Stage(f"{self.node.state_dir}/stage")
        try:
            self.stage.create()
            self.tree = find_descendants(family.nodes[0].path)
        except BaseException:
            self.close()
            raise

    @property
    def descendants(self) -> list[str]:
        """The nodes below the leaf."""
        return [path for path in self.tree if path.startswith(f"{self.node.path}/")]

    def close(self) -> None:
        """Throw the stage away and release the locks."""
        self.stage.discard()
        for lock in self._locks:
            lock.release()

    def conclude(self, steps: Sequence[Step], rpmdb: str) -> list[str]:
        """Take ``steps``, after which the family up to the leaf has what is in ``rpmdb``.

        Returns what the user should know. Raises RedpakError or OSError; unless the journal was
        written the node is as it was.
        """
        broken = self.check_descendants(rpmdb)
        if steps:
            with _no_termination():
                journal = Journal(time.time_ns(), tuple(steps))
                commit(self.node.path, self.node.state_dir, self.stage, journal)
        return self._mark_descendants(broken, rpmdb)

    def check_descendants(self, rpmdb: str) -> list[Incoherence]:
        """Descendants that would break. Raises RedpakError, unless forced, when there are any."""
        if not self.descendants:
            return []
        broken = find_incoherences(
            self.node, self.descendants, before=self._rpmdb_before, after=rpmdb
        )
        if broken and not self._force:
            raise RedpakError(
                f"node {self.node.alias} ({self.node.path}): refused, it would break "
                + ", ".join(str(incoherence) for incoherence in broken),
                hint="change those nodes first, or say --force",
            )
        return broken

    def _rpmdb_before(self) -> str:
        directory = f"{self.stage.path}/before"
        if not os.path.isdir(directory):
            build_family_rpmdb(family_members(self.family), directory)
        return directory

    def _mark_descendants(self, broken: Sequence[Incoherence], rpmdb: str) -> list[str]:
        """Set broken descendants to Error, and to Enable those that an earlier mark no longer
        fits."""
        notes = []
        marks = {incoherence.node.path: "; ".join(incoherence.problems) for incoherence in broken}
        for path in self.descendants:
            status = read_node(path).status
            try:
                if path in marks:
                    set_state(path, NodeState.ERROR, info=_MARK + marks[path])
                    notes.append(f"{path} is marked Error: {_MARK}{marks[path]}")
                elif status.info.startswith(_MARK) and not self._problems(path, rpmdb):
                    set_state(path, NodeState.ENABLE)
                    notes.append(f"{path} is coherent again and enabled")
            except RedpakError as err:
                notes.append(f"{path}: its state could not be set: {err}")
        return notes

    def _problems(self, path: str, rpmdb: str) -> set[str]:
        between = [p for p in self.descendants if f"{path}/".startswith(f"{p}/")]
        nodes = [read_node(p) for p in sorted(between)]
        return find_problems(rpmdb, [Member(node.path, node.rpmdb_dir) for node in nodes])


def check_owners(family: Family) -> None:
    """Only root and the node's owner may provide what scriptlets run. Raises RedpakError."""
    owner = family.leaf.owner_uid
    for node in family.ancestors:
        if node.owner_uid not in (0, owner):
            raise RedpakError(
                f"{node.path}: ancestor {node.alias} belongs neither to root nor to the owner of"
                f" {family.leaf.path}",
                hint="scriptlets run an ancestor's programs: give both to one owner",
            )
    if os.geteuid() != owner:
        raise RedpakError(
            f"{family.leaf.path}: no permission, the node belongs to user {owner}",
            hint="run this as its owner, or as root",
        )


@contextmanager
def _no_termination() -> Iterator[None]:
    """A request to end waits for the end of the commit; the journal is for kill -9."""
    blocked = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
