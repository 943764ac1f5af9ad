# SPDX-License-Identifier: Apache-2.0
"""Expansion of $NAME and ${NAME}, and the names there are (design, section 5)."""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Mapping

from redpak.errors import TYPE_CHECKING
from redpak.osrelease import read_os_release
from redpak.values import dataclass

if TYPE_CHECKING:
    from redpak.family import Family
    from redpak.node import Node

UNDEFINED = "#undef:"
_NAME = re.compile(r"\\\$|\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


@dataclass(frozen=True)
class Caller:
    """Who calls and where; everything expansion takes from outside the configuration."""

    uid: int
    gid: int
    pid: int
    user: str
    hostname: str
    today: str  # YYYY-MM-DD
    uuid: str
    release: str = ""  # VERSION_ID of the core OS
    cgroups_mount_point: str = "/sys/fs/cgroup"

    @classmethod
    def current(cls) -> Caller:
        """The calling process."""
        uid = os.getuid()
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = str(uid)
        random = os.urandom(16).hex()
        # A random UUID, version 4 (RFC 9562, 5.4), without the cost of importing uuid.
        uuid = (f"{random[:8]}-{random[8:12]}-4{random[13:16]}-"
                f"{int(random[16], 16) & 3 | 8:x}{random[17:20]}-{random[20:]}")
        return cls(uid, os.getgid(), os.getpid(), user, os.uname().nodename,
                   time.strftime("%Y-%m-%d"), uuid,
                   read_os_release().get("VERSION_ID", ""))


def expand(text: str, names: Mapping[str, str]) -> str:
    """`text` with its names replaced, once: a value that has a $ itself is not looked at again.

    `\\$` is a literal dollar; an undefined name becomes #undef:NAME.
    """
    if "$" not in text:
        return text

    def replace(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        value = names.get(name)
        return UNDEFINED + name if value is None else value
    return _NAME.sub(replace, text)


def undefined_names(text: str, names: Mapping[str, str]) -> list[str]:
    """The names in `text` that mean nothing, each once."""
    if "$" not in text:
        return []
    asked = dict.fromkeys(found[1] or found[2] for found in _NAME.finditer(text))
    return [name for name in asked if name is not None and names.get(name) is None]


def expand_known(text: str, known: Mapping[str, str]) -> str:
    """`text` with the known names replaced by text that expands to their values; others stay."""
    def replace(found: re.Match[str]) -> str:
        value = known.get(found[1] or found[2] or "")
        return found[0] if value is None else literal(value)
    return _NAME.sub(replace, text)


def literal(text: str) -> str:
    """A text that expands to `text`."""
    return text.replace("$", "\\$")


def family_names(family: Family, *, environ: Mapping[str, str], caller: Caller) -> dict[str, str]:
    """The names that mean the same in every node of a family; they win over the environment."""
    leaf = family.leaf
    names = dict(environ)
    names.setdefault("NODE_PREFIX", "")
    names.setdefault("CGROUPS_MOUNT_POINT", caller.cgroups_mount_point)
    names.setdefault("REDPESK_VERSION", caller.release)
    names.update({
        "LEAF_ALIAS": leaf.alias,
        "LEAF_NAME": leaf.name,
        "LEAF_PATH": leaf.path,
        "LEAF_INFO": leaf.config.headers.info,
        "FAMILY_ALIASES": family_aliases(family),
        "UID": str(caller.uid),
        "GID": str(caller.gid),
        "PID": str(caller.pid),
        "USER": caller.user,
        "LOGNAME": caller.user,
        "HOSTNAME": caller.hostname,
        "TODAY": caller.today,
        "UUID": caller.uuid,
        "redpak_MAIN": family.main.file,
        "redpak_TMPL": environ.get("redpak_TMPL") or family.main.templates_dir,
    })
    return names


def node_names(family: Family, node: Node | None, *, environ: Mapping[str, str],
               caller: Caller) -> dict[str, str]:
    """Every name, for text that stands in `node`, or in redmain when that is None."""
    names = family_names(family, environ=environ, caller=caller)
    names.update(own_names(node))
    return names


def family_aliases(family: Family) -> str:
    """The aliases of the nodes, the oldest first; none has a colon."""
    return ":".join(node.alias for node in family.nodes)


def own_names(node: Node | None) -> dict[str, str]:
    """The names that mean the node itself; redmain's path is empty, so $NODE_PATH/usr is /usr."""
    if node is None:
        return {"NODE_ALIAS": "redmain", "NODE_NAME": "redmain", "NODE_PATH": "",
                "NODE_INFO": ""}
    return {
        "NODE_ALIAS": node.alias,
        "NODE_NAME": node.name,
        "NODE_PATH": node.path,
        "NODE_INFO": node.config.headers.info,
        "REDNODE_CONF": node.config_file,
        "REDNODE_ADMIN": node.admin_file,
        "REDNODE_STATUS": node.status_file,
        "REDNODE_VARDIR": node.rpmdb_dir,
        "REDNODE_REPODIR": node.repos_dir,
        "REDNODE_LOCK": f"{node.state_dir}/lock",
    }
