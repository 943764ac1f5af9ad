# SPDX-License-Identifier: Apache-2.0
"""A dnf command's hold on a node: reading from a copy, or a transaction in the family view."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Collection
from typing import Any

import dnf
import dnf.exceptions
import dnf.transaction
import libdnf.transaction
import rpm

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.osrelease import read_os_release
from redrpm.contents import list_scriptlets, lost_capabilities, read_contents, read_headers
from redrpm.locking import lock_family
from redrpm.ownership import Ownership
from redrpm.plan import describe_plan
from redrpm.rpmdb import (
    FamilyRpmdb,
    build_family_rpmdb,
    family_members,
    load_header,
    open_rpmdb,
    read_triggers,
)
from redrpm.transaction import ContainedTransaction, NodeTransaction, copy_dnf_state

logger = logging.getLogger("dnf.plugin.redpak")


def tell(text: str) -> None:
    """A line for the user, on stderr."""
    logger.warning(text)


class Session:
    """What a red- command needs of its node; ``root`` is dnf's installroot.

    The methods are called from dnf's hooks, in this order.
    """

    def __init__(self, family: Family, root: str, family_rpmdb: FamilyRpmdb) -> None:
        self.family = family
        self.root = root
        self._family_rpmdb = family_rpmdb
        self._ownership = Ownership(family, family_rpmdb)

    # Whether files can have any owner, capability and security context: real root only.
    privileged = True

    def exclude_ancestors(self, base: Any) -> None:
        """Hide every available package that would replace one of an ancestor."""
        ancestors = self._ancestor_packages(base)
        if not ancestors:
            return
        available = base.sack.query().available()
        same_name = available.filter(name=sorted({package.name for package in ancestors}))
        installed = base.sack.query().installed().filter(pkg=ancestors)
        # What is there already stays visible: dnf says "already installed" of it.
        same_build = {str(package) for package in ancestors}
        others = [package for package in same_name if str(package) not in same_build]
        if base.conf.obsoletes:
            others += available.filter(obsoletes=installed)
        base.sack.add_excludes(available.filter(pkg=others))
        self._explain(others, ancestors)

    def _explain(self, excluded: list[Any], ancestors: list[Any]) -> None:
        """Have dnf say which node holds what is in the way when it cannot solve."""
        holders = {package.name: package for package in ancestors}

        def amend(record: logging.LogRecord) -> bool:
            if record.levelno == logging.CRITICAL:
                text = record.getMessage()
                lines = [
                    f"  - {self._advice(holders[package.name])}"
                    for package in sorted(excluded)
                    if f"package {package} " in text and package.name in holders
                ]
                if lines:
                    record.msg, record.args = "\n".join([text, *dict.fromkeys(lines)]), ()
            return True

        logging.getLogger("dnf").addFilter(amend)

    def check_transaction(self, base: Any) -> None:
        """Refuse a transaction that changes an ancestor's package. Raises RedpakError."""
        for item in base.transaction or ():
            if item.action not in dnf.transaction.BACKWARD_ACTIONS:
                continue
            owner = self._owner(item.pkg)
            if owner != self.family.leaf.path:
                raise self._ownership.refusal(item.pkg, owner)

    def assemble(self, base: Any) -> None:
        """A reader has no transaction. Raises RedpakError."""
        raise RedpakError("this command does not change a node")

    def commit(self, base: Any) -> None:
        """A reader has nothing to commit. Raises RedpakError."""
        raise RedpakError("this command does not change a node")

    def finish(self, base: Any) -> None:
        """The command is done."""

    def _owner(self, package: Any) -> str:
        # hawkey: the number of the package's header in the rpmdb of installroot.
        return self._ownership.owner(package.rpmdbid)

    def _advice(self, package: Any) -> str:
        return self._ownership.advice(package, self._owner(package))

    def _ancestor_packages(self, base: Any) -> list[Any]:
        leaf = self.family.leaf.path
        return [
            package
            for package in base.sack.query().installed()
            if self._owner(package) != leaf and package.name != "gpg-pubkey"
        ]


