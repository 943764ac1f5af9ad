# SPDX-License-Identifier: Apache-2.0
"""A transaction on a node: lock, stage, contained child, verification, commit (design section 3).

The parent process keeps the locks and the node; the child works in the view. The child asks the
parent to commit through a pipe and waits for the answer, so that dnf or rpm can say how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NoReturn

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.node import Node
from redrpm.contents import TransactionContents
from redrpm.delta import Delta, DeltaRules, read_delta
from redrpm.dnfstate import DNF5_STATE_DIR, STATE_DIR
from redrpm.hold import NodeHold
from redrpm.linker import is_merged, keep_linker_cache, make_linker_cache
from redrpm.locking import Notify
from redrpm.plan import FilePlan, plan_files
from redrpm.rpmdb import (
    FamilyRpmdb,
    build_family_rpmdb,
    derive_node_rpmdb,
    family_members,
    make_readable,
    open_rpmdb,
    read_names,
    save_cache,
)
from redrpm.stage import copy_tree
from redrpm.view import FamilyView
from redsys import seccomp
from redsys.namespace import (
    bound_capabilities,
    fork_contained,
    in_user_namespace,
    wait_status,
)

# What the caller's environment gives to scriptlets.
_SCRIPTLET_VARIABLES = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TERM", "TZ"})


@dataclass(frozen=True)
class _Channel:
    """One end of the conversation between the contained child and its parent."""

    receive: int
    send: int

    def write(self, message: dict[str, Any]) -> None:
        os.write(self.send, json.dumps(message).encode() + b"\n")

    def read(self) -> dict[str, Any] | None:
        """The next message; None when the other end is gone."""
        line = b""
        while not line.endswith(b"\n"):
            block = os.read(self.receive, 65536)
            if not block:
                return None
            line += block
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        os.close(self.receive)
        os.close(self.send)


class _StopRequest:
    """Ends the contained child ``pid`` when we are told to end, or at the second Ctrl-C.

    The first Ctrl-C is the child's to handle; but rpm hears none while a scriptlet hangs.
    """

    def __init__(self, pid: int) -> None:
        self.signal = 0  # what ended the child
        self._pid = pid
        self._interrupted = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT and not self._interrupted:
            self._interrupted = True
            return
        self.signal = number
        os.kill(self._pid, signal.SIGKILL)

    def disarm(self) -> None:
        """The child has ended, its number may be another's: what is left must not be stopped."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


