# SPDX-License-Identifier: Apache-2.0
"""A node on disk: its places, its status and its configuration."""

from __future__ import annotations

import enum
import os
import time

from redpak import kinds
from redpak.errors import ConfigError, RedpakError
from redpak.files import write_file_atomic
from redpak.load import FileKind, Reader, load_admin, load_config
from redpak.schema import AdminConfig, Key, NodeConfig
from redpak.values import dataclass, replace
from redpak.yamltext import quote
from redpak.yamltree import Scalar, parse_tree, read_text

STATUS_FILE = ".rednode.yaml"
CONFIG_FILES = ("etc/redpack.yaml", "etc/redpak.yaml")
ADMIN_FILES = ("etc/redpack-admin.yaml", "etc/redpak-admin.yaml")
# Directories that never hold nodes, wherever they are: redpak's own, and that of e2fsck(8), which
# nobody but root may read.
RESERVED_DIRECTORIES = frozenset((".redpak", "lost+found"))
# Directories of a node that never hold child nodes.
CLOSED_DIRECTORIES = RESERVED_DIRECTORIES | {"usr", "etc", "var", "opt", "srv", "private"}


class NodeState(enum.Enum):
    """What a node is fit for: only Enable works without --force."""

    ENABLE = "Enable"
    DISABLE = "Disable"
    UNKNOWN = "Unknown"
    ERROR = "Error"


STATUS_KEYS = {key.name: key for key in (
    Key("state", kinds.choice(NodeState, "a node state"), "Enable, Disable, Unknown or Error.",
        mandatory=True),
    Key("realpath", kinds.LINE, "Where the node was created.", mandatory=True),
    Key("timestamp", kinds.integer(0, 10**15, "milliseconds since 1970"),
        "When the node was last proven coherent.", mandatory=True),
    Key("info", kinds.TEXT, "Why the state is what it is, for people."),
)}


@dataclass(frozen=True)
class NodeStatus:
    """What `.rednode.yaml` says; `timestamp` is in ms since 1970, of the last proof."""

    state: NodeState
    realpath: str
    timestamp: int
    info: str = ""


@dataclass(frozen=True)
class Node:
    """A node: `path` is absolute and real; `admin` is None unless asked for and present."""

    path: str
    status: NodeStatus
    config: NodeConfig
    admin: AdminConfig | None = None

    @property
    def alias(self) -> str:
        """The short name, unique in the family."""
        return self.config.headers.alias

    @property
    def name(self) -> str:
        """The globally unique name."""
        return self.config.headers.name

    @property
    def owner_uid(self) -> int:
        """Who owns the node: the owner of its directory. Raises OSError."""
        return os.stat(self.path).st_uid

    @property
    def status_file(self) -> str:
        """`.rednode.yaml`, which makes the directory a node."""
        return f"{self.path}/{STATUS_FILE}"

    @property
    def config_file(self) -> str:
        """The configuration that was read."""
        return self.config.file

    @property
    def admin_file(self) -> str:
        """The administrative configuration, whether it exists or not."""
        return _first_file(self.path, ADMIN_FILES) or f"{self.path}/{ADMIN_FILES[0]}"

    @property
    def state_dir(self) -> str:
        """redpak's own: lock, stage, journal, launch plans."""
        return f"{self.path}/.redpak"

    @property
    def rpmdb_dir(self) -> str:
        """The node's own rpmdb."""
        return self._place(self.config.tags.rpmdir, "rpmdir", "var/lib/rpm")

    @property
    def repos_dir(self) -> str:
        """The node's repositories."""
        return f"{self.path}/etc/yum.repos.d"

    @property
    def vars_dir(self) -> str:
        """The node's dnf variables."""
        return f"{self.path}/etc/dnf/vars"

    @property
    def persist_dir(self) -> str:
        """dnf's state: history, reasons, modules."""
        return self._place(self.config.tags.persistdir, "persistdir", "var/lib/dnf")

    @property
    def cache_dir(self) -> str:
        """dnf's caches."""
        return self._place(self.config.tags.cachedir, "cachedir", "var/cache/dnf")

    @property
    def log_dir(self) -> str:
        """dnf's logs."""
        return f"{self.path}/var/log"

    @property
    def private_dir(self) -> str:
        """The applications' private storage."""
        return f"{self.path}/private"

    def _place(self, setting: str | None, key: str, default: str) -> str:
        """A directory below the node. Raises RedpakError for a setting that leads elsewhere."""
        if not setting:
            return f"{self.path}/{default}"
        for name in ("$NODE_PATH", "${NODE_PATH}"):
            if setting.startswith(name + "/"):
                setting = self.path + setting[len(name):]
        place = os.path.normpath(os.path.join(self.path, setting))
        if not place.startswith(self.path + "/") or "$" in setting:
            raise RedpakError(
                f"{self.config.settings.origins[key][0]}: config.{key}: {setting} is not below the "
                "node", hint=f"write a relative path such as {default}")
        return place


def is_node(path: str) -> bool:
    """Whether the directory at `path` is a node."""
    return os.path.lexists(f"{path}/{STATUS_FILE}")


def read_node(path: str, *, admin: bool = False) -> Node:
    """The node at `path`, which must be real. Raises RedpakError: no node, unreadable, faulty."""
    status = read_status(path)
    file = _first_file(path, CONFIG_FILES)
    if file is None:
        raise RedpakError(f"node {path} has no configuration {CONFIG_FILES[0]}",
                          hint="write it again with --update --template=NAME --alias=NAME")
    config = load_config(file)
    admin_file = _first_file(path, ADMIN_FILES) if admin else None
    if admin_file is None:
        return Node(path, status, config)
    return Node(path, status, config, load_admin(
        admin_file, kind=FileKind.ADMIN, node=config.headers.alias,
        owners=(os.stat(path).st_uid,)))


def _first_file(path: str, names: tuple[str, ...]) -> str | None:
    return next((f"{path}/{name}" for name in names if os.path.lexists(f"{path}/{name}")), None)


def read_status(path: str) -> NodeStatus:
    """The status of the node at `path`. Raises RedpakError when there is none or it is faulty."""
    file = f"{path}/{STATUS_FILE}"
    if not os.path.lexists(file):
        if not os.path.isdir(path):
            raise RedpakError(f"{path} does not exist" if not os.path.lexists(path)
                              else f"{path} is not a directory", hint="check --redpath")
        raise RedpakError(f"{path} is not a node, it has no {STATUS_FILE}",
                          hint="make it one with red-manager --create --alias=NAME")
    reader = Reader(file)
    tree = parse_tree(read_text(file), file)
    values, _ = reader.read_entry(tree or Scalar("", 1, 1), "", STATUS_KEYS)
    if reader.findings:
        raise ConfigError(reader.findings)
    return NodeStatus(**values)


def write_status(path: str, status: NodeStatus) -> None:
    """Replace the status of the node at `path`. Raises RedpakError."""
    text = (f"state: {status.state.value}\nrealpath: {quote(status.realpath)}\n"
            f"timestamp: {status.timestamp}\ninfo: {quote(status.info)}\n")
    try:
        write_file_atomic(f"{path}/{STATUS_FILE}", text.encode())
    except OSError as error:
        raise RedpakError(f"cannot write {path}/{STATUS_FILE}: {error.strerror}") from error


def prove_node(path: str) -> None:
    """Note that the node at `path` has been proven coherent now: maxage counts from here.

    Raises RedpakError.
    """
    write_status(path, replace(read_status(path), timestamp=now_ms()))


def now_ms() -> int:
    """The time as statuses have it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