class ReadSession(Session):
    """Queries: a private copy of the family rpmdb in a temporary directory, no namespaces."""

    def __init__(self, family: Family, *, wait: bool) -> None:
        # Held to the end: this dnf writes metadata into the cache that it shares with writers, and
        # dnf's own locks do not see across pid namespaces.
        self._locks = lock_family(family, notify=tell, wait=wait, exclusive=False)
        # Removed at exit at the latest, also when dnf ends with an error.
        self._directory = tempfile.TemporaryDirectory(prefix="redpak-")
        try:
            root = f"{self._directory.name}/root"
            os.makedirs(f"{root}/var/lib")
            family_rpmdb = build_family_rpmdb(
                family_members(family),
                f"{root}/var/lib/rpm",
                cache=f"{family.leaf.state_dir}/family-rpmdb",
            )
            copy_dnf_state(family.leaf, root)
        except BaseException:
            self._release()
            raise
        super().__init__(family, root, family_rpmdb)

    def finish(self, base: Any) -> None:
        self._release()

    def _release(self) -> None:
        self._directory.cleanup()
        for lock in self._locks:
            lock.release()


class WriteSession(Session):
    """Transactions: this process is the contained child, its parent commits."""

    def __init__(
        self, family: Family, *, wait: bool, force: bool, forced: Collection[str], plan: bool
    ) -> None:
        self._started = int(time.time())  # seconds, as in dnf's history
        self._contained: ContainedTransaction = NodeTransaction(
            family, notify=tell, wait=wait, force=force, forced=forced
        ).fork()
        super().__init__(family, self._contained.root, self._contained.family_rpmdb)
        self.privileged = self._contained.privileged
        self._committed = False
        self._plan = plan
        self._scriptlets: list[str] = []

    def assemble(self, base: Any) -> None:
        if not base.transaction:
            return
        incoming = read_headers(
            item.pkg.localPkg()
            for item in base.transaction
            if item.action in dnf.transaction.FORWARD_ACTIONS
        )
        if not self.privileged:
            for note in lost_capabilities(incoming):
                tell(note)
        with open_rpmdb(self._family_rpmdb.directory) as ts:
            outgoing = [
                load_header(ts, item.pkg.rpmdbid)
                for item in base.transaction
                if item.action in dnf.transaction.BACKWARD_ACTIONS
            ]
            triggers = read_triggers(ts)
        self._scriptlets = list_scriptlets([*incoming, *outgoing])
        scriptlets = bool(self._scriptlets) or triggers
        self._contained.assemble(read_contents(incoming), scriptlets=scriptlets)

    def commit(self, base: Any) -> None:
        failed = sorted(
            str(item)
            for item in base.transaction or ()
            if item.state == libdnf.transaction.TransactionItemState_ERROR
        )
        if failed:
            raise RedpakError(
                f"nothing was changed in node {self.family.leaf.alias}, these packages failed: "
                + ", ".join(failed)
            )
        if self._plan:
            print(describe_plan(self.family, self._contained.plan(), self._scriptlets))
            # dnf would go on to say what it installed.
            raise SystemExit(0)
        for note in self._contained.commit():
            tell(f"Node {self.family.leaf.alias}: {note}")
        self._committed = True

    def finish(self, base: Any) -> None:
        # `mark` and its like record a change of dnf's state without an rpm transaction. A history
        # that was merely opened is none.
        last = base.history.last()
        if not self._committed and last is not None and last.beg_timestamp >= self._started:
            self._contained.commit()


def releasever(family: Family, root: str) -> str:
    """The $releasever of a node (design section 3.5): its own variable, else what the family
    rpmdb says, else VERSION_ID of the core OS."""
    try:
        with open(f"{family.leaf.vars_dir}/releasever", encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        pass
    detected = dnf.rpm.detect_releasever(root)
    return str(detected) if detected else read_os_release().get("VERSION_ID", "")


def use_family_rpmdb(root: str) -> None:
    """Have rpm find the family rpmdb in ``root``, whatever the distribution's own place is.

    Debian's rpm looks in the home directory, Fedora's in /usr/lib/sysimage. The macro serves this
    process; `rpmkeys --root`, with which dnf checks signatures, finds a symlink.
    """
    place = rpm.expandMacro("%{_dbpath}")
    link = os.path.normpath(f"{root}/{place}")
    if place.startswith("/") and not os.path.lexists(link):
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.relpath(f"{root}/var/lib/rpm", os.path.dirname(link)), link)
    rpm.addMacro("_dbpath", "/var/lib/rpm")
