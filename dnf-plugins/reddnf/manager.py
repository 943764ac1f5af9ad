# SPDX-License-Identifier: Apache-2.0
"""dnf red-manager: create nodes, change them, and manage their repositories."""

from __future__ import annotations

import logging
import os
from typing import Any

import dnf
import dnf.cli
import dnf.cli.commands
import dnf.exceptions

from reddnf import freezing
from reddnf.node_command import add_node_options, configure_repositories
from reddnf.repositories import (
    RepositoryFile,
    add_repository,
    prepare_repository,
    save_options,
    set_enabled,
)
from reddnf.session import tell
from redpak.create import create_node, set_state, update_node
from redpak.errors import RedpakError
from redpak.family import Family, Main, load_family, load_main, resolve_redpath
from redpak.node import Node, NodeState
from redrpm.adopt import adopt_core_os
from redrpm.locking import lock_family
from redrpm.owner import become_owner, check_path
from redrpm.rollback import roll_back
from redrpm.rpmdb import create_rpmdb
from redsys.lock import NodeBusyError

logger = logging.getLogger("dnf.plugin.redpak")

_ACTIONS = (
    ("--create", "make the directory DIR of --redpath a node"),
    ("--update", "accept where a node is now, or (with --template) write its configuration again"),
    ("--adopt", "register what a core OS without rpm packages provides"),
    ("--recover", "finish or throw away what a killed command left"),
    ("--rollback", "return to what the node was before its last transaction"),
    ("--save", "keep the options given with --setopt"),
    ("--dump", "print dnf's options and repositories as the node has them"),
    ("--dump-variables", "print dnf's variables as the node has them"),
    ("--repo-enable", "enable the REPOs for good (red-dnf: --enable)"),
    ("--repo-disable", "disable the REPOs for good (red-dnf: --disable)"),
)
_VALUES = (
    ("--alias", "NAME", "short name of the node, unique in its family"),
    ("--template", "NAME", "configuration to start from: a name or a file (default: default)"),
    ("--template-admin", "NAME", "the same for the administrative configuration"),
    ("--name", "NAME", "globally unique name of the node (default: a new UUID)"),
    ("--info", "TEXT", "what the node is, for people"),
)


