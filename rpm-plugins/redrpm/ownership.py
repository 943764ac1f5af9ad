# SPDX-License-Identifier: Apache-2.0
"""Who of a family owns a package, and what the user is told who wants to change another's."""

from __future__ import annotations

from redpak.errors import RedpakError
from redpak.family import Family
from redrpm.rpmdb import FamilyRpmdb

CORE_ALIAS = "redmain"


class Ownership:
    """The owners of the packages in a family rpmdb, which are told by their numbers."""

    def __init__(self, family: Family, family_rpmdb: FamilyRpmdb) -> None:
        self._family = family
        self._packages = family_rpmdb.packages
        self._aliases = {node.path: node.alias for node in family.nodes}

    def owner(self, number: int) -> str:
        """The path of the node that owns header ``number``; a new one is the leaf's."""
        installed = self._packages.get(number)
        return installed.owner if installed else self._family.leaf.path

    def is_own(self, number: int) -> bool:
        """Whether header ``number`` is the leaf's."""
        return self.owner(number) == self._family.leaf.path

    def alias(self, owner: str) -> str:
        """The alias of a node by its path."""
        return self._aliases.get(owner, CORE_ALIAS)

    def place(self, owner: str) -> str:
        """How a node is named in a message."""
        alias = self._aliases.get(owner)
        return f"node {alias} ({owner})" if alias else "the core OS"

    def refusal(self, label: object, owner: str) -> RedpakError:
        """What to raise when the leaf is about to change the package ``label`` of ``owner``."""
        return RedpakError(
            f"package {label} belongs to {self.place(owner)}, node {self._family.leaf.alias}"
            " cannot change it",
            hint=f"use --redpath={owner}" if owner in self._aliases else "",
        )

    def advice(self, label: object, owner: str) -> str:
        """Why another build of the package ``label`` of ``owner`` cannot be installed."""
        return (
            f"{label} belongs to {self.place(owner)}: upgrade it there, or give this node a copy"
            " of its own with --forcenode"
        )
