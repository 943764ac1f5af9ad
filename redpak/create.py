# SPDX-License-Identifier: Apache-2.0
"""Making nodes, giving them another template, and changing their state.

Everything is checked before the first change to the disk; the status file, which makes a directory
a node, is written last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from redpak.errors import RedpakError
from redpak.expand import Caller, expand, node_names
from redpak.family import (
    Family,
    Main,
    check_node,
    check_unique,
    find_ancestors,
    find_descendants,
    read_nodes,
    resolve_redpath,
)
from redpak.files import write_file_atomic
from redpak.kinds import ALIAS_KIND, LINE, RESERVED_ALIASES, TEXT, BadValue
from redpak.load import FileKind, load_text
from redpak.node import (
    ADMIN_FILES,
    CLOSED_DIRECTORIES,
    CONFIG_FILES,
    STATUS_FILE,
    Node,
    NodeState,
    NodeStatus,
    is_node,
    now_ms,
    read_node,
    read_status,
    write_status,
)
from redpak.schema import ExportMode, Headers, NodeConfig
from redpak.templates import Template, find_template, read_template, template_of, write_headers
from redpak.undo import Undo
from redpak.values import replace

DEFAULT_TEMPLATE = "default"


def create_node(path: str, *, alias: str, main: Main, template: str = DEFAULT_TEMPLATE,
                template_admin: str | None = None, name: str | None = None,
                info: str | None = None, force: bool = False, undo: Undo | None = None,
                environ: Mapping[str, str] | None = None, caller: Caller | None = None) -> Node:
    """Make the directory `path` a node. `force` passes over ancestors that are not enabled.

    Missing directories are made, those that the template exports included. `undo` can take it all
    back. Raises RedpakError and ConfigError, with nothing changed.
    """
    environ = os.environ if environ is None else environ
    caller = caller or Caller.current()
    path = os.path.realpath(resolve_redpath(path, {}))
    place = path
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise RedpakError(f"{place} is not a directory", hint="choose another redpath")
    if path == "/" or path.startswith(("/proc/", "/sys/")):
        raise RedpakError(f"{path} cannot be a node", hint="choose a directory of its own")
    if is_node(path):
        raise RedpakError(f"{path} is a node already", hint="say --update to change it")
    source = read_template(find_template(template, main=main, environ=environ))
    admin_source = template_admin and read_template(
        find_template(template_admin, main=main, environ=environ, admin=True))
    headers = _make_headers(alias, name or caller.uuid, info, source, environ, caller)
    node = _planned_node(path, headers, source)
    ancestors = read_nodes(reversed(find_ancestors(path)))
    for ancestor in ancestors:
        check_node(ancestor, force=force)
    _check_place(path, ancestors)
    descendants = find_descendants(path) if os.path.isdir(path) else []
    for descendant in descendants:
        check_unique([*ancestors, node, read_node(descendant)], new=node)
    check_unique([*ancestors, node], new=node)
    if name:
        _check_name(node, ancestors)
    return _write_node(Family(main, (*ancestors, node)), _config_text(headers, source),
                       admin_source or None, environ, caller, undo or Undo())


def restore_node(path: str, config: bytes, *, main: Main, info: str = "",
                 environ: Mapping[str, str] | None = None, caller: Caller | None = None) -> Node:
    """Make the directory `path` a node with exactly this configuration, headers included.

    Its state is Disable, with `info`: the caller enables it when the rest of it is there. Ancestors
    may be in any state. Raises RedpakError and ConfigError, with nothing changed.
    """
    environ = os.environ if environ is None else environ
    caller = caller or Caller.current()
    path = os.path.realpath(resolve_redpath(path, {}))
    if is_node(path):
        raise RedpakError(f"{path} is a node already", hint="remove it, or choose another redpath")
    parsed = load_text(config, f"{path}/{CONFIG_FILES[0]}", kind=FileKind.NODE)
    node = Node(path, NodeStatus(NodeState.DISABLE, path, now_ms(), info), parsed)
    ancestors = read_nodes(reversed(find_ancestors(path)))
    _check_place(path, ancestors)
    check_unique([*ancestors, node])
    _check_name(node, ancestors)
    return _write_node(Family(main, (*ancestors, node)), config, None, environ, caller, Undo())


def update_node(path: str, *, main: Main, template: str | None = None,
                template_admin: str | None = None, alias: str | None = None,
                name: str | None = None, info: str | None = None,
                environ: Mapping[str, str] | None = None,
                caller: Caller | None = None) -> Node:
    """Accept where the node is now, and write its configuration again if there is a template.

    The headers stay, but for what is given: a copy of a node needs another name. So do the state,
    and when it was proven coherent. Raises RedpakError and ConfigError, with nothing changed.
    """
    environ = os.environ if environ is None else environ
    caller = caller or Caller.current()
    path = os.path.realpath(resolve_redpath(path, {}))
    old = read_node(path)
    headers = replace(old.config.headers, **{
        key: value for key, value in (("alias", _check_alias(alias)), ("name", name),
                                      ("info", info)) if value is not None})
    ancestors = read_nodes(reversed(find_ancestors(path)))
    source = read_template(find_template(template, main=main, environ=environ)) if (
        template) else None
    admin_source = read_template(find_template(template_admin, main=main, environ=environ,
                                               admin=True)) if template_admin else None
    if source is None and headers != old.config.headers:
        source = template_of(old)
    node = replace(old if source is None else _planned_node(path, headers, source),
                   status=replace(old.status, realpath=path))
    for descendant in find_descendants(path):
        check_unique([*ancestors, node, read_node(descendant)], new=node)
    check_unique([*ancestors, node], new=node)
    if name or old.status.realpath != path:
        _check_name(node, ancestors, old.status.realpath)
    if source is not None or admin_source is not None:
        config = None if source is None else _config_text(headers, source)
        return _write_node(Family(main, (*ancestors, node)), config, admin_source, environ, caller,
                           Undo())
    write_status(path, node.status)
    return read_node(path)


def _check_name(node: Node, ancestors: Sequence[Node], *others: str) -> None:
    """Raise RedpakError when another node of the tree, or one of `others`, has the node's name."""
    root = ancestors[0].path if ancestors else node.path
    paths = {root, *(find_descendants(root) if os.path.isdir(root) else ()), *others}
    for path in sorted(paths - {node.path}):
        try:
            other = read_node(path)
        except RedpakError:
            continue  # it is no node, or its own fault is for others to tell
        if other.name == node.name:
            raise RedpakError(f"the name {node.name} belongs to {other.path} already",
                              hint="say --name=NAME, with a name that nobody else has")


