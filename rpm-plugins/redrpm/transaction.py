# SPDX-License-Identifier: Apache-2.0
"""A transaction on a node: lock, stage, contained child, verification, commit (design section 3).

The child works in the view, leaves it, verifies what it did and commits. Its parent keeps the locks
and cleans up, in a program of its own (redrpm.supervisor): it has to outlive the child and nothing
else, and dnf's memory is needed once, not twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import sys
from collections.abc import Collection, Iterator
from typing import NoReturn

import rpm

import redpak
import redrpm
import redsys
from redpak.errors import RedpakError
from redpak.family import Family
from redpak.node import Node
from redrpm import supervisor
from redrpm.contents import SYSUSERS, TransactionContents
from redrpm.delta import Delta, DeltaRules, read_delta
from redrpm.dnfstate import DNF5_STATE_DIR, STATE_DIR
from redrpm.hold import NodeHold
from redrpm.linker import (
    is_merged,
    keep_linker_cache,
    make_linker_cache,
    show_linker_cache,
)
from redrpm.locking import Notify
from redrpm.plan import FilePlan, plan_files
from redrpm.rpmdb import (
    FamilyRpmdb,
    build_family_rpmdb,
    derive_node_rpmdb,
    family_members,
    make_readable,
    open_rpmdb,
    prepare_cache,
    publish_cache,
    read_names,
)
from redrpm.stage import copy_tree
from redrpm.sysusers import write_helper
from redrpm.view import FamilyView
from redsys import seccomp
from redsys.lock import STANDS_FOR, read_command_line
from redsys.namespace import bound_capabilities, fork_contained, in_user_namespace

# What the caller's environment gives to scriptlets.
_SCRIPTLET_VARIABLES = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TERM", "TZ"})

_FULL = 1 << 20  # bytes that are left on a device on which a database finds no room


class NodeTransaction(NodeHold):
    """A hold on a node with the family rpmdb in its stage, for dnf or rpm to work on.

    fork() splits the process: in the contained child it returns a ContainedTransaction, the parent
    becomes the supervisor, which ends with the child's exit status. Packages of ancestors named in
    ``forced`` are left out of the family rpmdb, so that the node can have its own.
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
        before = signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.STOPS)
        try:
            pid = fork_contained(user_namespace=not self.as_root)
        except RedpakError:
            self.close()
            raise
        else:
            if pid:
                self._supervise(pid, to_parent[0], to_child[1])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(to_parent[0])
        os.close(to_child[1])
        os.umask(0o022)
        seccomp.install_sync_filter()
        self._pipes = to_child[0], to_parent[1]
        return ContainedTransaction(self)

    def _supervise(self, pid: int, receive: int, send: int) -> NoReturn:
        """Become the supervisor of the child ``pid``, which keeps the locks in our place."""
        for fd in (receive, send, *(lock.fd for lock in self._locks)):
            os.set_inheritable(fd, True)
        arguments = [str(pid), str(receive), str(send), self.node.state_dir, self.node.alias,
                     STANDS_FOR, *read_command_line()]
        argv = [*supervisor_command(), *arguments]
        with contextlib.suppress(OSError):
            os.execv(argv[0], argv)
        # Without an interpreter to execute it is the same, and takes more memory.
        supervisor.main(arguments)

    def watch_leftovers(self, *, scriptlets: bool) -> None:
        """While ``scriptlets`` may run the supervisor ends what they leave running."""
        os.write(self._pipes[1], supervisor.WATCH if scriptlets else supervisor.REST)

    @contextlib.contextmanager
    def _committing(self) -> Iterator[None]:
        """The supervisor knows that the commit has begun, and how it ended."""
        receive, send = self._pipes
        os.write(send, supervisor.BEGIN)
        if os.read(receive, 1) != supervisor.BEGIN:
            raise RedpakError(f"{self.node.path}: the process that keeps the locks is gone")
        with super()._committing():
            try:
                yield
            except BaseException:
                os.write(send, supervisor.FAILED)
                raise
            os.write(send, supervisor.DONE)

    def commit(self) -> list[str]:
        """Verify what the stage holds and make the node be it; what the user should know.

        Raises RedpakError; unless the journal was written the node is as it was.
        """
        with self._errors_told():
            family_rpmdb, delta = self._read_stage()
            prepared = f"{self.stage.path}/family-rpmdb"
            if family_rpmdb.complete:
                prepare_cache(family_rpmdb, prepared)
            notes = delta.notes + self.conclude(delta.steps, family_rpmdb.directory)
            if family_rpmdb.complete:
                # Without it the next command builds it again.
                with contextlib.suppress(OSError):
                    leaf = family_members(self.family)[-1]
                    publish_cache(prepared, family_rpmdb, leaf, self._cache)
            return notes

    def plan(self) -> FilePlan:
        """What commit() would do to the node's files. Raises RedpakError where it would."""
        with self._errors_told():
            family_rpmdb, delta = self._read_stage()
            self.check(delta.steps, family_rpmdb.directory)
            state = list(self._state.values())
            return plan_files(self.node.path, self.stage.path, delta.steps, state)

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise RedpakError(f"{self.node.path}: cannot commit: {err}") from err
        except sqlite3.Error as err:
            # SQLite has the same words for a device that is full and for one that is broken.
            disk = os.statvfs(self.stage.path)
            is_full = disk.f_bavail * disk.f_frsize < _FULL
            reason = f"{err} ({os.strerror(errno.ENOSPC)})" if is_full else str(err)
            raise RedpakError(f"{self.node.path}: cannot commit: {reason}") from err

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
        # dnf still looks at its state: commit a copy.
        for inside in dnf_state_places(self.node):
            copy_tree(f"{self.stage.root}/{inside}", f"{self.stage.dnf_state}/{inside}")
        for place in (STATE_DIR, DNF5_STATE_DIR):
            if os.path.isdir(f"{self.stage.dnf_state}/{place}"):
                make_readable(f"{self.stage.dnf_state}/{place}")
        return family_rpmdb, self._read_delta(family_rpmdb)

    def _read_delta(self, family_rpmdb: FamilyRpmdb) -> Delta:
        node = self.node.path
        with open_rpmdb(family_rpmdb.directory) as ts:
            rules = DeltaRules(
                state=self._state,
                children=[os.path.relpath(path, node) for path in self.descendants],
                derived=derived_patterns(self.family),
                is_owned=lambda path: len(ts.dbMatch("basenames", path)) > 0,
                as_root=self.as_root,
            )
            return read_delta(node, self.stage, rules)


