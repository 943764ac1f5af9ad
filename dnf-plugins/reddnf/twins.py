# SPDX-License-Identifier: Apache-2.0
"""The red- twins of dnf's own commands: one table, one mechanism."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from reddnf.node_command import NodeCommand

_ALWAYS = None
_NEVER: frozenset[str] = frozenset()
# Stock command: the sub-commands that change the node, and so work in the family view.
_TWINS: dict[str, Optional[frozenset[str]]] = {
    "autoremove": _ALWAYS,
    "check-update": _NEVER,
    "clean": _NEVER,
    "deplist": _NEVER,
    "distro-sync": _ALWAYS,
    "download": _NEVER,
    "downgrade": _ALWAYS,
    "group": frozenset({"install", "upgrade", "update", "remove", "erase", "mark", "unmark"}),
    "history": frozenset({"undo", "redo", "rollback", "replay"}),
    "info": _NEVER,
    "install": _ALWAYS,
    "list": _NEVER,
    "makecache": _NEVER,
    "mark": _ALWAYS,
    "module": frozenset(
        {"enable", "disable", "reset", "install", "update", "remove", "switch-to"}
    ),
    "provides": _NEVER,
    "reinstall": _ALWAYS,
    "remove": _ALWAYS,
    "repoinfo": _NEVER,
    "repolist": _NEVER,
    "repoquery": _NEVER,
    "search": _NEVER,
    "swap": _ALWAYS,
    "updateinfo": _NEVER,
    "upgrade": _ALWAYS,
    "upgrade-minimal": _ALWAYS,
}
# Those of them that install packages whatever their other words are.
_BRINGING = frozenset(
    {"distro-sync", "downgrade", "install", "reinstall", "swap", "upgrade", "upgrade-minimal"}
)


def make_twins(stock_commands: Mapping[str, Any]) -> list[type]:
    """A command class for each stock command that makes sense on a node.

    A twin is the stock class with NodeCommand in front: same options, help and exit status. Its
    names are the stock ones with red- before them; the two-letter ones also with a plain r.
    """
    twins: dict[str, type] = {}
    for name, changing_words in _TWINS.items():
        stock = stock_commands.get(name)
        # list and info, repolist and repoinfo ... are one class under several names.
        if stock is None or stock.__name__ in twins:
            continue
        twins[stock.__name__] = type(
            f"Red{stock.__name__}",
            (NodeCommand, stock),
            {
                "aliases": _twin_names(stock),
                "summary": _twin_summary(stock.summary),
                "changing_words": changing_words,
                "brings_packages": name in _BRINGING,
            },
        )
    return list(twins.values())


def _twin_summary(stock: str) -> str:
    """What the stock command says of itself, but of a node; translations keep their words."""
    text = stock
    for system in (" on your system", " from your system", " that affects your system"):
        text = text.replace(system, "")
    return f"on a node: {text}"


def _twin_names(stock: Any) -> tuple[str, ...]:
    # groupinstall and its like spell a sub-command that group has anyway.
    spelt = getattr(stock, "direct_commands", {})
    aliases = [alias for alias in stock.aliases if alias not in spelt]
    short = [f"r{alias}" for alias in aliases if len(alias) == 2]
    return (*(f"red-{alias}" for alias in aliases), *short)
