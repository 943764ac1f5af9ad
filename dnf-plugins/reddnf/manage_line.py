# SPDX-License-Identifier: Apache-2.0
"""red-manager where dnf5 is: a command line of its own around reddnf.manage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from reddnf.dnf5 import Dnf5, tell
from reddnf.manage import Manager
from reddnf.manager_options import declare_options
from reddnf.options import MANAGER_SUMMARY, declare_node_options, in_dnfs_words
from redpak.errors import RedpakError
from redsys.lock import NodeBusyError


def run_manager(words: Sequence[str]) -> int:
    """red-manager with the arguments ``words``; its exit status."""
    parser = _Parser(prog="red-manager", description=MANAGER_SUMMARY, allow_abbrev=False)
    declare_node_options(parser)
    declare_options(parser)
    parser.add_argument(
        "--setopt", action="append", default=[], metavar="[REPO.]OPTION=VALUE",
        help="an option of dnf, or of a repository, for --save",
    )  # fmt: skip
    # dnf4 has it for all commands.
    parser.add_argument(
        "--refresh", dest="freshest_metadata", action="store_true", help="for --adopt: look again"
    )
    for common in (("-y", "--assumeyes"), ("-q", "--quiet")):
        parser.add_argument(*common, action="store_true", help=argparse.SUPPRESS)
    try:
        # Repositories may stand between options, as in dnf.
        options = parser.parse_intermixed_args(list(words))
        main, repos = _split_setopts(options.setopt)
        manager = Manager(
            options,
            Dnf5(),
            main=main,
            repos=repos,
            wait=main.get("exit_on_lock", "0") not in ("1", "true", "True", "yes"),
            say=(lambda _text: None) if options.quiet else print,
            tell=tell,
        )
        manager.prepare()
        manager.run()
    except NodeBusyError as err:
        tell(f"Error: {in_dnfs_words(err)}")
        return 200
    except RedpakError as err:
        tell(f"Error: {in_dnfs_words(err)}")
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RedpakError(message, hint="see red-manager --help")


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
