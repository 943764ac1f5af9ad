# SPDX-License-Identifier: Apache-2.0
"""The options that all red- commands have, and what the list of commands says of two of them.

Loads nothing: dnf loads every command to run one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NODE_OPTIONS = (
    ("redpath", "DIR", "the node to work on (default: the environment variable REDPATH)"),
    ("rmain", "FILE",
     "configuration of the core OS (default: redpak_MAIN, else /etc/redpak/main.yaml)"),
    ("node-force", "", "work on a node that was moved or is not enabled (red-dnf: --force)"),
)  # fmt: skip
MANAGER_SUMMARY = "create a node, change it, and manage its repositories"
CHECK_SUMMARY = "prove that a node, its family or a tree of nodes is coherent"


def in_dnfs_words(error: Exception) -> str:
    """The text of an error: what red-wrap calls --force is --node-force here, as dnf takes that for
    another option; red-dnf knows both."""
    return str(error).replace("say --force", "say --node-force")


def declare_node_options(parser: Any) -> None:
    """The options by which every red- command finds its node."""
    for name, metavar, text in NODE_OPTIONS:
        names = ["--redpath", "--rpath"] if name == "redpath" else [f"--{name}"]
        settings: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        parser.add_argument(*names, help=text, **settings)
