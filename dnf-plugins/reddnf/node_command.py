# SPDX-License-Identifier: Apache-2.0
"""What every red- command shares: its options, and dnf's configuration for a node."""

from __future__ import annotations

import glob
import os
from typing import Any, Optional

import dnf
import dnf.cli
import dnf.cli.commands
import dnf.cli.demand
import dnf.conf
import dnf.exceptions

from reddnf.options import declare_node_options, in_dnfs_words
from reddnf.session import DnfSession, open_session, releasever
from redpak.errors import RedpakError
from redpak.expand import Caller
from redpak.family import Family, load_family, load_main, resolve_redpath
from redpak.merge import merge_family
from redpak.node import Node
from redrpm.session import Session, find_forced, use_family_rpmdb
from redrpm.signature import family_keys
from redsys.lock import NodeBusyError
from redsys.owner import become_owner

# Where stock commands keep the sub-command of `group`, `history`, `module`.
_SUBCOMMAND_ATTRIBUTES = ("subcmd", "transactions_action")


class _OwnerDemands(dnf.cli.demand.DemandSheet):
    """The node's owner is enough (design section 3.2): stock commands demand root, and a demand
    once raised cannot be taken back."""

    root_user = property(lambda self: False, lambda self, value: None)


class NodeCommand(dnf.cli.commands.Command):
    """A dnf command on a node; mixed with the stock command it is the twin of.

    ``changing_words`` are the sub-commands that change the node; None: every one does.
    ``brings_packages`` is whether it always installs some.
    """

    changing_words: Optional[frozenset[str]] = frozenset()
    brings_packages = False
    session: DnfSession

    def set_argparser(self, parser: Any) -> None:
        super().set_argparser(parser)
        declare_node_options(parser)
        if self.changing_words is None:
            parser.add_argument(
                "--forcenode",
                action="store_true",
                help="give the node its own copy of the named packages, though an ancestor has"
                " them",
            )
            parser.add_argument(
                "--plan",
                action="store_true",
                help="show the exact files that the transaction adds, replaces and removes: it is"
                " carried out in the stage, which is then thrown away",
            )

    def pre_configure(self) -> None:
        """Enter the node: dnf has read its own configuration and no repository yet."""
        # What a command makes in a node is for every reader, whatever the caller's umask.
        os.umask(0o022)
        # The stock command looks at the name it was called by.
        name = self.opts.command
        self.opts.command = name[len("red-") :] if name.startswith("red-") else name[len("r") :]
        try:
            refuse_installroot(self.opts)
            family = self._load_family()
            become_owner(family.leaf.path, family.leaf.owner_uid)
            self.session = self._open_session(family)
        except NodeBusyError as err:
            # The exit status is dnf's own for a lock: 200.
            raise dnf.exceptions.LockError(in_dnfs_words(err)) from err
        except RedpakError as err:
            raise dnf.exceptions.Error(in_dnfs_words(err)) from err
        configure_base(self.base, self.session.session, self.opts)
        super().pre_configure()

    def configure(self) -> None:
        self.cli.demands.__class__ = _OwnerDemands
        try:
            if self.brings_packages:
                _check_keys(self.base, self.session.session)
            super().configure()
            _enforce_gpgcheck(self.base, self.session.session.family)
        except RedpakError as err:
            raise dnf.exceptions.Error(in_dnfs_words(err)) from err

    def run_transaction(self) -> None:
        super().run_transaction()
        self.session.finish(self.base)

    def _open_session(self, family: Family) -> DnfSession:
        opts = self.opts
        plan = getattr(opts, "plan", False)
        if plan:
            # Nothing can happen to the node: there is nothing to confirm.
            self.base.conf.assumeyes = True
        return open_session(
            family,
            changing=self._changes_node(),
            wait=not self.base.conf.exit_on_lock,
            force=opts.node_force,
            forced=self._forced_names(family) if getattr(opts, "forcenode", False) else set(),
            plan=plan,
        )

    def _changes_node(self) -> bool:
        if self.changing_words is None:
            return True
        words = [getattr(self.opts, name, None) for name in _SUBCOMMAND_ATTRIBUTES]
        flat = {word for item in words for word in (item if isinstance(item, list) else [item])}
        return bool(flat & self.changing_words)

    def _forced_names(self, family: Family) -> set[str]:
        """Names of the ancestors' packages that the command line names, or brings as files."""
        specs = getattr(self.opts, "pkg_specs", [])
        return find_forced(family, specs, getattr(self.opts, "filenames", []))

    def _load_family(self) -> Family:
        redpath = resolve_redpath(self.opts.redpath, os.environ)
        main = load_main(self.opts.rmain, os.environ)
        return load_family(redpath, main=main, force=self.opts.node_force)


def refuse_installroot(opts: Any) -> None:
    """Raise RedpakError for the option, which could only be ignored."""
    if opts.installroot:
        raise RedpakError("the node says where its root is", hint="leave out --installroot")


def configure_base(base: Any, session: Session, opts: Any) -> None:
    """Point dnf at the node: root, repositories, variables, cache, history."""
    use_family_rpmdb(session.root)
    configure_repositories(base, session.family.leaf)
    base.conf.installroot = session.root
    base.conf.persistdir = f"{session.root}/var/lib/dnf"
    if not session.privileged:
        base.conf.tsflags = [*base.conf.tsflags, "nocaps", "nocontexts"]
    if not opts.releasever:
        base.conf.releasever = releasever(session.family.leaf, session.root)


def configure_repositories(base: Any, node: Node) -> None:
    """Point dnf at the node's repositories, options, variables and cache."""
    conf = base.conf
    own_conf = f"{node.path}/etc/dnf/dnf.conf"
    if os.path.exists(own_conf):
        conf.read(own_conf, priority=dnf.conf.PRIO_MAINCONFIG)
    conf.config_file_path = own_conf
    if os.environ.get("NO_COLOR") and conf.color == "auto":  # dnf does not know of it
        conf.color = "never"
    # dnf takes the directory for a pattern.
    conf.reposdir = [glob.escape(node.repos_dir)]
    conf.varsdir = [node.vars_dir]
    conf.substitutions.update_from_etc("/", varsdir=[node.vars_dir])
    if os.access(node.cache_dir, os.W_OK):
        conf.cachedir = node.cache_dir


def _check_keys(base: Any, session: Session) -> None:
    """Raise RedpakError where dnf would tell people to import a key into the system."""
    if not base.conf.gpgcheck:
        return
    for repo in base.repos.iter_enabled():
        if (repo.gpgcheck or repo.repo_gpgcheck) and not repo.gpgkey:
            break
    else:
        return
    if not family_keys(f"{session.root}/var/lib/rpm"):
        place = f"--redpath={session.family.leaf.path}"
        raise RedpakError(
            f"packages must be signed (gpgcheck), and neither repository {repo.id} names a key nor"
            " has the family one",
            hint=f"import it with red-rpm {place} --import FILE, or take unsigned packages with"
            f" red-manager {place} --save --setopt={repo.id}.gpgcheck=0",
        )


def _enforce_gpgcheck(base: Any, family: Family) -> None:
    """gpgcheck is a constraint: once the family says true, no repository says false."""
    effective = merge_family(family, environ=os.environ, caller=Caller.current())
    if not effective.tags.gpgcheck:
        return
    base.conf.gpgcheck = True
    base.conf.localpkg_gpgcheck = True
    for repo in base.repos.iter_enabled():
        repo.gpgcheck = True
