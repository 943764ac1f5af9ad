# SPDX-License-Identifier: Apache-2.0
"""The red- commands of dnf5: one table, from which the alias file is written.

dnf5 takes new commands from alias files only: a red- command is an alias of the stock one that
also says, in variables of dnf5, what our plugin shall do. Without the plugin the installroot that
each alias sets can be used by nobody, so that nothing is ever done to the host instead of a node;
dnf5's error then shows that installroot, which says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from reddnf.manager_options import list_options
from reddnf.options import NODE_OPTIONS

NO_PLUGIN = (
    "/dev/null/redpak's plugin for dnf5 is not loaded: use red-dnf (it sets"
    " LIBDNF_PYTHON_PLUGIN_DIR)"
)
# How the aliases talk to the plugin.
VARIABLE = "redpak_"
# Twins in name only: reddnf.standalone does them.
MANAGER = "manager"
CHECK = "check"

_ALWAYS = None
_NEVER: frozenset[str] = frozenset()
_GROUP = frozenset({"install", "remove", "upgrade"})


@dataclass(frozen=True)
class RedCommand:
    """A twin of the stock command ``stock``, an id path of dnf5.

    ``changing`` are the sub-commands that change the node; None: every one does. ``also`` are
    options of the stock command that the twin has set. A node command that newer dnf5 versions
    alone have would be an error at every start of the others: such are not offered.
    """

    names: tuple[str, ...]
    stock: str
    changing: Optional[frozenset[str]]
    text: str
    also: tuple[str, ...] = ()


COMMANDS = (
    RedCommand(("install", "in"), "install", _ALWAYS, "Install software in a node"),
    RedCommand(("upgrade", "up", "update"), "upgrade", _ALWAYS, "Upgrade software of a node"),
    RedCommand(("upgrade-minimal",), "upgrade", _ALWAYS,
               "Upgrade a node only as far as advisories ask for", ("upgrade.minimal",)),
    RedCommand(("remove", "rm"), "remove", _ALWAYS, "Remove software from a node"),
    RedCommand(("distro-sync", "dsync"), "distro-sync", _ALWAYS,
               "Upgrade or downgrade a node to what its repositories have"),
    RedCommand(("downgrade", "dg"), "downgrade", _ALWAYS, "Downgrade software of a node"),
    RedCommand(("reinstall", "rei"), "reinstall", _ALWAYS, "Reinstall software of a node"),
    RedCommand(("swap",), "swap", _ALWAYS,
               "Remove software from a node and install another in one transaction"),
    RedCommand(("mark",), "mark", _ALWAYS, "Change the reason of a package of a node"),
    RedCommand(("autoremove",), "autoremove", _ALWAYS,
               "Remove from a node what was installed as a dependency and is needed no more"),
    RedCommand(("provides",), "provides", _NEVER, "Find what package provides a value"),
    RedCommand(("check-upgrade", "check-update"), "check-upgrade", _NEVER,
               "Check for upgrades of a node"),
    RedCommand((CHECK,), "check", _NEVER, "Prove that a node is coherent (all options: red-check)"),
    RedCommand(("leaves",), "leaves", _NEVER, "List packages of a family that no other requires"),
    RedCommand(("repoquery", "rq"), "repoquery", _NEVER, "Search for packages of a node"),
    RedCommand(("search", "se"), "search", _NEVER, "Search for software for a node"),
    RedCommand(("list", "ls"), "list", _NEVER, "List packages of a node"),
    RedCommand(("info", "if"), "info", _NEVER, "Show details of packages of a node"),
    RedCommand(("clean",), "clean", _NEVER, "Remove or expire cached data of a node"),
    RedCommand(("download",), "download", _NEVER, "Download software from a node's repositories"),
    RedCommand(("makecache", "mc"), "makecache", _NEVER, "Generate the metadata cache of a node"),
    RedCommand(("group", "grp"), "group", _GROUP, "Manage comps groups of a node"),
    RedCommand(("environment",), "environment", _GROUP, "Manage comps environments of a node"),
    RedCommand(("module",), "module", frozenset({"enable", "disable", "reset"}),
               "Manage modules of a node"),
    RedCommand(("history",), "history", frozenset({"undo", "redo", "rollback"}),
               "Manage the transaction history of a node"),
    RedCommand(("repo",), "repo", _NEVER, "Look at the repositories of a node"),
    RedCommand(("repolist",), "repo.list", _NEVER, "List the repositories of a node"),
    RedCommand(("repoinfo",), "repo.info", _NEVER, "Show details of the repositories of a node"),
    RedCommand(("advisory", "updateinfo"), "advisory", _NEVER, "Look at advisories for a node"),
)  # fmt: skip
# Positional arguments of red-manager are repositories, as those of this one.
_MANAGER_STOCK = "repo.info"
_MANAGER_NAMES = ("red-manager", "rmg")
_MANAGER_TEXT = "Create a node, change it, and manage its repositories"

_Option = tuple[str, str, str]  # long name, metavar or "", help
_NODE_OPTIONS: tuple[_Option, ...] = (
    *NODE_OPTIONS,
    ("rpath", "DIR", "the same as --redpath"),
    ("rp", "DIR", "the same as --redpath"),
    ("forcenode", "", "give the node its own copy of the named packages, though an ancestor has"
     " them"),
    ("plan", "", "show the exact files that the transaction adds, replaces and removes: it is"
     " carried out in the stage, which is then thrown away"),
)  # fmt: skip


def red_names(name: str) -> tuple[str, ...]:
    """What a twin is called for the stock name ``name``: the two-letter ones also with an r."""
    return (f"red-{name}", f"r{name}") if len(name) == 2 else (f"red-{name}",)


def find_command(name: str) -> RedCommand:
    """The twin whose first name is ``name``. Raises KeyError."""
    return {command.names[0]: command for command in COMMANDS}[name]


def all_names() -> set[str]:
    """Every name of every red- command."""
    twins = {red for command in COMMANDS for name in command.names for red in red_names(name)}
    return twins | set(_MANAGER_NAMES)


def alias_file() -> str:
    """The text of dnf5's alias file."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        "# Written by reddnf5.commands.alias_file(); a unit test says when it is old.",
        "version = '1.1'",
        *_group("redpak-options", "Options of the red- commands (redpak):"),
        *_group("redpak-commands", "Commands on a node (redpak):"),
        *_group("redpak-short", "Short names of commands on a node (redpak):"),
        *_group(f"{_MANAGER_STOCK}.redpak-manager", "Options of red-manager:"),
    ]
    for option in _NODE_OPTIONS:
        variable = "redpath" if option[0] in ("rpath", "rp") else option[0]
        lines += _option("", option, "redpak-options", variable)
    for option in list_options():
        lines += _option(f"{_MANAGER_STOCK}.", option, "redpak-manager", MANAGER)
    for command in COMMANDS:
        for position, name in enumerate(command.names):
            lines += _command(red_names(name)[0], command, is_first=position == 0)
            for short in red_names(name)[1:]:
                lines += _command(short, command, is_first=False)
    manager = RedCommand((MANAGER,), _MANAGER_STOCK, _ALWAYS, _MANAGER_TEXT)
    for position, name in enumerate(_MANAGER_NAMES):
        lines += _command(name, manager, is_first=position == 0)
    return "\n".join([*lines, ""])


