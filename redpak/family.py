# SPDX-License-Identifier: Apache-2.0
"""A family: the core OS, then every node from the oldest ancestor down to the leaf."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from redpak.errors import ConfigError, RedpakError
from redpak.findings import Finding, printable
from redpak.load import REDMAIN, FileKind, load_admin, load_config
from redpak.node import (
    CLOSED_DIRECTORIES,
    RESERVED_DIRECTORIES,
    Node,
    NodeState,
    is_node,
    read_node,
)
from redpak.schema import AdminConfig, NodeConfig, Settings
from redpak.values import dataclass

MAIN_FILE = "/etc/redpak/main.yaml"
DEFAULT_CORE_RPMDB = "/var/lib/rpm"


@dataclass(frozen=True)
class Main:
    """The core OS: its configuration, and main-admin.yaml beside it when that was asked for."""

    file: str
    config: NodeConfig
    admin: AdminConfig | None = None

    @property
    def root(self) -> str:
        """Where the core OS is."""
        return "/"

    @property
    def enforce(self) -> Settings:
        """The constraints of the whole machine."""
        return self.config.enforce

    @property
    def admin_file(self) -> str:
        """main-admin.yaml beside main.yaml, whether it exists or not."""
        return f"{os.path.dirname(self.file)}/main-admin.yaml"

    @property
    def templates_dir(self) -> str:
        """Where the templates that come with this main.yaml are."""
        return f"{os.path.dirname(self.file)}/templates.d"

    @property
    def rpmdb_dir(self) -> str:
        """The rpmdb of the core OS (tag rpmdir, relative to the file's directory).

        It may not exist: a core OS without one provides nothing until it is adopted.
        """
        setting = self.config.tags.rpmdir or DEFAULT_CORE_RPMDB
        return os.path.normpath(os.path.join(os.path.dirname(self.file), setting))


@dataclass(frozen=True)
class Family:
    """redmain and the nodes, oldest ancestor first, the leaf last."""

    main: Main
    nodes: tuple[Node, ...]

    @property
    def leaf(self) -> Node:
        """The node that commands and applications work on."""
        return self.nodes[-1]

    @property
    def ancestors(self) -> tuple[Node, ...]:
        """The leaf's ancestors, oldest first."""
        return self.nodes[:-1]


def resolve_redpath(option: str | None, environ: Mapping[str, str]) -> str:
    """The redpath: --redpath, else $REDPATH. Raises RedpakError when missing or unfit."""
    redpath = option if option is not None else environ.get("REDPATH", "")
    if not redpath:
        raise RedpakError("no node given", hint="say which with --redpath=DIR or REDPATH")
    if any(character < " " or character == "\x7f" for character in redpath):
        raise RedpakError(f"redpath {redpath!r} has a control character or a line break",
                          hint="use another directory")
    if not redpath.startswith("/"):
        raise RedpakError(f"redpath {redpath} is not absolute",
                          hint=f"write --redpath={os.path.abspath(redpath)}")
    try:
        redpath.encode()
    except UnicodeEncodeError:
        raise RedpakError(f"redpath {redpath!r} is not UTF-8 text",
                          hint="use another directory") from None
    if ".." in redpath.split("/"):
        raise RedpakError(f'redpath {redpath} has a ".." part', hint="write the path without ..")
    return redpath


def load_main(file: str | None, environ: Mapping[str, str], *, admin: bool = False) -> Main:
    """The core OS: --rmain=FILE, else $redpak_MAIN, else /etc/redpak/main.yaml.

    Raises RedpakError (unreadable, with where it comes from) and ConfigError.
    """
    chosen = os.path.abspath(file or environ.get("redpak_MAIN") or MAIN_FILE)
    if not os.path.exists(chosen):
        raise RedpakError(f"{chosen} does not exist, it describes the core OS",
                          hint="install redpak's configuration or say --rmain=FILE")
    admin_file = f"{os.path.dirname(chosen)}/main-admin.yaml"
    has_admin = admin and os.path.exists(admin_file)
    return Main(chosen, load_config(chosen, kind=FileKind.MAIN),
                load_admin(admin_file, kind=FileKind.MAIN_ADMIN, node=REDMAIN, owners=())
                if has_admin else None)


def load_family(redpath: str, *, main: Main, admin: bool = False, force: bool = False) -> Family:
    """The family of the node at `redpath`, checked: exists, enabled, not moved, aliases unique.

    `force` lets a node that is not enabled or was moved pass. Raises RedpakError and ConfigError.
    """
    resolve_redpath(redpath, {})
    leaf = os.path.realpath(redpath)
    nodes = read_nodes([*reversed(find_ancestors(leaf)), leaf], admin=admin)
    for node in nodes:
        check_node(node, force=force)
    check_unique(nodes)
    return Family(main, tuple(nodes))


def read_nodes(paths: Iterable[str], *, admin: bool = False) -> list[Node]:
    """Read nodes; the faults of all their files come as one ConfigError. Raises RedpakError."""
    nodes = []
    findings: list[Finding] = []
    for path in paths:
        try:
            nodes.append(read_node(path, admin=admin))
        except ConfigError as error:
            findings += error.findings
    if findings:
        raise ConfigError(findings)
    return nodes


def find_ancestors(path: str) -> list[str]:
    """The nodes above `path` (real), the nearest first."""
    found = []
    parent = os.path.dirname(path)
    while parent != "/":
        if is_node(parent):
            found.append(parent)
        parent = os.path.dirname(parent)
    return found


def check_node(node: Node, *, force: bool = False) -> None:
    """Raise RedpakError for a node that is not enabled, or not where it was created."""
    status = node.status
    if force:
        return
    if status.realpath != node.path:
        raise RedpakError(f"node {node.alias} at {node.path} was created at {status.realpath}",
                          hint="accept the move with red-manager --update, or say --force")
    if status.state is not NodeState.ENABLE:
        because = f" ({printable(status.info)})" if status.info else ""
        raise RedpakError(f"node {node.alias} at {node.path} has the state "
                          f"{status.state.value}{because}",
                          hint="set it with red-manager --state=Enable, or say --force")


def check_unique(nodes: list[Node], *, new: Node | None = None) -> None:
    """Raise RedpakError when two nodes of a family have the same alias or name; `new` is the one
    that a command is about to make."""
    aliases: dict[str, Node] = {}
    names: dict[str, Node] = {}
    for node in nodes:
        for what, value, known in (("alias", node.alias, aliases), ("name", node.name, names)):
            first = known.setdefault(value, node)
            if value and first is not node:
                hint = (f"choose another one: --{what}=NAME" if new in (first, node)
                        else f"change headers.{what} in {node.config_file}")
                raise RedpakError(f"the {what} {value} belongs to both {first.path} and "
                                  f"{node.path}", hint=hint)


def find_descendants(path: str, *, lenient: bool = False) -> list[str]:
    """Every node below `path`, at any depth, sorted. Raises RedpakError where it may not look.

    `lenient` passes over directories that the caller may not read: other users' nodes. Symbolic
    links are not followed, and a node's own usr, etc, var ... hold no nodes.
    """
    found = []
    pending = [os.path.realpath(path)]
    while pending:
        directory = pending.pop()
        closed = CLOSED_DIRECTORIES if is_node(directory) else RESERVED_DIRECTORIES
        try:
            with os.scandir(directory) as entries:
                below = [entry.path for entry in entries
                         if entry.name not in closed and entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if lenient and isinstance(error, PermissionError):
                continue
            raise RedpakError(f"cannot look for nodes in {directory}: {error.strerror}",
                              hint="run it as the owner of the nodes") from error
        found += [child for child in below if is_node(child)]
        pending += below
    return sorted(found)
