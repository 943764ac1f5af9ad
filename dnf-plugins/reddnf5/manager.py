# SPDX-License-Identifier: Apache-2.0
"""red-manager where dnf5 is: a command line around reddnf.manage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import libdnf5

from reddnf.manage import SUMMARY, Manager, declare_options
from reddnf5.commands import NODE_OPTIONS
from reddnf5.work import read_options, tell
from redpak.errors import RedpakError
from redpak.node import Node
from redsys.lock import NodeBusyError

_NODE_OPTIONS = ("redpath", "rmain", "node-force")


def run_manager(words: Sequence[str]) -> int:
    """red-manager with the arguments ``words``; its exit status."""
    parser = _Parser(prog="red-manager", description=SUMMARY, allow_abbrev=False)
    _declare_node_options(parser)
    declare_options(parser)
    parser.add_argument(
        "--setopt", action="append", default=[], metavar="[REPO.]OPTION=VALUE",
        help="an option of dnf, or of a repository, for --save",
    )  # fmt: skip
    for ignored in (("-y", "--assumeyes"), ("-q", "--quiet")):
        parser.add_argument(*ignored, action="store_true", help=argparse.SUPPRESS)
    try:
        # Repositories may stand between options, as in dnf.
        options = parser.parse_intermixed_args(list(words))
        main, repos = _split_setopts(options.setopt)
        manager = Manager(
            options,
            _Dnf5(),
            main=main,
            repos=repos,
            wait=main.get("exit_on_lock", "0") not in ("1", "true", "True", "yes"),
            say=print,
            tell=tell,
        )
        manager.prepare()
        manager.run()
    except NodeBusyError as err:
        tell(f"Error: {err}")
        return 200
    except RedpakError as err:
        tell(f"Error: {err}")
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RedpakError(message, hint="see red-manager --help")


def _declare_node_options(parser: argparse.ArgumentParser) -> None:
    for name, metavar, text in NODE_OPTIONS:
        if name in _NODE_OPTIONS:
            names = ["--redpath", "--rpath", "--rp"] if name == "redpath" else [f"--{name}"]
            settings: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
            parser.add_argument(*names, help=text, **settings)


def _split_setopts(setopts: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Options of dnf itself, and those of repositories by their patterns. Raises RedpakError."""
    main: dict[str, str] = {}
    repos: dict[str, dict[str, str]] = {}
    for setopt in setopts:
        name, equals, value = setopt.partition("=")
        pattern, _dot, option = name.rpartition(".")
        if not equals or not option:
            raise RedpakError(
                f"--setopt={setopt}: not an option", hint="write [REPO.]OPTION=VALUE"
            )
        (repos.setdefault(pattern, {}) if pattern else main)[option] = value
    return main, repos


class _Dnf5:
    """reddnf.manage.FrontEnd for dnf5."""

    def __init__(self) -> None:
        self._base = libdnf5.base.Base()
        self._base.get_config().plugins = False

    def read_node(self, node: Node) -> None:
        self._base.get_config().use_host_config = True
        self._base.load_config()
        read_options(self._base, node)
        self._base.setup()
        self._base.get_repo_sack().create_repos_from_system_configuration()

    def has_option(self, name: str) -> bool:
        return any(
            hasattr(kind, name) for kind in (libdnf5.conf.ConfigMain, libdnf5.repo.ConfigRepo)
        )

    def dump(self, wanted: Sequence[str]) -> None:
        if not wanted:
            print("======== main ========")
            _print_options(self._base.get_config())
        for repo in sorted(libdnf5.repo.RepoQuery(self._base), key=lambda repo: repo.get_id()):
            if not wanted or repo.get_id() in wanted:
                print(f"======== repo: {repo.get_id()} ========")
                _print_options(repo.get_config())

    def dump_variables(self) -> None:
        for name, variable in sorted(self._base.get_vars().get_variables().items()):
            print(f"{name} = {variable.value}")


def _print_options(config: Any) -> None:
    for name, item in sorted(dict(config.opt_binds()).items()):
        print(f"{name} = {item.get_value_string()}")
