# SPDX-License-Identifier: Apache-2.0
"""dnf red-check: the engine is the package redcheck, which needs no dnf."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import dnf.cli.commands

from redcheck import cli
from reddnf.options import CHECK_SUMMARY, declare_node_options
from redpak.errors import RedpakError


class CheckCommand(dnf.cli.commands.Command):
    """What `dnf check` is for a system, for nodes; the selections have the same names."""

    aliases = ("red-check",)
    summary = CHECK_SUMMARY

    @staticmethod
    def set_argparser(parser: Any) -> None:
        """Declare the options."""
        declare_node_options(parser)
        cli.add_options(parser)

    def pre_configure(self) -> None:
        """Before dnf opens anything: it has no part in a check."""
        self._failed = self._report(self._enter)
        self.base.conf.reposdir = []
        super().pre_configure()

    def run(self) -> None:
        """Check; dnf ends with our exit status."""
        status = self._failed or self._report(lambda: cli.run(self.opts))
        self.cli.demands.success_exit_status = status

    def _enter(self) -> int:
        cli.enter(self.opts)
        return 0

    @staticmethod
    def _report(action: Callable[[], int]) -> int:
        # dnf would end with 1, which means findings here.
        try:
            return action()
        except RedpakError as err:
            for line in str(err).splitlines():
                print(f"red-check: error: {line}", file=sys.stderr)
            return cli.CANNOT_CHECK
