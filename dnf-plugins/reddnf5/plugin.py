# SPDX-License-Identifier: Apache-2.0
"""The libdnf5 plugin: follows a red- command of dnf5 through its hooks.

An exception that leaves a hook ends dnf5 by SIGABRT: what is wrong is said here, in one line, and
the process left. In a transaction that throws away the stage, and the node is as it was.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from typing import Any, Callable, NoReturn, Optional

import libdnf5

from reddnf.options import in_dnfs_words
from reddnf5.arguments import NodeArguments
from reddnf5.commands import CHECK, MANAGER, NO_PLUGIN, VARIABLE
from reddnf5.work import NodeWork
from redpak.errors import RedpakError
from redsys import libc
from redsys.lock import NodeBusyError
from redsys.run import command_line

_BUSY = 200  # the exit status of dnf4 for a lock


def leave(status: int) -> NoReturn:
    """End dnf5 now; what it has printed so far is printed."""
    sys.stdout.flush()
    sys.stderr.flush()
    libc.flush_streams()
    os._exit(status)


def _fail(message: str, status: int = 1) -> NoReturn:
    libc.flush_streams()
    sys.stdout.flush()
    sys.stderr.write(f"Error: {message}\n")
    leave(status)


def _hook(method: Callable[..., None]) -> Callable[..., None]:
    """A hook whose every failure ends the command."""

    @functools.wraps(method)
    def guarded(*args: Any) -> None:
        try:
            method(*args)
        except NodeBusyError as err:
            _fail(in_dnfs_words(err), _BUSY)
        except RedpakError as err:
            _fail(in_dnfs_words(err))
        except Exception as err:
            _fail(f"redpak failed, please report this: {err}\n{traceback.format_exc()}")

    return guarded


class RedpakPlugin(libdnf5.plugin.IPlugin2_1):
    """Makes dnf5 work on nodes; other commands it leaves alone."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self._work: Optional[NodeWork] = None

    @staticmethod
    def get_api_version() -> Any:
        return libdnf5.PluginAPIVersion(2, 1)

    @staticmethod
    def get_name() -> str:
        return "redpak"

    @staticmethod
    def get_version() -> Any:
        return libdnf5.plugin.Version(0, 1, 0)

    def get_attribute(self, name: str) -> Optional[str]:
        return {"description": "Works on redpak's nodes."}.get(name)

    @_hook
    def pre_base_setup(self) -> None:
        """Enter the node: the options are read, and there is one thread."""
        base = self.get_base()
        if base.get_config().installroot != NO_PLUGIN:
            return
        variables = base.get_vars()

        def variable(name: str) -> Optional[str]:
            return str(variables.get_value(name)) if variables.contains(name) else None

        argv = command_line()
        if variable(f"{VARIABLE}command") in (MANAGER, CHECK):
            self._run_own(argv[1:])
        self._work = NodeWork(base, NodeArguments.read(variable, argv))

    @staticmethod
    def _run_own(arguments: list[str]) -> NoReturn:
        """Carry out a command that is no twin, by itself."""
        from reddnf.standalone import RUNNERS

        name = next(word for word in arguments if word in RUNNERS)
        arguments.remove(name)
        leave(RUNNERS[name](arguments))

    @_hook
    def repos_configured(self) -> None:
        """The family may insist on signatures."""
        if self._work:
            self._work.enforce_gpgcheck()

    @_hook
    def repos_loaded(self) -> None:
        """The solver never sees another version of what an ancestor has."""
        if self._work:
            self._work.remember_available()
            self._work.exclude_ancestors()

    @_hook
    def post_add_cmdline_packages(self) -> None:
        """Package files are named on the command line: the same for them."""
        if self._work:
            self._work.exclude_ancestors()

    @_hook
    def goal_resolved(self, transaction: Any) -> None:
        """Refuse what would change an ancestor's package, before anything is downloaded."""
        if self._work and not self._work.check_transaction(transaction):
            print("Nothing to do.")
            leave(0)

    @_hook
    def pre_transaction(self, transaction: Any) -> None:
        """All packages are here: mount the view for them."""
        if self._work:
            self._work.assemble(transaction)

    @_hook
    def post_transaction(self, transaction: Any) -> None:
        """rpm is done: make the node what the stage is."""
        if self._work and not self._work.commit(transaction):
            leave(0)

    @_hook
    def finish(self) -> None:
        if self._work:
            self._work.close()