class ManagerCommand(dnf.cli.commands.Command):
    """One run does one or more of _ACTIONS, in that order."""

    aliases = ("red-manager", "rmg")
    summary = "create a node, change it, and manage its repositories"

    @staticmethod
    def set_argparser(parser: Any) -> None:
        """Declare the options."""
        add_node_options(parser)
        freezing.add_options(parser)
        for option, text in _ACTIONS:
            parser.add_argument(option, action="store_true", help=text)
        for option, metavar, text in _VALUES:
            parser.add_argument(option, metavar=metavar, help=text)
        parser.add_argument(
            "--state",
            choices=[state.value for state in NodeState],
            type=str.capitalize,
            help="set what the node is fit for",
        )
        parser.add_argument(
            "--add-repo",
            action="append",
            default=[],
            metavar="URL|FILE.repo",
            help="give the node a repository (any number of times)",
        )
        parser.add_argument("repositories", nargs="*", metavar="REPO", help="a repository's id")

    def pre_configure(self) -> None:
        """Find the node, so that dnf reads its repositories and not the system's."""
        os.umask(0o022)
        try:
            self._prepare()
        except RedpakError as err:
            raise dnf.exceptions.Error(str(err)) from err
        super().pre_configure()

    def run(self) -> None:
        """Carry out the actions."""
        try:
            if freezing.is_wanted(self.opts):
                freezing.run(self.opts, tell)
            else:
                self._run()
        except NodeBusyError as err:
            raise dnf.exceptions.LockError(str(err)) from err
        except RedpakError as err:
            raise dnf.exceptions.Error(str(err)) from err

    def _prepare(self) -> None:
        opts = self.opts
        if freezing.is_wanted(opts):
            _become_owner(os.path.realpath(resolve_redpath(opts.redpath, os.environ)))
            self.base.conf.reposdir = []
            return
        self._check_options()
        self._main: Main = load_main(opts.rmain, os.environ)
        self._repositories = [prepare_repository(self.base, source) for source in opts.add_repo]
        self._redpath = ""
        if self._needs_node:
            self._redpath = os.path.realpath(resolve_redpath(opts.redpath, os.environ))
            _become_owner(self._redpath)
            if not opts.create:
                configure_repositories(self.base, self._read_node())
                return
        self.base.conf.reposdir = []

    @property
    def _needs_node(self) -> bool:
        return not self.opts.adopt or bool(self.opts.redpath)

    def _read_node(self) -> Node:
        # A node that moved, or is in the wrong state, is what --update and --state are for.
        lenient = self.opts.node_force or self.opts.update or bool(self.opts.state)
        return self._load_family(force=lenient).leaf

    def _load_family(self, *, force: bool) -> Family:
        return load_family(self._redpath, main=self._main, force=force)

    def _check_options(self) -> None:
        opts = self.opts
        chosen = [option for option, _text in _ACTIONS if _value(opts, option)]
        if not chosen and not opts.add_repo and not opts.state:
            raise RedpakError("nothing to do", hint="see red-manager --help")
        if opts.create and opts.update:
            raise RedpakError("--create and --update exclude each other")
        if opts.create and not opts.alias:
            raise RedpakError("--create needs an alias", hint="add --alias=NAME")
        if opts.name and not (opts.create or opts.update):
            raise RedpakError("--name goes with --create or --update")
        if opts.save and not (_main_setopts(opts) or _repo_setopts(opts)):
            raise RedpakError("--save needs --setopt", hint="add --setopt=[REPO.]OPTION=VALUE")

    def _run(self) -> None:
        opts = self.opts
        if opts.adopt:
            self._adopt()
        if not self._needs_node:
            return
        if opts.create:
            self._create()
        family = self._load_family(force=True)
        if opts.rollback:
            wait = not self.base.conf.exit_on_lock
            for note in roll_back(family, notify=tell, wait=wait, force=opts.node_force):
                tell(note)
            logger.info("Node %s: back to its previous generation.", family.leaf.alias)
            return
        locks = lock_family(family, notify=tell, wait=not self.base.conf.exit_on_lock)
        try:
            self._change(family.leaf)
        finally:
            for lock in locks:
                lock.release()
        self._print(family.leaf)

    def _adopt(self) -> None:
        adopted = adopt_core_os(self._main)
        logger.info(
            "Core OS adopted: %d library versions and %d programs, in %s.",
            adopted.libraries,
            adopted.programs,
            adopted.rpmdb_dir,
        )

    def _create(self) -> None:
        opts = self.opts
        node = create_node(
            self._redpath,
            alias=opts.alias,
            main=self._main,
            template=opts.template or "default",
            template_admin=opts.template_admin,
            name=opts.name,
            info=opts.info,
            force=opts.node_force,
        )
        create_rpmdb(node.rpmdb_dir)
        logger.info("Node %s created in %s.", node.alias, node.path)

    def _change(self, node: Node) -> None:
        opts = self.opts
        # What can be refused comes first, so that a refused command has changed nothing.
        if opts.save:
            save_options(self.base, node, _main_setopts(opts), _repo_setopts(opts))
        if opts.repo_enable or opts.repo_disable:
            set_enabled(self.base, node, opts.repositories, enabled=opts.repo_enable)
        self._add_repositories(node, self._repositories)
        if opts.update:
            node = update_node(
                node.path,
                main=self._main,
                template=opts.template,
                template_admin=opts.template_admin,
                alias=opts.alias,
                name=opts.name,
                info=opts.info,
            )
            logger.info("Node %s updated.", node.alias)
        if opts.state:
            set_state(node.path, NodeState(opts.state), info=opts.info or "")
            logger.info("Node %s: state %s.", node.alias, opts.state)

    def _add_repositories(self, node: Node, repositories: list[RepositoryFile]) -> None:
        for repository in repositories:
            path = add_repository(node, repository)
            logger.info("Repository added to node %s: %s", node.alias, path)

    def _print(self, node: Node) -> None:
        if self.opts.dump_variables:
            for name, value in sorted(self.base.conf.substitutions.items()):
                print(f"{name} = {value}")
        if self.opts.dump:
            wanted = self.opts.repositories
            if not wanted:
                print(self.base.output.fmtSection("main"))
                print(self.base.conf.dump())
            for repo in sorted(self.base.repos.all(), key=lambda repo: repo.id):
                if not wanted or repo.id in wanted:
                    print(self.base.output.fmtSection(f"repo: {repo.id}"))
                    print(repo.dump())


def _value(opts: Any, option: str) -> Any:
    return getattr(opts, option[2:].replace("-", "_"))


def _main_setopts(opts: Any) -> Any:
    # dnf leaves the attribute out when no --setopt is given.
    return getattr(opts, "main_setopts", {})


def _repo_setopts(opts: Any) -> Any:
    return getattr(opts, "repo_setopts", {})


def _become_owner(redpath: str) -> None:
    """Root creates and changes nodes in a user's directory as that user."""
    existing = redpath
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    owner = os.stat(existing).st_uid
    become_owner(existing, owner)
    check_path(existing, owner)