class NodeTransaction(NodeHold):
    """A hold on a node with the family rpmdb in its stage, for dnf or rpm to work on.

    fork() splits the process: in the contained child it returns a ContainedTransaction, the parent
    supervises and ends with the child's exit status. Packages of ancestors named in ``forced`` are
    left out of the family rpmdb, so that the node can have its own.
    """

    def __init__(
        self,
        family: Family,
        *,
        notify: Notify,
        wait: bool = True,
        force: bool = False,
        forced: Collection[str] = (),
    ) -> None:
        """Lock, recover, prepare. Raises RedpakError; the node is then as it was."""
        super().__init__(family, notify=notify, wait=wait, force=force)
        try:
            copy_dnf_state(self.node, self.stage.root)
            self.family_rpmdb = build_family_rpmdb(
                family_members(family),
                f"{self.stage.root}/var/lib/rpm",
                cache=self._cache,
                forced=forced,
            )
        except OSError as err:
            self.close()
            raise RedpakError(f"{self.node.path}: cannot prepare a transaction: {err}") from err
        except BaseException:
            self.close()
            raise

    @property
    def _cache(self) -> str:
        return f"{self.node.state_dir}/family-rpmdb"

    def fork(self) -> ContainedTransaction:
        """Returns in the contained child only. Raises RedpakError when there can be none."""
        to_child, to_parent = os.pipe(), os.pipe()
        parent = _Channel(to_parent[0], to_child[1])
        child = _Channel(to_child[0], to_parent[1])
        try:
            pid = fork_contained(user_namespace=os.geteuid() != 0)
        except RedpakError:
            self.close()
            raise
        if pid:
            child.close()
            self._supervise(pid, parent)
        parent.close()
        os.umask(0o022)
        return ContainedTransaction(self, child)

    def _supervise(self, pid: int, channel: _Channel) -> NoReturn:
        stop = _StopRequest(pid)
        committed = False
        while True:
            request = channel.read()
            if request is None:
                break
            answer = self._answer(request)
            committed = committed or "notes" in answer
            # A child that was killed meanwhile cannot hear the answer.
            with contextlib.suppress(BrokenPipeError):
                channel.write(answer)
        status = wait_status(pid)
        stop.disarm()
        self.close()
        if stop.signal:
            done = "the transaction was already committed" if committed else "nothing was changed"
            self._notify(f"Node {self.node.alias}: stopped, {done}.")
            status = 128 + stop.signal
        os._exit(status)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if request["action"] == "commit":
                return {"notes": self.commit()}
            return {"plan": self.plan().to_message()}
        except RedpakError as err:
            return {"error": err.message, "hint": err.hint}
        except (OSError, sqlite3.Error) as err:
            return {"error": f"{self.node.path}: cannot commit: {err}", "hint": ""}

    def commit(self) -> list[str]:
        """Verify what the stage holds and make the node be it; what the user should know.

        Raises RedpakError or OSError; unless the journal was written the node is as it was.
        """
        family_rpmdb, delta = self._read_stage()
        notes = delta.notes + self.conclude(delta.steps, family_rpmdb.directory)
        self._keep_family_rpmdb(family_rpmdb)
        return notes

    def plan(self) -> FilePlan:
        """What commit() would do to the node's files. Raises RedpakError where it would."""
        family_rpmdb, delta = self._read_stage()
        self.check_descendants(family_rpmdb.directory)
        return plan_files(self.node.path, self.stage.path, delta.steps, list(self._state.values()))

    @property
    def _state(self) -> dict[str, str]:
        """Directories of the stage that the view shows apart, and their places in the node."""
        node = self.node
        places = {self.stage.rpmdb: os.path.relpath(node.rpmdb_dir, node.path)}
        for inside, place in dnf_state_places(node).items():
            places[f"{self.stage.dnf_state}/{inside}"] = place
        return places

    def _read_stage(self) -> tuple[FamilyRpmdb, Delta]:
        check_ancestors_untouched(self.family_rpmdb, self.family)
        family_rpmdb = derive_node_rpmdb(
            self.family_rpmdb,
            self.node.path,
            self.stage.rpmdb,
            previous=self.node.rpmdb_dir,
        )
        # The child may still look at its dnf state: commit a copy.
        for inside in dnf_state_places(self.node):
            copy_tree(f"{self.stage.root}/{inside}", f"{self.stage.dnf_state}/{inside}")
        for place in (STATE_DIR, DNF5_STATE_DIR):
            if os.path.isdir(f"{self.stage.dnf_state}/{place}"):
                make_readable(f"{self.stage.dnf_state}/{place}")
        return family_rpmdb, self._read_delta(family_rpmdb)

    def _keep_family_rpmdb(self, family_rpmdb: FamilyRpmdb) -> None:
        if not family_rpmdb.complete:
            return
        # Without it the next command builds it again; save_cache() writes its index last.
        with contextlib.suppress(OSError, sqlite3.Error, RedpakError):
            save_cache(family_rpmdb, family_members(self.family), self._cache)

    def _read_delta(self, family_rpmdb: FamilyRpmdb) -> Delta:
        node = self.node.path
        with open_rpmdb(family_rpmdb.directory) as ts:
            rules = DeltaRules(
                state=self._state,
                children=[os.path.relpath(path, node) for path in self.descendants],
                derived=derived_patterns(self.family),
                is_owned=lambda path: len(ts.dbMatch("basenames", path)) > 0,
                keep_setuid=os.geteuid() == 0,
            )
            return read_delta(node, self.stage, rules)


