# SPDX-License-Identifier: Apache-2.0
"""Locks of a family and recovery of what an interrupted command left (design section 3.1)."""

from __future__ import annotations

import os
from collections.abc import Callable

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.node import Node
from redrpm.journal import discard_generations, finish, generations, journal_path
from redrpm.stage import Stage
from redsys.lock import NodeLock, lock_node

Notify = Callable[[str], None]


def lock_family(
    family: Family, *, notify: Notify, wait: bool = True, exclusive: bool = True
) -> list[NodeLock]:
    """Lock the leaf (exclusively by default), then each ancestor shared.

    What a killed command left on one of them is healed first, and told. Nobody who holds an
    ancestor waits for its children, so the order cannot deadlock. Raises RedpakError.
    """
    locks: list[NodeLock] = []
    try:
        for node in reversed(family.nodes):
            locks.append(
                _lock(node, notify, wait=wait, exclusive=exclusive and node is family.leaf)
            )
    except BaseException:
        for lock in locks:
            lock.release()
        raise
    return locks


def _lock(node: Node, notify: Notify, *, wait: bool, exclusive: bool) -> NodeLock:
    def tell(path: str) -> None:
        notify(f"Waiting for another command on node {path} ...")

    lock = lock_node(node.path, shared=not exclusive, wait=wait, on_wait=tell)
    while True:
        try:
            if exclusive:
                _heal(node, notify)
                return lock
            if not _needs_recovery(node):
                return lock
        except BaseException:
            lock.release()
            raise
        # Only the exclusive holder may finish or throw away what was left.
        lock.release()
        recover(node, notify=notify, wait=wait)
        lock = lock_node(node.path, shared=True, wait=wait, on_wait=tell)


def _needs_recovery(node: Node) -> bool:
    """Whether a killed command left something; asked under a lock, so no command is at work.

    An unfinished commit keeps everybody out. An unfinished stage concerns only the owner, whose
    dnf would wait for the dead one's lock files in the cache.
    """
    if os.path.exists(journal_path(node.state_dir)):
        return True
    stage = _stage(node)
    left = os.path.isdir(stage.path) or os.path.isdir(stage.discarded)
    return left and os.geteuid() == node.owner_uid


def _stage(node: Node) -> Stage:
    return Stage(f"{node.state_dir}/stage")


def recover(node: Node, *, notify: Notify, wait: bool = True) -> None:
    """Finish or throw away what a killed command left on ``node``.

    Raises RedpakError, also when the caller is not the one who may do it.
    """
    if os.geteuid() != node.owner_uid:
        raise RedpakError(
            f"{node.path}: a killed command left the node in the middle of a commit",
            hint=f"its owner must run dnf red-manager --redpath={node.path} --recover",
        )
    lock = lock_node(node.path, shared=False, wait=wait)
    try:
        _heal(node, notify)
    finally:
        lock.release()


def _heal(node: Node, notify: Notify) -> None:
    stage = _stage(node)
    committed = os.path.exists(journal_path(node.state_dir))
    if committed:
        finish(node.path, node.state_dir, stage)
    elif os.path.isdir(stage.path):
        committed = stage.generation in generations(node.state_dir)
    if committed:
        notify(f"Node {node.alias}: finished the transaction that a killed command had committed.")
    elif os.path.isdir(stage.path):
        notify(f"Node {node.alias}: threw away the unfinished transaction of a killed command.")
    _drop_stale_files(node)
    stage.discard()


def _drop_stale_files(node: Node) -> None:
    if os.path.isdir(node.state_dir):
        complete = generations(node.state_dir)
        discard_generations(node.state_dir, keep=complete[-1] if complete else 0)
        for name in os.listdir(node.state_dir):
            if name.startswith("journal.") and name.endswith(".tmp"):
                os.unlink(f"{node.state_dir}/{name}")
    if os.path.isdir(node.cache_dir):
        # dnf's lock files name a process of a pid namespace that is gone.
        for name in os.listdir(node.cache_dir):
            if name.endswith(".pid"):
                os.unlink(f"{node.cache_dir}/{name}")
