# SPDX-License-Identifier: Apache-2.0
"""dnf5's side of a session: its configuration, packages and transaction for redrpm.session."""

from __future__ import annotations

import os
from typing import Any

import libdnf5

from reddnf.dnf5 import read_options, tell
from reddnf5.arguments import NodeArguments
from redpak.complete import remember_available
from redpak.errors import RedpakError
from redpak.expand import Caller
from redpak.family import Family, load_family, load_main, resolve_redpath
from redpak.merge import merge_family
from redrpm.dnfstate import DNF5, DNF5_STATE_DIR, STATE_DIR, last_writer, note_writer
from redrpm.session import (
    ReadSession,
    Session,
    WriteSession,
    find_forced,
    use_family_rpmdb,
)
from redsys.owner import become_owner

_OUTGOING = (
    libdnf5.transaction.TransactionItemAction_REMOVE,
    libdnf5.transaction.TransactionItemAction_REPLACED,
)
_REASON_CHANGE = libdnf5.transaction.TransactionItemAction_REASON_CHANGE
# What dnf5 imports from dnf4's history while it is missing (libdnf5, Base::setup).
_IMPORTED = ("packages.toml", "nevras.toml", "groups.toml", "environments.toml")


class NodeWork:
    """Follows a command of dnf5 through its hooks, in the order of the methods."""

    def __init__(self, base: Any, arguments: NodeArguments) -> None:
        """Enter the node. Raises RedpakError; a changing command goes on in the contained child."""
        # What a command makes in a node is for every reader, whatever the caller's umask.
        os.umask(0o022)
        self._base = base
        self._inherited: dict[str, Any] = {}  # installed packages of ancestors, by name
        self._excluded: dict[str, str] = {}  # names of hidden packages, by nevra
        redpath = resolve_redpath(arguments.redpath, os.environ)
        main = load_main(arguments.rmain, os.environ)
        family = load_family(redpath, main=main, force=arguments.force)
        become_owner(family.leaf.path, family.leaf.owner_uid)
        read_options(base, family.leaf)
        if arguments.plan:
            # Nothing can happen to the node: there is nothing to confirm.
            base.get_config().assumeyes = True
        self._session = _open_session(family, arguments, base.get_config().exit_on_lock)
        self._configure()

    def _configure(self) -> None:
        """Point dnf5 at the node: root, state, repositories, variables, cache, log."""
        session = self._session
        use_family_rpmdb(session.root)
        config = self._base.get_config()
        config.installroot = session.root
        # Its directories are what we say, and overrides of the host's repositories are not ours.
        config.use_host_config = False
        config.persistdir = f"/{STATE_DIR}"
        config.system_state_dir = f"/{DNF5_STATE_DIR}"
        if hasattr(config, "transaction_history_dir"):
            config.transaction_history_dir = f"/{DNF5_STATE_DIR}"
        if last_writer(f"{session.root}/{STATE_DIR}") != DNF5:
            for name in _IMPORTED:
                _remove(f"{session.root}/{DNF5_STATE_DIR}/{name}")
        if not session.privileged:
            config.tsflags = [*config.tsflags, "nocaps", "nocontexts"]

    def enforce_gpgcheck(self) -> None:
        """gpgcheck is a constraint: once the family says true, no repository says false."""
        family = self._session.family
        effective = merge_family(family, environ=os.environ, caller=Caller.current())
        if not effective.tags.gpgcheck:
            return
        config = self._base.get_config()
        _insist_on_signatures(config)
        config.localpkg_gpgcheck = True
        repos = libdnf5.repo.RepoQuery(self._base)
        repos.filter_enabled(True)
        for repo in repos:
            _insist_on_signatures(repo.get_config())

    def remember_available(self) -> None:
        """Keep the names of what the repositories have, for completion."""
        available = libdnf5.rpm.PackageQuery(self._base)
        available.filter_available()
        remember_available(
            self._session.family.leaf, (package.get_name() for package in available)
        )

    def exclude_ancestors(self) -> None:
        """Hide every available package that would replace one of an ancestor."""
        installed = libdnf5.rpm.PackageQuery(self._base)
        installed.filter_installed()
        for package in list(installed):
            if not self._session.is_inherited(package.get_name(), package.get_rpmdbid()):
                installed.remove(package)
        self._inherited = {package.get_name(): package for package in installed}
        if not self._inherited:
            return
        # What is there already stays visible: dnf says "already installed" of it.
        same_build = {package.get_nevra() for package in self._inherited.values()}
        others = libdnf5.rpm.PackageQuery(self._base)
        others.filter_available()
        others.filter_name(sorted(self._inherited))
        for package in list(others):
            if package.get_nevra() in same_build:
                others.remove(package)
        if self._base.get_config().obsoletes:
            obsoleting = libdnf5.rpm.PackageQuery(self._base)
            obsoleting.filter_available()
            obsoleting.filter_obsoletes(installed)
            others.update(obsoleting)
        self._excluded = {package.get_nevra(): package.get_name() for package in others}
        self._base.get_rpm_package_sack().add_user_excludes(others)

    def check_transaction(self, transaction: Any) -> bool:
        """Refuse a transaction that changes an ancestor's package; False when nothing is to do.

        dnf5 takes a request for what is installed already as a change of its reason: of an
        ancestor's package the node has none. Raises RedpakError.
        """
        items = list(transaction.get_transaction_packages())
        if items and all(self._is_reason_of_inherited(item) for item in items):
            for line in transaction.get_resolve_logs_as_strings():
                tell(line)
            return False
        if transaction.get_problems():
            self._explain(" ".join(transaction.get_resolve_logs_as_strings()))
        self._session.check_outgoing(
            (package.get_nevra(), package.get_rpmdbid()) for package in _outgoing(transaction)
        )
        return True

    def _is_reason_of_inherited(self, item: Any) -> bool:
        package = item.get_package()
        return item.get_action() == _REASON_CHANGE and self._session.is_inherited(
            package.get_name(), package.get_rpmdbid()
        )

    def _explain(self, problems: str) -> None:
        """Say which node holds what is in the way when dnf5 cannot solve."""
        ownership = self._session.ownership
        for nevra, name in sorted(self._excluded.items()):
            if f"package {nevra} " in problems and name in self._inherited:
                package = self._inherited[name]
                owner = ownership.owner(package.get_rpmdbid())
                tell(ownership.advice(package.get_nevra(), owner))

    def assemble(self, transaction: Any) -> None:
        """Mount the view for the transaction. Raises RedpakError."""
        files = [
            item.get_package().get_package_path()
            for item in transaction.get_transaction_packages()
            if libdnf5.transaction.transaction_item_action_is_inbound(item.get_action())
        ]
        outgoing = [package.get_rpmdbid() for package in _outgoing(transaction)]
        self._session.assemble(files, outgoing)

    def commit(self, transaction: Any) -> bool:
        """Make the node what the view is; False when that was only planned.

        Where rpm says that something failed, were it a %post, dnf5 calls the transaction failed:
        then the node stays as it was. Raises RedpakError.
        """
        done = self._base.get_transaction_history().get_latest_transaction()
        if done.get_state() != libdnf5.transaction.TransactionState_OK:
            for line in transaction.get_rpm_messages():
                tell(f"[RPM] {line}")
            if isinstance(self._session, WriteSession):
                self._session.check_complete()
            raise RedpakError(
                f"nothing was changed in node {self._session.family.leaf.alias}: the rpm"
                " transaction failed", hint="see above",
            )  # fmt: skip
        note_writer(f"{self._session.root}/{STATE_DIR}", DNF5)
        return self._session.commit()

    def close(self) -> None:
        """The command is done."""
        self._session.close()


def _open_session(family: Family, arguments: NodeArguments, exit_on_lock: bool) -> Session:
    wait = not exit_on_lock
    if not arguments.changes_node:
        return ReadSession(family, notify=tell, wait=wait)
    forced: set[str] = set()
    if arguments.forcenode:
        forced = find_forced(family, arguments.words, arguments.package_files)
    return WriteSession(
        family, notify=tell, wait=wait, force=arguments.force, forced=forced, plan=arguments.plan
    )


def _insist_on_signatures(config: Any) -> None:
    # Of 5.3 and later; merely asking for the old name prints a warning there.
    name = "pkg_gpgcheck" if hasattr(type(config), "pkg_gpgcheck") else "gpgcheck"
    setattr(config, name, True)


def _outgoing(transaction: Any) -> list[Any]:
    return [
        item.get_package()
        for item in transaction.get_transaction_packages()
        if item.get_action() in _OUTGOING
    ]


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
