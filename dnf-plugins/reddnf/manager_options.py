# SPDX-License-Identifier: Apache-2.0
"""The options of red-manager, declared once for dnf4 and dnf5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redpak.errors import RedpakError
from redpak.node import NodeState

ACTIONS = (
    ("--create", "make the directory DIR of --redpath a node"),
    ("--update", "accept where a node is now, or (with --template) write its configuration again;"
     " its state stays"),
    ("--adopt", "register what a core OS without rpm packages provides, if it has changed since"
     " the last time; with --refresh, look in any case"),
    ("--unadopt", "forget what --adopt registered"),
    ("--show", "with --adopt: show what is registered, and register nothing"),
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
    ("--state", "|".join(state.value for state in NodeState), "set what the node is fit for"),
    ("--add-repo", "URL|FILE.repo|DIRECTORY", "give the node a repository (any number of times)"),
    ("--freeze", "FILE", "write a manifest of every node at and below DIR: configuration and exact"
     " packages"),
    ("--thaw", "FILE", "build the nodes of a manifest at DIR, from it and the repositories that it"
     " names"),
    ("--bundle", "FILE.tar|DIR", "make a signed bundle for red-rpm --ota: of PACKAGEs (files or"
     " directories), to be applied to the node as it is; with --since, of what changed since then"),
    ("--since", "previous|FILE", "with --bundle: the state to start from, the previous generation"
     " or what red-rpm --ota-state printed"),
    ("--match", "alias,name,path", "with --bundle: what of the node must be the same where it is"
     " applied (default: alias,name)"),
    ("--sign-key", "KEY", "with --bundle: your gpg key"),
)  # fmt: skip
# Each of these is all that a command does.
_ALONE = ("--freeze", "--thaw", "--bundle", "--rollback")
_EXCLUSIVE = (("--create", "--update"), ("--adopt", "--unadopt"),
              ("--repo-enable", "--repo-disable"))  # fmt: skip
_GOES_WITH = {
    "--alias": ("--create", "--update"),
    "--template": ("--create", "--update"),
    "--template-admin": ("--create", "--update"),
    "--name": ("--create", "--update"),
    "--info": ("--create", "--update", "--state", "--bundle"),
    "--show": ("--adopt",),
    "--since": ("--bundle",),
    "--match": ("--bundle",),
    "--sign-key": ("--bundle",),
}


def check_combination(opts: Any) -> None:
    """Raise RedpakError when the command asks for nothing, or for what does not go together."""
    actions = [option for option, _text in ACTIONS if option != "--show"]
    given = [option for option in (*actions, "--state", "--add-repo", *_ALONE)
             if option_value(opts, option)]  # fmt: skip
    for option, others in _GOES_WITH.items():
        if option_value(opts, option) and not set(others) & set(given):
            raise RedpakError(f"{option} goes with {' or '.join(others)}")
    if not given:
        raise RedpakError("nothing to do", hint="see red-manager --help")
    for pair in [*_EXCLUSIVE, *((one, other) for one in _ALONE for other in given)]:
        if set(pair) <= set(given) and len(set(pair)) == 2:
            raise RedpakError(f"{pair[0]} and {pair[1]} exclude each other")


def declare_options(parser: Any) -> None:
    """Declare the options of red-manager, but for those of every red- command."""
    for option, text in ACTIONS:
        parser.add_argument(option, action="store_true", help=text)
    for option, metavar, text in _VALUES:
        settings: dict[str, Any] = {"metavar": metavar, "help": text}
        if option == "--state":
            del settings["metavar"]
            settings |= {"choices": metavar.split("|"), "type": str.capitalize}
        elif option == "--add-repo":
            settings |= {"action": "append", "default": []}
        parser.add_argument(option, **settings)
    parser.add_argument(
        "repositories",
        nargs="*",
        metavar="REPO|PACKAGE",
        help="a repository's id; with --bundle, a package file",
    )


def list_options() -> Iterator[tuple[str, str, str]]:
    """Name without dashes, metavar or "", and help of each of those options."""
    for option, text in ACTIONS:
        yield option[2:], "", text
    for option, metavar, text in _VALUES:
        yield option[2:], metavar, text


def option_value(opts: Any, option: str) -> Any:
    """What ``opts`` has for an option that is written ``option``."""
    return getattr(opts, option[2:].replace("-", "_"))