class ContainedTransaction:
    """The child's side: works in ``root``, in namespaces of its own, until commit()."""

    def __init__(self, transaction: NodeTransaction) -> None:
        self._transaction = transaction
        self.privileged = transaction.as_root and not in_user_namespace()
        self.family = transaction.family
        self.family_rpmdb = transaction.family_rpmdb
        self.root = transaction.stage.root
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
        its front end confines. Raises RedpakError.
        """
        self._assembled = True
        self._view.assemble(contents, scriptlets=scriptlets)
        if scriptlets and is_merged(self.family):
            show_linker_cache(self.family, self.root, self._transaction.stage.delta)
        trim_environment()
        if in_process:
            bound_capabilities()
            # rpm 6 unshares the network before a scriptlet, which has no power left for that here.
            rpm.addMacro("__transaction_unshare", "%{nil}")
            helper = self.make_sysusers_helper()
            if helper:
                rpm.addMacro("__systemd_sysusers", helper)
            if scriptlets:
                self._transaction.watch_leftovers(scriptlets=True)
        if not self.privileged:
            seccomp.install_transaction_filter()

    def make_sysusers_helper(self) -> str:
        """The program by which rpm shall make the accounts of packages; "" where it makes none."""
        if not rpm.expandMacro(SYSUSERS):
            return ""
        return write_helper(self._transaction.stage.path, _interpreter())

    def commit(self) -> list[str]:
        """Make the node what was done in the view; what the user should know.

        The rpmdb and dnf's history must be closed. Raises RedpakError: the node is as it was.
        """
        cache = None
        if self._assembled and is_merged(self.family):
            self._transaction.watch_leftovers(scriptlets=False)
            cache = make_linker_cache(self.family, self.root, self._transaction.stage.delta)
        self._dismantle()
        notes = self._transaction.commit()
        if cache is not None:
            keep_linker_cache(self.family, cache)
        return notes

    def plan(self) -> FilePlan:
        """What commit() would do to the node's files. Raises RedpakError where it would."""
        self._dismantle()
        return self._transaction.plan()

    def _dismantle(self) -> None:
        if self._assembled:
            self._view.dismantle()
            self._assembled = False


def supervisor_command() -> list[str]:
    """The command line of the supervisor, but for its arguments."""
    rooms = {os.path.dirname(os.path.dirname(str(p.__file__))) for p in (redpak, redrpm, redsys)}
    code = f"import sys; sys.path[:0] = {sorted(rooms)!r}; " + (
        "from redrpm.supervisor import main; main(sys.argv[1:])"
    )
    return [_interpreter(), "-I", "-S", *(["-B"] if sys.dont_write_bytecode else []), "-c", code]


def _interpreter() -> str:
    """The Python we run in. Not sys.executable: that may be another program, such as dnf5."""
    return f"{sys.base_exec_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"


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
