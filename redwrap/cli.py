# SPDX-License-Identifier: Apache-2.0
"""red-wrap: run an application in the namespace of a node and its ancestors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Optional

from redpak.errors import RedpakError
from redwrap.errors import FAILED, LaunchError

VERSION = "0.1.0"


class _Parser(argparse.ArgumentParser):
    """argparse exits with 2 on a usage error; red-wrap's own failures are 125."""

    def error(self, message: str) -> NoReturn:
        raise LaunchError(message, hint="see red-wrap --help")


def make_parser() -> argparse.ArgumentParser:
    """The command line; everything from the first word that is no option on is the command."""
    parser = _Parser(
        prog="red-wrap", allow_abbrev=False,
        usage="red-wrap --redpath=DIR [OPTION...] [--] COMMAND [ARG...]",
        description="Run COMMAND in the namespace of the node DIR and its ancestors.",
        epilog="Exit status: the command's own, 128+N when signal N ended it, 125 when red-wrap "
               "failed, 126 when the command cannot be executed, 127 when it does not exist.")
    parser.add_argument("--redpath", "--rpath", "--rp", metavar="DIR",
                        help="absolute path of the node (default: $REDPATH)")
    parser.add_argument("--rmain", metavar="FILE",
                        help="configuration of the core OS (default: $redpak_MAIN, then "
                             "/etc/redpak/main.yaml)")
    parser.add_argument("--admin", action="store_true",
                        help="also read the administrative configuration (maintenance)")
    parser.add_argument("--force", action="store_true",
                        help="create missing sources; do not check state and place of the node")
    parser.add_argument("--bwrap", metavar="PATH", help="the bubblewrap to use")
    parser.add_argument("--dump", action="store_true",
                        help="print the bwrap options, one a line, on stderr before the start")
    parser.add_argument("--dump-only", action="store_true",
                        help="print the bwrap options, one a line, and start nothing")
    parser.add_argument("--explain", action="store_true",
                        help="print each mount, variable and tag, and the node, file and line "
                             "that gave it; start nothing")
    parser.add_argument("--json", action="store_true",
                        help="print the launch plan as JSON and start nothing")
    parser.add_argument("--user", metavar="USER", help="run as this user (name or number)")
    parser.add_argument("--group", metavar="GROUP", help="run as this group (name or number)")
    parser.add_argument("--strict", action="store_true",
                        help="refuse a configuration that tries to loosen a constraint")
    parser.add_argument("--unsafe", action="store_true",
                        help="skip the checks of who owns the commands of the configuration")
    parser.add_argument("--verbose", action="store_true", help="say what is done, on stderr")
    # Given by the warm path (the shell script red-wrap): the key of the plan it would use.
    parser.add_argument("--warm", default="", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"red-wrap {VERSION}")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND [ARG...]",
                        help="what to run")
    return parser


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises LaunchError for a wrong command line."""
    options = make_parser().parse_args(list(arguments))
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not (options.command or options.dump_only or options.explain or options.json):
        raise LaunchError("no command given", hint="write it after the options: red-wrap "
                          "--redpath=DIR -- COMMAND")
    return options


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Become the application; returns an exit status only when that does not happen."""
    try:
        options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        from redwrap.launch import run
        return run(options, dict(os.environ))
    except RedpakError as err:
        for line in str(err).splitlines():
            print(f"red-wrap: error: {line}", file=sys.stderr)
        return err.status if isinstance(err, LaunchError) else FAILED
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return 128 + 2


if __name__ == "__main__":
    sys.exit(main())
