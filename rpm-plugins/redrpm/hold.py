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
from redpak.node import NodeState, read_node, read_status
from redrpm.coherence import Incoherence, find_incoherences, find_problems, nodes_between
from redrpm.journal import Journal, Step, commit, generations, journal_path
from redrpm.locking import Notify, lock_family
from redrpm.obstacles import check_obstacles
from redrpm.rpmdb import Member, build_family_rpmdb, family_members
from redrpm.stage import Stage
from redsys import libc
from redsys.lock import NodeLock
from redsys.owner import check_path, run_as_owner

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
        # Asked for here: in a user namespace of our own, later, we are always 0.
        self.as_root = os.geteuid() == 0
        check_owners(family)
        self._locks: Sequence[NodeLock] = lock_family(family, notify=notify, wait=wait)
        self.stage = Stage(f"{self.node.state_dir}/stage")
        try:
            self.stage.create()
            self.descendants = find_descendants(self.node.path)
            # Of all the family's nodes, for the view: a sibling may be none of our business.
            self.tree = find_descendants(family.nodes[0].path, lenient=True)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Throw the stage away and release the locks; harmless when done twice.

        The stage of a commit that was interrupted stays: the next command needs it to finish.
        """
        if not self._locks:
            return  # the stage may be another command's by now
        if not os.path.exists(journal_path(self.node.state_dir)):
            self.stage.discard()
        for lock in self._locks:
            lock.release()
        self._locks = ()

    def conclude(self, steps: Sequence[Step], rpmdb: str) -> list[str]:
        """Take ``steps``, after which the family up to the leaf has what is in ``rpmdb``.

        Returns what the user should know. Raises RedpakError or OSError; unless the journal was
        written the node is as it was.
        """
        broken = self.check(steps, rpmdb)
        if steps:
            with self._committing():
                # The clock of a device may go back: generations must not.
                last = max(generations(self.node.state_dir), default=0)
                journal = Journal(max(time.time_ns(), last + 1), tuple(steps))
                commit(self.node.path, self.node.state_dir, self.stage, journal)
        return self._mark_descendants(broken, rpmdb)

    def check(self, steps: Sequence[Step], rpmdb: str) -> list[Incoherence]:
        """Whether conclude() could do it; the descendants that would break, if that is forced.

        Raises RedpakError, OSError.
        """
        check_obstacles(self.node.path, self.stage.path, steps, as_root=self.as_root)
        return self.check_descendants(rpmdb)

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """A request to end waits for the end of the commit; the journal is for kill -9."""
        blocked = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)

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
        """Set broken descendants to Error, and back to Enable those that an earlier transaction
        marked and that fit again."""
        notes = []
        marks = {incoherence.path: "; ".join(incoherence.problems) for incoherence in broken}
        for path in self.descendants:
            try:
                status = read_status(path)
                if path in marks:
                    self._set_state(path, NodeState.ERROR, _MARK + marks[path])
                    notes.append(f"{path} is marked Error: {_MARK}{marks[path]}")
                elif status.info.startswith(_MARK) and not self._problems(path, rpmdb):
                    self._set_state(path, NodeState.ENABLE, "")
                    notes.append(f"{path} is coherent again and enabled")
            except (RedpakError, OSError) as err:
                notes.append(f"{path}: its state could not be set: {err}")
        return notes

    @staticmethod
    def _set_state(path: str, state: NodeState, info: str) -> None:
        run_as_owner(os.lstat(path).st_uid, lambda: set_state(path, state, info=info))
        libc.syncfs(path)  # the sync filter of a transaction has kept set_state() from it

    def _problems(self, path: str, rpmdb: str) -> set[str]:
        nodes = [read_node(p) for p in nodes_between(self.node.path, path, self.descendants)]
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
    check_path(family.leaf.path, owner)
    if os.geteuid() != owner:
        raise RedpakError(
            f"{family.leaf.path}: no permission, the node belongs to user {owner}",
            hint="run this as its owner, or as root",
        )
