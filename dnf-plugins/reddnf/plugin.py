# SPDX-License-Identifier: Apache-2.0
"""The dnf4 plugin: registers the commands and follows their transaction through dnf's hooks.

dnf swallows every exception of a hook that is not dnf.exceptions.Error and goes on with the
transaction (dnf.plugin.Plugins._caller): _hook() lets none escape.
"""

from __future__ import annotations

import functools
import gc
import traceback
from typing import Any, Callable

import dnf
import dnf.cli.commands
import dnf.exceptions

from reddnf.node_command import NodeCommand
from reddnf.options import CHECK_SUMMARY, MANAGER_SUMMARY, in_dnfs_words
from reddnf.twins import make_twins
from redpak.complete import remember_available
from redpak.errors import RedpakError


def _hook(method: Callable[[Any, NodeCommand], None]) -> Callable[[Any], None]:
    """A plugin hook that runs for red- commands only, and whose every failure dnf respects."""

    @functools.wraps(method)
    def guarded(self: Any) -> None:
        command = getattr(self.cli, "command", None)
        if not isinstance(command, NodeCommand):
            return
        try:
            method(self, command)
        except RedpakError as err:
            raise dnf.exceptions.Error(in_dnfs_words(err)) from err
        except dnf.exceptions.Error:
            raise
        except Exception as err:
            text = traceback.format_exc()
            raise dnf.exceptions.Error(f"redpak failed, please report this: {err}\n{text}") from err

    return guarded


class _ManagerEntry(dnf.cli.commands.Command):
    """red-manager in dnf's list of commands; what it does is loaded when it is chosen."""

    aliases = ("red-manager", "rmg")
    summary = MANAGER_SUMMARY

    def __new__(cls, cli: Any) -> Any:
        from reddnf.manager import ManagerCommand

        return ManagerCommand(cli)


class _CheckEntry(dnf.cli.commands.Command):
    """The same of red-check."""

    aliases = ("red-check",)
    summary = CHECK_SUMMARY

    def __new__(cls, cli: Any) -> Any:
        from reddnf.check import CheckCommand

        return CheckCommand(cli)


class RedpakPlugin(dnf.Plugin):
    """Makes dnf4 work on nodes."""

    name = "redpak"

    def __init__(self, base: Any, cli: Any) -> None:
        super().__init__(base, cli)
        self.cli = cli
        if cli is not None:
            for command in (_CheckEntry, _ManagerEntry, *make_twins(cli.cli_commands)):
                cli.register_command(command)
        # The launcher has turned it off.
        gc.freeze()
        gc.enable()

    @_hook
    def sack(self, command: NodeCommand) -> None:
        """The solver never sees another version of what an ancestor has."""
        available = self.base.sack.query().available()
        node = command.session.session.family.leaf
        remember_available(node, (package.name for package in available))
        command.session.exclude_ancestors(self.base)

    @_hook
    def resolved(self, command: NodeCommand) -> None:
        """Refuse what would change an ancestor's package, before anything is downloaded."""
        command.session.check_transaction(self.base)

    @_hook
    def pre_transaction(self, command: NodeCommand) -> None:
        """All packages are here: mount the view for them."""
        command.session.assemble(self.base)

    @_hook
    def transaction(self, command: NodeCommand) -> None:
        """rpm is done: make the node what the stage is."""
        command.session.commit(self.base)
