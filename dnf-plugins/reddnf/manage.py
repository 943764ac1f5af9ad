# SPDX-License-Identifier: Apache-2.0
"""What red-manager does: create nodes, change them, and manage their repositories.

Knows no dnf: dnf4's command and the plugin of dnf5 are shells around it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from reddnf import bundling, freezing
from reddnf.manager_options import check_combination
from reddnf.repofiles import (
    RepositoryFile,
    add_repository,
    prepare_repository,
    repository_files,
    save_options,
    set_enabled,
)
from redpak.create import create_node, node_files, set_state, update_node
from redpak.errors import RedpakError
from redpak.family import Family, Main, load_family, load_main, resolve_redpath
from redpak.node import Node, NodeState
from redpak.undo import Undo
from redrpm.adopt import adopt_core_os, show_adoption, unadopt_core_os
from redrpm.locking import Notify, lock_family
from redrpm.rollback import roll_back
from redrpm.rpmdb import create_rpmdb
from redsys.owner import become_owner, check_path


class FrontEnd(Protocol):
    """What only the dnf at hand can say of a node's configuration."""

    def read_node(self, node: Node) -> None:
        """Read the node's repositories and options instead of the system's."""

    def check_option(self, name: str, value: str, of_repository: bool) -> None:
        """Raise RedpakError when dnf, or a repository, has no such option or takes no such value.
        """

    def dump(self, wanted: Sequence[str]) -> None:
        """Print the repositories ``wanted``; or dnf's options and all repositories."""

    def dump_variables(self) -> None:
        """Print dnf's variables."""

    def download(self, labels: Sequence[str]) -> list[str]:
        """Files of packages of the node's repositories, by their NEVRAs. Raises RedpakError."""

    def again(self) -> freezing.Again:
        """How this dnf is started once more."""


