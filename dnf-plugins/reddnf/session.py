# SPDX-License-Identifier: Apache-2.0
"""dnf4's side of a session: its packages and transaction, as redrpm.session wants to know them."""

from __future__ import annotations

import logging
import logging.handlers
import time
from typing import Any

import dnf
import dnf.exceptions
import dnf.rpm
import dnf.transaction
import libdnf.transaction

from reddnf.reasons import import_reasons
from redpak.family import Family
from redpak.node import Node
from redrpm.dnfstate import DNF4, STATE_DIR, note_writer
from redrpm.session import ReadSession, Session, WriteSession, find_releasever

logger = logging.getLogger("dnf.plugin.redpak")


def tell(text: str) -> None:
    """A line for the user, on stderr."""
    logger.warning(text)


class DnfSession:
    """Follows a command of dnf4 through its hooks, in the order of the methods."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._started = int(time.time())  # seconds, as in dnf's history

    def exclude_ancestors(self, base: Any) -> None:
        """Hide every available package that would replace one of an ancestor."""
        import_reasons(base, self.session.root)
        ancestors = [
            package
            for package in base.sack.query().installed()
            # hawkey: the number of the package's header in the rpmdb of installroot.
            if self.session.is_inherited(package.name, package.rpmdbid)
        ]
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
        ownership = self.session.ownership

        def amend(record: logging.LogRecord) -> bool:
            if record.levelno == logging.CRITICAL:
                text = record.getMessage()
                in_the_way = [
                    holders[package.name]
                    for package in sorted(excluded)
                    if f"package {package} " in text and package.name in holders
                ]
                lines = [
                    f"  - {ownership.advice(package, ownership.owner(package.rpmdbid))}"
                    for package in in_the_way
                ]
                if lines:
                    record.msg, record.args = "\n".join([text, *dict.fromkeys(lines)]), ()
            return True

        logging.getLogger("dnf").addFilter(amend)

    def check_transaction(self, base: Any) -> None:
        """Refuse a transaction that changes an ancestor's package. Raises RedpakError."""
        self.session.check_outgoing((item.pkg, item.pkg.rpmdbid) for item in _outgoing(base))

    def assemble(self, base: Any) -> None:
        """Mount the view for the transaction. Raises RedpakError."""
        if base.transaction:
            files = [
                item.pkg.localPkg()
                for item in base.transaction
                if item.action in dnf.transaction.FORWARD_ACTIONS
            ]
            self.session.assemble(files, [item.pkg.rpmdbid for item in _outgoing(base)])

    def commit(self, base: Any) -> None:
        """Make the node what the view is. Raises RedpakError."""
        failed = [
            str(item)
            for item in base.transaction or ()
            if item.state == libdnf.transaction.TransactionItemState_ERROR
        ]
        if failed and isinstance(self.session, WriteSession):
            self.session.refuse_failed(failed)
        note_writer(f"{self.session.root}/{STATE_DIR}", DNF4)
        if not self.session.commit():
            # dnf would go on to say what it installed.
            raise SystemExit(0)

    def finish(self, base: Any) -> None:
        """The command is done. Raises RedpakError."""
        session = self.session
        if isinstance(session, WriteSession):
            # `mark` and its like record a change of dnf's state without an rpm transaction. A
            # history that was merely opened is none.
            last = base.history.last()
            if not session.committed and last is not None and last.beg_timestamp >= self._started:
                note_writer(f"{session.root}/{STATE_DIR}", DNF4)
                session.commit()
        session.close()


def _outgoing(base: Any) -> list[Any]:
    return [
        item
        for item in base.transaction or ()
        if item.action in dnf.transaction.BACKWARD_ACTIONS
    ]


def open_session(
    family: Family, *, changing: bool, wait: bool, force: bool, forced: set[str], plan: bool
) -> DnfSession:
    """A session on the leaf of ``family``; when ``changing``, it returns in the contained child.

    Raises RedpakError.
    """
    if not changing:
        return DnfSession(ReadSession(family, notify=tell, wait=wait))
    session = WriteSession(
        family, notify=tell, wait=wait, force=force, forced=forced, plan=plan
    )
    _stop_rotation()
    return DnfSession(session)


def _stop_rotation() -> None:
    """Leave the rotation of dnf's logs to processes of the host.

    Its lock file (dnf.logging, /var/log/log_lock.pid) names a process; ours is number 1 of its
    namespace. Killed while it rotates, it would leave a lock that nobody takes for stale, and
    every dnf of the machine would wait for it for ever.
    """
    named = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    for handler in {handler for each in named for handler in each.handlers}:
        if isinstance(handler, logging.handlers.RotatingFileHandler):
            handler.maxBytes = 0


def releasever(node: Node, root: str) -> str:
    """The $releasever of a node."""
    return find_releasever(node, str(dnf.rpm.detect_releasever(root) or ""))