class ContainedTransaction:
    """The child's side: works in ``root``, in namespaces of its own, until commit()."""

    def __init__(self, transaction: NodeTransaction, channel: _Channel) -> None:
        self._channel = channel
        self.privileged = os.geteuid() == 0 and not in_user_namespace()
        self.family = transaction.family
        self.family_rpmdb = transaction.family_rpmdb
        self.root = transaction.stage.root
        self._delta = transaction.stage.delta
        self._assembled = False
        self._view = FamilyView(
            transaction.stage,
            [node.path for node in reversed(transaction.family.nodes)],
            privileged=self.privileged,
            descendants=transaction.tree,
        )

    def assemble(
        self, contents: TransactionContents, *, scriptlets: bool, in_process: bool = True
    ) -> None:
        """Mount the view over ``root``; from here on packages may be installed.

        ``in_process`` says that this process itself runs scriptlets, and not a tool that
        redrpm.toolroot confines. Raises RedpakError.
        """
        self._assembled = True
        self._view.assemble(contents, scriptlets=scriptlets)
        trim_environment()
        if in_process:
            bound_capabilities()
        if not self.privileged:
            seccomp.install_transaction_filter()

    def commit(self) -> list[str]:
        """Make the node what was done in the view; what the user should know.

        The rpmdb and dnf's history must be closed. Raises RedpakError: the node is as it was.
        """
        cache = None
        if self._assembled and is_merged(self.family):
            cache = make_linker_cache(self.family, self.root, self._delta)
        notes: list[str] = self._ask("commit")["notes"]
        if cache is not None:
            keep_linker_cache(self.family, cache)
        return notes

    def plan(self) -> FilePlan:
        """What commit() would do to the node's files. Raises RedpakError where it would."""
        return FilePlan(**self._ask("plan")["plan"])

    def _ask(self, action: str) -> dict[str, Any]:
        if self._assembled:
            self._view.dismantle()
        self._channel.write({"action": action})
        answer = self._channel.read()
        if answer is None:
            raise RedpakError(f"{self.family.leaf.path}: the process that commits is gone")
        if "error" in answer:
            raise RedpakError(answer["error"], hint=answer["hint"])
        return answer


def trim_environment() -> None:
    """What this process starts from now on is a package's program, in the view and nowhere else."""
    for name in set(os.environ) - _SCRIPTLET_VARIABLES:
        del os.environ[name]
    # They must not talk to the init system of the machine they are prepared on.
    os.environ["SYSTEMD_OFFLINE"] = "1"


def check_ancestors_untouched(family_rpmdb: FamilyRpmdb, family: Family) -> None:
    """Every package of an ancestor must still be there. Raises RedpakError that names them."""
    names = read_names(family_rpmdb.directory)
    aliases = {node.path: node.alias for node in family.nodes}
    lost = sorted(
        f"{package.name} of {aliases.get(package.owner, 'the core OS')}"
        for number, package in family_rpmdb.packages.items()
        if package.owner != family.leaf.path and number not in names
    )
    if lost:
        raise RedpakError(
            f"{family.leaf.path}: the transaction changes packages of ancestors: "
            + ", ".join(lost),
            hint="change them in their own node",
        )


def derived_patterns(family: Family) -> list[str]:
    """Patterns of derived files (tag derived-files), of redmain and all nodes."""
    configs = [family.main.config, *(node.config for node in family.nodes)]
    return [pattern for config in configs for pattern in config.tags.derived_files]


def dnf_state_places(node: Node) -> dict[str, str]:
    """dnf's own state in an installroot, and where ``node`` keeps it: history and reasons,
    module streams."""
    return {
        STATE_DIR: os.path.relpath(node.persist_dir, node.path),
        "etc/dnf/modules.d": "etc/dnf/modules.d",
    }


def copy_dnf_state(node: Node, root: str) -> None:
    """Give ``root`` its own copy of a node's dnf state. Raises RedpakError, OSError."""
    for inside, place in dnf_state_places(node).items():
        if os.path.isdir(f"{node.path}/{place}"):
            copy_tree(f"{node.path}/{place}", f"{root}/{inside}")
        else:
            os.makedirs(f"{root}/{inside}")
