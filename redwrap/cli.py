# SPDX-License-Identifier: Apache-2.0
"""red-wrap: run an application in the namespace of a node and its ancestors."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import dropwhile

from redpak import VERSION
from redpak.errors import TYPE_CHECKING, RedpakError
from redpak.values import dataclass
from redwrap.errors import FAILED, LaunchError

if TYPE_CHECKING:
    from typing import Optional, Union

USAGE = "usage: red-wrap --redpath=DIR [OPTION...] [--] COMMAND [ARG...]"
ABOUT = """
Run COMMAND in the namespace of the node DIR and its ancestors.
"""
STATUS = """
Exit status: the command's own, 128+N when signal N ended it, 125 when red-wrap failed, 126 when the
command cannot be executed, 127 when it does not exist.
"""


@dataclass(frozen=True)
class Option:
    """One option; `value` names its value, "" for a switch; without `help` it is not shown."""

    names: tuple[str, ...]
    value: str
    help: str

    @property
    def key(self) -> str:
        """Its name in the parsed options."""
        return self.names[0].lstrip("-").replace("-", "_")


# argparse is not used: its import and set-up are a fifth of a cold launch.
OPTIONS = (
    Option(("--redpath", "--rpath", "--rp"), "DIR", "absolute path of the node (or $REDPATH)"),
    Option(("--rmain",), "FILE", "configuration of the core OS (or $redpak_MAIN, then "
           "/etc/redpak/main.yaml)"),
    Option(("--admin",), "", "also read the administrative configuration (maintenance)"),
    Option(("--force",), "", "create missing sources; do not check state, place and age of the "
           "node"),
    Option(("--user",), "USER", "run as this user (name or number)"),
    Option(("--group",), "GROUP", "run as this group (name or number)"),
    Option(("--strict",), "", "refuse a configuration that tries to loosen a constraint"),
    Option(("--unsafe",), "", "skip the checks of who owns the configuration's commands"),
    Option(("--verbose", "-v"), "", "print what the configuration says about its entries"),
    Option(("--quiet", "-q"), "", "print no warnings"),
    Option(("--bwrap",), "PATH", "the bubblewrap to use"),
    Option(("--dump",), "", "print the bwrap options, one a line, on stderr before the start"),
    Option(("--dump-only",), "", "print the bwrap options, one a line; start nothing"),
    Option(("--json",), "", "print the launch plan as JSON; start nothing"),
    Option(("--explain",), "", "print each mount, variable and tag, and the node, file and line "
           "that gave it; start nothing"),
    Option(("--help", "-h"), "", "print this"),
    Option(("--version",), "", "print the version"),
    # From the launcher, red-wrap: where it is, the key of the plan that it looked for, whether the
    # kernel lacks the calls to make mounts with, and which signals the caller ignores that Python
    # ignores itself.
    Option(("--launcher",), "PATH", ""),
    Option(("--warm",), "KEY", ""),
    Option(("--old-kernel",), "", ""),
    Option(("--ignores-pipe",), "", ""),
    Option(("--ignores-xfsz",), "", ""),
)


# All of them come first, each in one word.
_OF_LAUNCHER = frozenset(option.names[0] for option in OPTIONS if not option.help)


class Options:
    """A parsed command line: options by key (text, True, or None and False), and the command;
    `words` is all of it but what the launcher added."""

    def __init__(self, values: Mapping[str, Union[str, bool]], command: Sequence[str],
                 words: Sequence[str]) -> None:
        self._values = values
        self.command = tuple(command)
        self.words = tuple(words)

    def text(self, key: str) -> Optional[str]:
        """The value of an option, None when it was not given."""
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def has(self, key: str) -> bool:
        """Whether a switch was given."""
        return key in self._values


def parse_arguments(arguments: Sequence[str]) -> Options:
    """Options, then the command from the first word that is none. Raises LaunchError."""
    known = {name: option for option in OPTIONS for name in option.names}
    values: dict[str, Union[str, bool]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, given, value = word.partition("=")
        option = known.get(name)
        if option is None:
            raise LaunchError(f"unknown option {name}", hint="see red-wrap --help")
        if not option.value:
            if given:
                raise LaunchError(f"the option {name} takes no value", hint=f"write {name}")
            values[option.key] = True
            continue
        if not given:
            if not rest:
                raise LaunchError(f"the option {name} needs a value",
                                  hint=f"write {name}={option.value}")
            value = rest.pop(0)
        values[option.key] = value
    return Options(values, rest, tuple(dropwhile(
        lambda word: word.partition("=")[0] in _OF_LAUNCHER, arguments)))


def help_text() -> str:
    """What --help prints."""
    lines = [USAGE, ABOUT]
    for option in OPTIONS:
        if option.help:
            names = ", ".join(option.names)
            shown = f"  {names}{'=' + option.value if option.value else ''}"
            lines.append(f"{shown}\n        {option.help}")
    return "\n".join([*lines, STATUS.rstrip()])


def run_options(options: Options) -> int:
    """Do what the command line asks for. Raises RedpakError."""
    if options.has("help") or options.has("version"):
        print(help_text() if options.has("help") else f"red-wrap {VERSION}")
        return 0
    if not options.command and not any(map(options.has, ("dump_only", "json", "explain"))):
        raise LaunchError("no command given", hint="write it after the options: red-wrap "
                          "--redpath=DIR -- COMMAND")
    if options.text("redpath") is None and "REDPATH" not in os.environ and any(
            word.startswith("--redpath=") for word in options.command):
        raise LaunchError("no node given", hint="write --redpath=DIR before the command: what "
                          "comes after it is the command's own")
    from redwrap.launch import launch
    return launch(options, caller_environment(), os.environ)


def caller_environment() -> dict[str, str]:
    """The environment as the caller gave it: Python adds LC_CTYPE to its own (PEP 538), an
    installation in a prefix redpak_MAIN. Raises RedpakError without /proc."""
    try:
        with open("/proc/self/environ", "rb") as stream:
            entries = os.fsdecode(stream.read()).split("\0")
    except OSError as err:
        raise LaunchError(f"/proc/self/environ: {err.strerror}", hint="mount /proc") from err
    environ: dict[str, str] = {}
    for entry in entries:
        name, given, value = entry.partition("=")
        if given:
            environ.setdefault(name, value)
    return environ


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Become the application; returns an exit status only when that does not happen."""
    try:
        status = run_options(parse_arguments(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return status
    except RedpakError as err:
        for line in str(err).splitlines():
            print(f"red-wrap: error: {line}", file=sys.stderr)
        return err.status if isinstance(err, LaunchError) else FAILED
    except BrokenPipeError:
        # The reader of our output has seen enough; Python would say so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except OSError as err:  # somebody changes the node meanwhile
        place = f"{err.filename}: " if err.filename else ""
        print(f"red-wrap: error: {place}{err.strerror}; try again", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 128 + 2


if __name__ == "__main__":
    sys.exit(main())
