# SPDX-License-Identifier: Apache-2.0
"""Families made from text, without a disk: the merge is a pure function."""

from __future__ import annotations

from collections.abc import Mapping

from redpak.effective import EffectiveConfig
from redpak.expand import Caller
from redpak.family import Family, Main
from redpak.load import REDMAIN, FileKind, load_text
from redpak.merge import merge_family
from redpak.node import Node, NodeState, NodeStatus
from redpak.schema import AdminConfig

CALLER = Caller(uid=1000, gid=100, pid=4242, user="ann", hostname="host", today="2026-01-31",
                uuid="0badcafe-0000-4000-8000-000000000000", release="9")
ALIASES = ("one", "two", "three", "four")


def make_family(*nodes: str, main: str = "", admins: Mapping[str, str] | None = None,
                user_admins: Mapping[str, str] | None = None) -> Family:
    """A family of nodes one, two, ..., each given by its sections besides the headers.

    `admins` (root's) and `user_admins` are administrative files by alias, "redmain" included.
    """
    files = {alias: AdminConfig(_load_admin(text, alias), 0)
             for alias, text in (admins or {}).items()}
    files.update({alias: AdminConfig(_load_admin(text, alias), 1000)
                  for alias, text in (user_admins or {}).items()})
    core = Main("/conf/main.yaml", load_text(main.encode(), "/conf/main.yaml",
                                             kind=FileKind.MAIN), files.get(REDMAIN))
    made = []
    path = "/pool"
    for alias, text in zip(ALIASES, nodes):
        path = f"{path}/{alias}"
        headers = f"headers: {{alias: {alias}, name: name-{alias}, info: the {alias}}}\n"
        made.append(Node(path, NodeStatus(NodeState.ENABLE, path, 0),
                         load_text((headers + text).encode(), f"{path}/etc/redpack.yaml"),
                         files.get(alias)))
    return Family(core, tuple(made))


def _load_admin(text: str, alias: str):  # type: ignore[no-untyped-def]
    kind = FileKind.MAIN_ADMIN if alias == REDMAIN else FileKind.ADMIN
    return load_text(text.encode(), f"/admin/{alias}.yaml", kind=kind, node=alias)


def merge(family: Family, *, strict: bool = False, **environ: str) -> EffectiveConfig:
    """The effective configuration for the caller of these tests."""
    return merge_family(family, environ=environ, caller=CALLER, strict=strict)


def mounts(effective: EffectiveConfig) -> list[tuple[str, str, str, str]]:
    """(mount, mode, path, node) of each export, in order."""
    return [(export.mount, export.mode.value, export.path, export.node)
            for export in effective.exports]


def variables(effective: EffectiveConfig) -> list[tuple[str, str, str, str]]:
    """(key, mode, value, node) of each variable, in order."""
    return [(variable.key, variable.mode.value, variable.value, variable.node)
            for variable in effective.environ]
