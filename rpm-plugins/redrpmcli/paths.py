# SPDX-License-Identifier: Apache-2.0
"""Where the family's nodes are, outside and in a namespace, and whose file a path is.

Loads nothing: the warm path of red-rpm imports it. Outside, a node is the directory of --redpath
and its ancestors lie above it; in a namespace the nodes are below /nodes, by alias.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional

INSIDE = "/nodes"
_STATUS_FILE = ".rednode.yaml"


class Places:
    """The directories of a family's nodes, the leaf first; ``inside`` its namespace, or outside."""

    def __init__(self, nodes: Sequence[str], *, inside: bool = False) -> None:
        self.nodes = list(nodes)
        self.inside = inside

    @property
    def leaf(self) -> str:
        """The leaf's directory."""
        return self.nodes[0]

    def map(self, path: str) -> tuple[str, str]:
        """(node, a package's own path) of a file; the node is "" for a path that names none.

        The last component is not followed: a package may own a symlink.
        """
        full = os.path.abspath(path)
        full = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        for node in sorted(self.nodes, key=len, reverse=True):
            if full.startswith(f"{node}/"):
                return node, full[len(node):]
        return "", path


def find_places(redpath: Optional[str]) -> Optional[Places]:
    """The family of ``redpath``, else of $REDPATH, else of the namespace we are in.

    None when that takes a closer look: the message for what is wrong is not made here.
    """
    redpath = redpath or os.environ.get("REDPATH") or ""
    if not redpath:
        return find_inside()
    if not redpath.startswith("/") or ".." in redpath.split("/"):
        return None
    leaf = os.path.realpath(redpath)
    if not os.path.exists(f"{leaf}/{_STATUS_FILE}"):
        return find_inside() if redpath == os.environ.get("LEAF_PATH") else None
    nodes = [leaf]
    parent = os.path.dirname(leaf)
    while parent != "/":
        if os.path.lexists(f"{parent}/{_STATUS_FILE}"):
            nodes.append(parent)
        parent = os.path.dirname(parent)
    return Places(nodes)


def find_inside() -> Optional[Places]:
    """The family of the namespace that this process is in; None outside.

    REDPAK_FAMILY and LEAF_ALIAS are what main.yaml puts into the environment.
    """
    alias = os.environ.get("LEAF_ALIAS", "")
    known = os.environ.get("REDPAK_FAMILY", alias).split(":")
    aliases = [name for name in reversed(known) if name and "/" not in name]
    if not alias or alias not in aliases[:1] or not os.path.isdir(f"{INSIDE}/{alias}"):
        return None
    return Places([f"{INSIDE}/{name}" for name in aliases], inside=True)
