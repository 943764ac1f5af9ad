# SPDX-License-Identifier: Apache-2.0
"""The red- twins of dnf's own commands: one table, one mechanism."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reddnf.node_command import NodeCommand

# Stock command: whether its twin changes the node, and so works in the family view.
_TWINS = {
    "autoremove": True,
    "check": False,
    "check-update": False,
    "clean": False,
    "deplist": False,
    "distro-sync": True,
    "downgrade": True,
    "group": True,
    "history": True,
    "info": False,
    "install": True,
    "list": False,
    "makecache": False,
    "mark": True,
    "module": True,
    "provides": False,
    "reinstall": True,
    "remove": True,
    "repoinfo": False,
    "repolist": False,
    "repoquery": False,
    "search": False,
    "swap": True,
    "updateinfo": False,
    "upgrade": True,
    "upgrade-minimal": True,
}


def make_twins(stock_commands: Mapping[str, Any]) -> list[type]:
    """A command class for each stock command that makes sense on a node.

    A twin is the stock class with NodeCommand in front: same options, help and exit status. Its
    names are the stock ones with red- before them; the two-letter ones also with a plain r.
    """
    twins: dict[str, type] = {}
    for name, changes_node in _TWINS.items():
        stock = stock_commands.get(name)
        # list and info, repolist and repoinfo ... are one class under several names.
        if stock is None or stock.__name__ in twins:
            continue
        twins[stock.__name__] = type(
            f"Red{stock.__name__}",
            (NodeCommand, stock),
            {
                "aliases": _twin_names(stock.aliases),
                "summary": f"{stock.summary} (of a node)",
                "changes_node": changes_node,
            },
        )
    return list(twins.values())


def _twin_names(aliases: tuple[str, ...]) -> tuple[str, ...]:
    short = tuple(f"r{alias}" for alias in aliases if len(alias) == 2)
    return tuple(f"red-{alias}" for alias in aliases) + short