def _group(name: str, header: str) -> list[str]:
    return ["", f"['{name}']", "type = 'group'", f'header = "{header}"']


def _option(parent: str, option: _Option, group: str, variable: str) -> list[str]:
    name, metavar, text = option
    value = [f"value_help = '{metavar}'", "has_value = true"] if metavar else []
    told = "${}" if metavar else "1"
    return [
        "",
        f"['{parent}{name}']",
        "type = 'named_arg'",
        f"long_name = '{name}'",
        *value,
        f'descr = "{text}"',
        f"group_id = '{group}'",
        "complete = true",
        *_attached({variable.replace("-", "_"): told}),
    ]


def _command(name: str, command: RedCommand, *, is_first: bool) -> list[str]:
    text = command.text if is_first else f"Alias for 'red-{command.names[0]}'"
    return [
        "",
        f"['{name}']",
        "type = 'command'",
        f"attached_command = '{command.stock}'",
        f'descr = "{text}"',
        f"group_id = '{'redpak-commands' if is_first else 'redpak-short'}'",
        f"complete = {'true' if is_first else 'false'}",
        *_attached({"command": command.names[0]}, command.also),
    ]


def _attached(variables: dict[str, str], also: tuple[str, ...] = ()) -> list[str]:
    """The stock options that an alias sets."""
    return [
        "attached_named_args = [",
        f'  {{ id_path = \'installroot\', value = "{NO_PLUGIN}" }},',
        "  { id_path = 'use-host-config' },",
        *(f"  {{ id_path = '{option}' }}," for option in also),
        *(
            f"  {{ id_path = 'setvar', value = '{VARIABLE}{name}={value}' }},"
            for name, value in variables.items()
        ),
        "]",
    ]
