# SPDX-License-Identifier: Apache-2.0
"""dnf4's red-manager: a command around reddnf.manage."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dnf
import dnf.cli
import dnf.cli.commands
import dnf.conf
import dnf.exceptions

from reddnf.bundling import not_in_repositories
from reddnf.freezing import Again
from reddnf.manage import Manager
from reddnf.manager_options import declare_options
from reddnf.node_command import configure_repositories, refuse_installroot
from reddnf.options import MANAGER_SUMMARY, declare_node_options, in_dnfs_words
from reddnf.repofiles import no_such_option, wrong_value
from reddnf.session import tell
from redpak.errors import RedpakError
from redpak.node import Node
from redsys.lock import NodeBusyError
from redsys.run import command_line

logger = logging.getLogger("dnf.plugin.redpak")


class ManagerCommand(dnf.cli.commands.Command):
    """Create a node, change it, and manage its repositories."""

    aliases = ("red-manager", "rmg")
    summary = MANAGER_SUMMARY

    @staticmethod
    def set_argparser(parser: Any) -> None:
        """Declare the options."""
        declare_node_options(parser)
        declare_options(parser)

    def pre_configure(self) -> None:
        """Find the node, so that dnf reads its repositories and not the system's."""
        # dnf leaves these out of the options when no --setopt is given.
        main = getattr(self.opts, "main_setopts", {})
        repos = getattr(self.opts, "repo_setopts", {})
        self._manager = Manager(
            self.opts,
            _Dnf4(self.base),
            main=_last_values(main),
            repos={pattern: _last_values(options) for pattern, options in repos.items()},
            wait=not self.base.conf.exit_on_lock,
            say=logger.info,
            tell=tell,
        )
        self.base.conf.reposdir = []
        _translate(lambda: refuse_installroot(self.opts))
        _translate(self._manager.prepare)
        super().pre_configure()

    def run(self) -> None:
        """Carry out the actions."""
        _translate(self._manager.run)


class _Dnf4:
    """reddnf.manage.FrontEnd for dnf4."""

    def __init__(self, base: Any) -> None:
        self._base = base

    def read_node(self, node: Node) -> None:
        configure_repositories(self._base, node)

    def check_option(self, name: str, value: str, of_repository: bool) -> None:
        conf = dnf.conf.RepoConf(self._base.conf) if of_repository else dnf.conf.MainConf()
        if not hasattr(conf, name):
            raise no_such_option(name, of_repository)
        try:
            setattr(conf, name, value)
        except dnf.exceptions.ConfigError as err:
            raise wrong_value(name, value, err.raw_error) from err

    def dump(self, wanted: Sequence[str]) -> None:
        output = self._base.output
        if not wanted:
            print(output.fmtSection("main"))
            print(self._base.conf.dump())
        for repo in sorted(self._base.repos.all(), key=lambda repo: repo.id):
            if not wanted or repo.id in wanted:
                print(output.fmtSection(f"repo: {repo.id}"))
                print(repo.dump())

    def download(self, labels: Sequence[str]) -> list[str]:
        if not labels:
            return []
        try:
            self._base.fill_sack(load_system_repo=False)
            found = {str(package): package for package in self._base.sack.query().available()}
            packages = [found[label] for label in labels]
            self._base.download_packages(packages)
        except KeyError as err:
            raise not_in_repositories(err.args[0]) from err
        except dnf.exceptions.Error as err:
            raise RedpakError(f"cannot fetch packages: {err}") from err
        return [package.localPkg() for package in packages]

    def again(self) -> Again:
        # The interpreter, its options and the program: all that comes before our arguments.
        argv = command_line()
        return Again(argv[: len(argv) - len(sys.argv) + 1], "remove")

    def dump_variables(self) -> None:
        for name, value in sorted(self._base.conf.substitutions.items()):
            print(f"{name} = {value}")


def _last_values(options: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {key: values[-1] for key, values in options.items()}


def _translate(action: Callable[[], None]) -> None:
    """Do ``action``; what it raises, dnf shall understand."""
    try:
        action()
    except NodeBusyError as err:
        # The exit status is dnf's own for a lock: 200.
        raise dnf.exceptions.LockError(in_dnfs_words(err)) from err
    except RedpakError as err:
        raise dnf.exceptions.Error(in_dnfs_words(err)) from err