class Manager:
    """One run does one or more of ACTIONS, in that order.

    ``opts`` has what declare_options() and the options of every red- command put there, ``main``
    and ``repos`` are what --setopt says, of dnf itself and by repository. ``say`` prints a line
    of result, ``tell`` a line on stderr.
    """

    def __init__(
        self,
        opts: Any,
        front: FrontEnd,
        *,
        main: Mapping[str, str],
        repos: Mapping[str, Mapping[str, str]],
        wait: bool,
        say: Callable[[str], None],
        tell: Notify,
    ) -> None:
        self._opts = opts
        self._front = front
        self._main_options = main
        self._repo_options = repos
        self._wait = wait
        self._say = say
        self._tell = tell
        self._done: list[str] = []  # what to say when all has succeeded

    def prepare(self) -> None:
        """Check what was asked for, and find the node. Raises RedpakError."""
        os.umask(0o022)
        opts = self._opts
        check_combination(opts)
        if freezing.is_wanted(opts):
            _become_owner(os.path.realpath(resolve_redpath(opts.redpath, os.environ)))
            return
        self._check_options()
        self._main: Main = load_main(opts.rmain, os.environ)
        self._repositories = [prepare_repository(source) for source in opts.add_repo]
        self._redpath = ""
        if self._needs_node:
            self._redpath = os.path.realpath(resolve_redpath(opts.redpath, os.environ))
            _become_owner(self._redpath)
            if not opts.create:
                self._front.read_node(self._read_node())

    def run(self) -> None:
        """Carry out the actions. Raises RedpakError."""
        opts = self._opts
        if freezing.is_wanted(opts):
            freezing.run(opts, self._tell, self._front.again())
            return
        if opts.adopt or opts.unadopt:
            self._adopt()
        if not self._needs_node:
            return
        with Undo() as undo:
            if opts.create:
                self._create(undo)
            self._work(undo)
        for line in self._done:
            self._say(line)
        if opts.dump_variables:
            self._front.dump_variables()
        if opts.dump:
            self._front.dump(opts.repositories)

    def _work(self, undo: Undo) -> None:
        opts = self._opts
        family = self._load_family(force=True)
        if opts.bundle:
            bundling.run(family, opts, self._tell, self._front.download)
            return
        if opts.rollback:
            force = opts.node_force
            for note in roll_back(family, notify=self._tell, wait=self._wait, force=force):
                self._tell(note)
            self._done.append(f"Node {family.leaf.alias}: back to its previous generation.")
            return
        locks = lock_family(family, notify=self._tell, wait=self._wait)
        try:
            with undo:  # taken back before the next may look
                self._change(family.leaf, undo)
        finally:
            for lock in locks:
                lock.release()

    @property
    def _needs_node(self) -> bool:
        return not (self._opts.adopt or self._opts.unadopt) or bool(self._opts.redpath)

    def _read_node(self) -> Node:
        # A node that moved, or is in the wrong state, is what --update and --state are for.
        opts = self._opts
        return self._load_family(force=opts.node_force or opts.update or bool(opts.state)).leaf

    def _load_family(self, *, force: bool) -> Family:
        return load_family(self._redpath, main=self._main, force=force)

    def _check_options(self) -> None:
        opts = self._opts
        if opts.create and not opts.alias:
            raise RedpakError("--create needs an alias", hint="add --alias=NAME")
        if opts.bundle:
            bundling.check_options(opts)
        if opts.save and not (self._main_options or self._repo_options):
            raise RedpakError("--save needs --setopt", hint="add --setopt=[REPO.]OPTION=VALUE")

    def _adopt(self) -> None:
        if self._opts.show:
            self._say(show_adoption(self._main).describe())
            return
        place = self._main.rpmdb_dir
        if self._opts.unadopt:
            done = unadopt_core_os(self._main)
            self._say(f"Core OS: {'no longer' if done else 'was not'} adopted, in {place}.")
            return
        # dnf has an option of that name.
        refresh = bool(getattr(self._opts, "freshest_metadata", False))
        adopted = adopt_core_os(self._main, refresh=refresh)
        self._say(
            f"Core OS adopted{'' if adopted.changed else ' already, nothing has changed'}:"
            f" {adopted.libraries} library versions and {adopted.programs}"
            f" programs, in {place}."
        )

    def _create(self, undo: Undo) -> None:
        opts = self._opts
        node = create_node(
            self._redpath,
            alias=opts.alias,
            main=self._main,
            template=opts.template or "default",
            template_admin=opts.template_admin,
            name=opts.name,
            info=opts.info,
            force=opts.node_force,
            undo=undo,
        )
        create_rpmdb(node.rpmdb_dir)
        self._done.append(f"Node {node.alias} created in {node.path}.")

    def _change(self, node: Node, undo: Undo) -> None:
        opts = self._opts
        undo.keep([*node_files(node.path), *repository_files(node, self._repositories)])
        self._add_repositories(node, self._repositories)
        if opts.save:
            save_options(node, self._main_options, self._repo_options, self._front.check_option)
        if opts.repo_enable or opts.repo_disable:
            set_enabled(node, opts.repositories, enabled=opts.repo_enable)
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
            self._done.append(f"Node {node.alias} updated.")
        if opts.state:
            set_state(node.path, NodeState(opts.state), info=opts.info or "")
            self._done.append(f"Node {node.alias}: state {opts.state}.")

    def _add_repositories(self, node: Node, repositories: list[RepositoryFile]) -> None:
        for repository in repositories:
            path = add_repository(node, repository)
            self._done.append(f"Repository added to node {node.alias}: {path}")
            if repository.lacks_metadata:
                self._tell(
                    f"{repository.directory} is no repository yet: createrepo_c makes it one."
                )


def _become_owner(redpath: str) -> None:
    """Root creates and changes nodes in a user's directory as that user."""
    existing = redpath
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    owner = os.stat(existing).st_uid
    become_owner(existing, owner)
    check_path(existing, owner)