def set_state(path: str, state: NodeState, *, info: str = "") -> Node:
    """Change a node's state. Raises RedpakError; `path` must be a node."""
    path = os.path.realpath(resolve_redpath(path, {}))
    status = read_status(path)
    write_status(path, replace(status, state=state, info=info))
    return read_node(path)


def node_files(path: str) -> list[str]:
    """What redpak itself writes to say what a node is: its configuration and status."""
    return [f"{path}/{name}" for name in (*CONFIG_FILES, *ADMIN_FILES, STATUS_FILE)]


def _check_alias(alias: str | None) -> str | None:
    if alias is None:
        return None
    if alias in RESERVED_ALIASES:
        raise RedpakError(f'the alias "{alias}" is reserved', hint="choose another")
    try:
        return str(ALIAS_KIND.parse(alias))
    except BadValue as error:
        raise RedpakError(f'"{alias}" is not an alias', hint=error.hint) from error


def _make_headers(alias: str, name: str, info: str | None, source: Template,
                  environ: Mapping[str, str], caller: Caller) -> Headers:
    checked = _check_alias(alias) or ""
    if info is None:
        names = {**environ, "USER": caller.user, "LOGNAME": caller.user, "NODE_ALIAS": checked,
                 "HOSTNAME": caller.hostname, "TODAY": caller.today}
        info = expand(source.config.headers.info, names)
    try:
        LINE.parse(name)
        TEXT.parse(info)
    except BadValue as error:
        raise RedpakError(f"the name or info of {checked} {error}", hint="remove it") from error
    return Headers(checked, name, info)


def _planned_node(path: str, headers: Headers, source: Template) -> Node:
    """The node as it will be read back; it is parsed, so that what is written is sure to load."""
    file = f"{path}/{CONFIG_FILES[0]}"
    data = _config_text(headers, source)
    return Node(path, NodeStatus(NodeState.ENABLE, path, now_ms()),
                load_text(data, file, kind=FileKind.NODE))


def _config_text(headers: Headers, source: Template) -> bytes:
    return (write_headers(headers) + "\n" + source.text.lstrip("\n")).encode()


def _check_place(path: str, ancestors: list[Node]) -> None:
    for ancestor in ancestors:
        top = path[len(ancestor.path) + 1:].split("/")[0]
        if top in CLOSED_DIRECTORIES:
            raise RedpakError(f"{path} is in {top}/ of node {ancestor.alias} ({ancestor.path}), "
                              "where no node can be", hint=f"use {ancestor.path}/NAME")


def _write_node(family: Family, config: bytes | None, admin_source: Template | None,
                environ: Mapping[str, str], caller: Caller, undo: Undo) -> Node:
    node = family.leaf
    try:
        with undo:
            undo.keep(node_files(node.path))
            for directory in _directories(family, environ, caller):
                undo.make_directory(directory)
            if any(export.mount == "/var" for export in node.config.exports):
                _make_var(f"{node.path}/var")
            if config is not None:
                write_file_atomic(f"{node.path}/{CONFIG_FILES[0]}", config)
            if admin_source is not None:
                write_file_atomic(f"{node.path}/{ADMIN_FILES[0]}", admin_source.text.encode())
            write_status(node.path, node.status)
    except OSError as error:
        raise RedpakError(f"cannot write {error.filename or node.path}: {error.strerror}",
                          hint="check the owner and permissions of the directory") from error
    return read_node(node.path)


def _make_var(path: str) -> None:
    """What a /var has on every system, for nodes whose own appears there: whoever runs an
    application may not be able to make it."""
    if not os.path.lexists(f"{path}/tmp"):
        os.mkdir(f"{path}/tmp")
        os.chmod(f"{path}/tmp", 0o1777)
    if not os.path.lexists(f"{path}/run"):
        os.symlink("/run", f"{path}/run")


def _directories(family: Family, environ: Mapping[str, str], caller: Caller) -> list[str]:
    """What the node needs to exist: its own places, and each directory that it exports."""
    node = family.leaf
    names = node_names(family, node, environ=environ, caller=caller)
    places = [node.path, f"{node.path}/usr", f"{node.path}/etc", node.rpmdb_dir, node.repos_dir,
              node.vars_dir, node.persist_dir, node.cache_dir, node.log_dir, node.private_dir,
              node.state_dir]
    for source in _exported(node.config):
        place = os.path.normpath(expand(source, names))
        if place.startswith(node.path + "/") and place not in places:
            places.append(place)
    return places


def _exported(config: NodeConfig) -> list[str]:
    return [export.path or export.mount for export in config.exports
            if (export.mode.is_bind or export.mode is ExportMode.OVERLAY
                or export.mode is ExportMode.OVERLAY_PRIVATE)
            and not export.mode.is_file and not export.optional]
