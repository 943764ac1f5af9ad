# SPDX-License-Identifier: Apache-2.0
"""What is checked: the nodes that were asked for, and those above them that they stand on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from redcheck.findings import RULES, Finding
from redcheck.rootfs import RootFs
from redpak import findings as config_findings
from redpak.errors import ConfigError, RedpakError
from redpak.family import (
    DEFAULT_CORE_RPMDB,
    MAIN_FILE,
    Family,
    Main,
    find_ancestors,
    find_descendants,
    load_main,
    resolve_redpath,
)
from redpak.load import REDMAIN
from redpak.node import ADMIN_FILES, CONFIG_FILES, STATUS_FILE, Node, is_node, read_node
from redpak.values import dataclass, field, replace

_USUAL_RPMDB = "var/lib/rpm"


@dataclass
class Layer:
    """The core OS, or a node, with what is below it in its family.

    ``path`` is where it is on this machine, ``inside`` on the checked one. ``node`` is None for
    the core OS, and for a node whose files cannot be read: ``faults`` say why. ``checked`` is
    false for one that only others stand on.
    """

    path: str
    inside: str
    alias: str
    parent: Layer | None
    rpmdb: str
    node: Node | None = None
    faults: Sequence[config_findings.Finding] = ()
    checked: bool = True
    children: list[str] = field(default_factory=list)  # paths of the nodes below
    # Where redpak and dnf keep what is theirs, relative to the node.
    own_directories: list[str] = field(default_factory=list)

    @property
    def is_core(self) -> bool:
        """Whether it is the core OS."""
        return self.parent is None

    @property
    def lineage(self) -> list[Layer]:
        """The core OS, the ancestors and this one."""
        above = self.parent.lineage if self.parent else []
        return [*above, self]

    @property
    def family_name(self) -> str:
        """The aliases of its nodes, oldest first."""
        return "/".join(layer.alias for layer in self.lineage if not layer.is_core)

    @property
    def is_readable(self) -> bool:
        """Whether its configuration, and that of each node above, could be read."""
        return not self.faults and (self.parent is None or self.parent.is_readable)

    def finding(self, rule: str, message: str, **where: object) -> Finding:
        """A finding in this layer."""
        return Finding(RULES[rule], self.inside, message, self.alias, self.family_name,
                       **where)  # type: ignore[arg-type]

    def config_finding(self, rule: str, fault: config_findings.Finding) -> Finding:
        """What redpak says of a configuration file, as a finding."""
        origin = fault.origin
        return self.finding(rule, fault.message, file=origin.file if origin else "",
                            line=origin.line if origin else 0, remedy=fault.hint)


@dataclass(frozen=True)
class Scope:
    """Everything that one check looks at: ``layers`` come after those that they stand on.

    ``top`` is the directory on this machine that was asked for.
    """

    root: RootFs
    top: str
    main: Main
    layers: Sequence[Layer]

    @property
    def core(self) -> Layer:
        """The core OS."""
        return self.layers[0]

    @property
    def checked(self) -> list[Layer]:
        """What is to be proven."""
        return [layer for layer in self.layers if layer.checked]

    def family(self, layer: Layer) -> Family:
        """The family of a readable node, with the paths that the checked machine knows."""
        nodes = [replace(member.node, path=member.inside)
                 for member in layer.lineage if member.node is not None]
        return Family(self.main, tuple(nodes))


@dataclass(frozen=True)
class Request:
    """What the command line asks for. ``wide`` is "" (the node alone), "family" or "tree"."""

    redpath: str | None
    rmain: str | None = None
    redroot: str | None = None
    wide: str = ""
    core: bool = False


def read_scope(request: Request, environ: Mapping[str, str],
               hold: Callable[[Sequence[str]], None]) -> Scope:
    """Find the layers of a request, and read their configurations.

    ``hold`` keeps the nodes as they are; it gets their paths before anything in them is read. A
    faulty node is a layer with faults. Raises RedpakError when there is nothing to check.
    """
    root = _read_root(request.redroot)
    main = _read_main(request, root, environ)
    top = find_top(request, environ)
    wide = "tree" if top == root.path else request.wide
    if wide != "tree" and not is_node(top):
        raise RedpakError(f"{top} is not a node",
                          hint="check --redpath, or say --tree to check what is below it")
    below = find_descendants(top) if wide == "tree" else []
    wanted = [*([top] if is_node(top) else []), *below]
    if not wanted:
        raise RedpakError(f"{top}: there is no node in it", hint="check --redpath and --redroot")
    above = [path for path in reversed(find_ancestors(wanted[0])) if root.has(path)]
    checked = {*wanted, *(above if wide == "family" else ())}
    core = Layer(root.path, "/", REDMAIN, None, _core_rpmdb(main, root),
                 checked=request.core or (root.is_image and wide != ""))
    layers = {root.path: core}
    hold([*above, *wanted])
    for path in [*above, *wanted]:
        parent = next((layers[step] for step in find_ancestors(path) if step in layers), core)
        layers[path] = _read_layer(path, root, parent, checked=path in checked)
    _find_children(list(layers.values()), wide)
    return Scope(root, top, main, list(layers.values()))


def _read_root(redroot: str | None) -> RootFs:
    if redroot is None:
        return RootFs("/")
    path = os.path.realpath(redroot)
    if not os.path.isdir(path):
        raise RedpakError(f"{redroot} is not a directory", hint="check --redroot")
    return RootFs(path)


def _read_main(request: Request, root: RootFs, environ: Mapping[str, str]) -> Main:
    if root.is_image and not request.rmain:
        return load_main(root.host(MAIN_FILE), {})
    return load_main(request.rmain, environ)


def find_top(request: Request, environ: Mapping[str, str]) -> str:
    """The directory on this machine that a request is about. Raises RedpakError."""
    root = _read_root(request.redroot)
    given = request.redpath if request.redpath is not None else environ.get("REDPATH")
    if not given and root.is_image:
        return root.path
    redpath = resolve_redpath(given, {})
    top = root.host(redpath).rstrip("/") if root.is_image else os.path.realpath(redpath)
    if not os.path.isdir(top):
        within = f" in {root.path}" if root.is_image else ""
        raise RedpakError(f"{redpath} does not exist{within}", hint="check --redpath")
    return top


def _core_rpmdb(main: Main, root: RootFs) -> str:
    setting = main.config.tags.rpmdir or DEFAULT_CORE_RPMDB
    if setting.startswith("/") or root.has(main.file):
        inside = setting if setting.startswith("/") else (
            f"{root.inside(os.path.dirname(main.file))}/{setting}")
        return root.host(os.path.normpath(inside))
    return main.rpmdb_dir


def _read_layer(path: str, root: RootFs, parent: Layer, *, checked: bool) -> Layer:
    inside = root.inside(path)
    # A faulty node does not say where its rpmdb is; nodes that stand on it need its packages.
    layer = Layer(path, inside, os.path.basename(path), parent,
                  root.host(f"{inside}/{_USUAL_RPMDB}"), checked=checked)
    try:
        for name in (STATUS_FILE, *CONFIG_FILES, *ADMIN_FILES):
            if not root.is_plain(f"{path}/{name}"):
                raise RedpakError(f"{inside}/{name} is, or lies behind, a symbolic link",
                                  hint="put a file in its place")
        node = read_node(path)
        own = (node.rpmdb_dir, node.persist_dir, node.cache_dir, node.log_dir)
    except ConfigError as error:
        layer.faults = error.findings
    except RedpakError as error:
        layer.faults = (config_findings.Finding(config_findings.Severity.ERROR, error.message,
                                                hint=error.hint),)
    else:
        layer.node, layer.alias = node, node.alias
        layer.rpmdb = root.host(root.inside(node.rpmdb_dir))
        layer.own_directories = [os.path.relpath(place, path) for place in own]
    return layer


def _find_children(layers: Sequence[Layer], wide: str) -> None:
    """Tell each layer which nodes lie below it: their files are not its own."""
    known = [layer.path for layer in layers if not layer.is_core]
    for layer in layers:
        if layer.is_core:
            layer.children = known
        elif layer.checked and wide == "tree":
            layer.children = [path for path in known if path.startswith(f"{layer.path}/")]
        elif layer.checked:
            layer.children = find_descendants(layer.path, lenient=True)
