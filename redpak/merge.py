# SPDX-License-Identifier: Apache-2.0
"""A family's configurations -> the effective one: a pure function of what was loaded.

The rules are the Merge table of the design. Everything is a matter of the order in which layers
speak: `_Layers.by_precedence` is the order in which the first to set something wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from redpak.effective import (
    EffectiveConfig,
    EffectiveExport,
    EffectiveVariable,
    Overridden,
)
from redpak.errors import ConfigError
from redpak.expand import Caller, expand, family_names, own_names, undefined_names
from redpak.family import Family
from redpak.findings import Finding, Origin, Severity
from redpak.kinds import BadValue, check_path
from redpak.load import REDMAIN
from redpak.merge_tags import Speaker, merge_tags
from redpak.schema import EnvironMode, Export, ExportMode, NodeConfig, Variable
from redpak.values import dataclass, replace


@dataclass(frozen=True)
class _Layer:
    """One file's contribution. `rank` is the age in the family: 0 redmain, 1 the oldest node."""

    config: NodeConfig
    rank: int
    alias: str
    node_path: str
    names: Mapping[str, str]
    is_admin: bool = False
    may_loosen: bool = False


class Recorder(dict[str, str]):
    """Names that note which of them were asked for: an expansion depends on these only."""

    def __init__(self, names: Mapping[str, str], used: set[str]) -> None:
        super().__init__(names)
        self.used = used

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """The value of a name; noted, defined or not."""
        self.used.add(key)
        return super().get(key, default)


def merge_family(family: Family, *, environ: Mapping[str, str], caller: Caller,
                 strict: bool = False) -> EffectiveConfig:
    """The effective configuration of a family.

    Raises ConfigError with every value that cannot be expanded, and, when strict, with every
    attempt to loosen a constraint; those are warnings otherwise.
    """
    return _Merger(family, environ, caller).merge(strict=strict)


class _Merger:
    def __init__(self, family: Family, environ: Mapping[str, str], caller: Caller) -> None:
        self.used: set[str] = set()
        self.findings: list[Finding] = []
        self.dropped: list[Overridden] = []
        shared = family_names(family, environ=environ, caller=caller)
        redmain = Recorder({**shared, **own_names(None)}, self.used)
        nodes = [(rank, node, Recorder({**shared, **own_names(node)}, self.used))
                 for rank, node in enumerate(family.nodes, 1)]
        main = family.main
        self.names = {REDMAIN: redmain, **{node.alias: names for _, node, names in nodes}}
        self.redmain = _Layer(main.config, 0, REDMAIN, "", redmain)
        self.nodes = [_Layer(node.config, rank, node.alias, node.path, names)
                      for rank, node, names in nodes]
        self.admins = [] if main.admin is None else [
            _Layer(main.admin.config, 0, REDMAIN, "", redmain, True, main.admin.may_loosen)]
        self.admins += [
            _Layer(node.admin.config, rank, node.alias, node.path, names, True,
                   node.admin.may_loosen)
            for rank, node, names in nodes if node.admin is not None]
        self.leaf_rank = len(nodes)
        self.by_precedence = (*self.admins, *self.nodes, self.redmain)

    def merge(self, *, strict: bool) -> EffectiveConfig:
        exports = self._merge_exports()
        environ = self._merge_environ()
        tags = merge_tags(
            enforce=[Speaker(layer.config.enforce, layer.rank, layer.alias, layer.names)
                     for layer in (self.redmain, *self.admins) if layer.rank == 0],
            admins=[self._speaker(layer) for layer in self.admins if layer.may_loosen],
            user_admins=[self._speaker(layer) for layer in self.admins if not layer.may_loosen],
            nodes=[self._speaker(layer) for layer in self.nodes],
            redmain=self._speaker(self.redmain))
        self.findings += tags.findings
        errors = [finding for finding in self.findings if finding.severity is Severity.ERROR]
        if strict:
            errors += tags.violations
        if errors:
            raise ConfigError(errors)
        return EffectiveConfig(
            exports=tuple(exports), environ=tuple(environ), tags=tags.tags,
            capabilities=tags.capabilities, provenance=tags.provenance,
            names={alias: dict(names) for alias, names in self.names.items()},
            used_names=frozenset(self.used), dropped=tuple(self.dropped),
            warnings=(*self.findings, *tags.violations))

    @staticmethod
    def _speaker(layer: _Layer) -> Speaker:
        return Speaker(layer.config.settings, layer.rank, layer.alias, layer.names)

    def _fault(self, message: str, origin: Origin, key: str, hint: str) -> None:
        self.findings.append(Finding(Severity.ERROR, f"{key}: {message}", origin, key, hint))

    def _warn(self, message: str, origin: Origin, key: str, hint: str = "") -> None:
        self.findings.append(Finding(Severity.WARNING, f"{key}: {message}", origin, key, hint))

    # -- exports ----------------------------------------------------------------------------

    def _merge_exports(self) -> list[EffectiveExport]:
        first_rank = self._first_inherited_rank()
        mounts: dict[str, list[tuple[_Layer, EffectiveExport]]] = {}
        for layer in self.by_precedence:
            for export in layer.config.exports:
                reason = self._why_not(export, layer, first_rank)
                if reason:
                    self._drop(export.origin, f"{export.mode.value} {export.mount}", reason)
                    continue
                expanded = self._expand_export(export, layer)
                if expanded is not None:
                    self._place(mounts.setdefault(expanded.mount, []), layer, expanded)
        chosen = []
        for stack in mounts.values():
            # The sort is stable: of one node, the admin file's layers stay before the normal ones.
            chosen += [export for _, export in sorted(stack, key=lambda entry: entry[0].rank)]
        return sorted(chosen, key=lambda export: export.mount.split("/"))

    def _first_inherited_rank(self) -> int:
        """The rank of the youngest node that says `inherit: false`: older ones export nothing."""
        # Of one node, what its administrative file says counts.
        said = {layer.rank: layer.config.tags.inherit for layer in (*self.nodes, *self.admins)
                if layer.config.tags.inherit is not None}
        return max((rank for rank, inherits in said.items() if not inherits), default=0)

    def _why_not(self, export: Export, layer: _Layer, first_rank: int) -> str:
        if 0 < layer.rank < self.leaf_rank and export.mode.is_private:
            return "private to its node, which is not the leaf"
        if 0 < layer.rank < first_rank:
            return f"{self.nodes[first_rank - 1].alias} does not inherit its ancestors' exports"
        return ""

    def _drop(self, origin: Origin, value: str, reason: str) -> None:
        self.dropped.append(Overridden(origin, value, reason))

    def _expand_export(self, export: Export, layer: _Layer) -> EffectiveExport | None:
        mode = export.mode
        mount = self._expand_path(export.mount, export.origin, layer, "exports.mount")
        path = export.path
        if mount is None:
            return None
        if not mount.strip("/"):
            self._fault("nothing can be mounted over the root itself", export.origin,
                        "exports.mount", "export the directories below it")
            return None
        if mode.is_bind or mode.is_overlay:
            source = self._expand_path(path, export.origin, layer, "exports.path") if (
                path) else mount
            if source is None:
                return None
            path = source
        elif mode is not ExportMode.EXECFD:
            path = expand(path, layer.names)
            if not self._is_defined(export.path, layer, export.origin, "exports.path"):
                return None
        if mode is ExportMode.OVERLAY_PRIVATE and layer.rank < self.leaf_rank:
            mode = ExportMode.OVERLAY  # children see its layers, and write in their own
        return EffectiveExport(mode, mount, path, layer.alias, layer.node_path, export.origin,
                               export.info, export.warn, export.optional,
                               (export.mount, export.path))

    def _is_defined(self, text: str, layer: _Layer, origin: Origin, key: str) -> bool:
        missing = undefined_names(text, layer.names)
        for name in missing:
            self._fault(f'${name} in "{text}" is not defined', origin, key,
                        f"set {name} in the environment, or write \\$ for a dollar sign")
        return not missing

    def _expand_path(self, text: str, origin: Origin, layer: _Layer, key: str) -> str | None:
        if not self._is_defined(text, layer, origin, key):
            return None
        path = expand(text, layer.names)
        try:
            check_path(path)
        except BadValue as error:
            self._fault(f'"{text}" expands to {path!r}, which {error}', origin, key, error.hint)
            return None
        if not path.startswith("/"):
            self._fault(f'"{text}" expands to {path!r}, which is not absolute', origin, key,
                        "start it with / or $NODE_PATH")
            return None
        return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))

    def _place(self, stack: list[tuple[_Layer, EffectiveExport]], layer: _Layer,
               export: EffectiveExport) -> None:
        """Put an export on the stack of its mount, where it is first, stacks, or loses."""
        if not stack:
            stack.append((layer, export))
            return
        winning_layer, winner = stack[0]
        if winner.mode.is_overlay and layer is self.redmain and export.mode.is_bind:
            export = replace(export, mode=ExportMode.OVERLAY)  # the core OS, at the bottom
        if winner.mode.is_overlay and export.mode.is_overlay:
            self._stack(stack, layer, export)
            return
        reason = _why_loses(winning_layer, layer)
        value = f"{export.mode.value} {export.path}"
        lost = Overridden(export.origin, value, reason)
        stack[0] = (winning_layer, replace(winner, overrode=(*winner.overrode, lost)))
        identical = (winner.mode, winner.path) == (export.mode, export.path)
        if not identical and not layer.is_admin and not winning_layer.is_admin and layer.rank:
            self._warn(f"{export.mount} of {export.node} is dropped, {winner.node} mounts it "
                       f"already ({winner.origin})", export.origin, "exports.mount",
                       "use another mount point")

    @staticmethod
    def _stack(stack: list[tuple[_Layer, EffectiveExport]], layer: _Layer,
               export: EffectiveExport) -> None:
        """Add a layer to an overlay. Of a directory that is there twice only the upper one shows:
        the younger, which may be the one that makes the overlay writable."""
        for number, (below, other) in enumerate(stack):
            if other.path == export.path:
                if below.rank < layer.rank:
                    stack[number] = layer, replace(export, overrode=other.overrode)
                return
        stack.append((layer, export))

    # -- environ ----------------------------------------------------------------------------

    def _merge_environ(self) -> Iterable[EffectiveVariable]:
        variables: dict[str, tuple[_Layer, EffectiveVariable]] = {}
        for layer in self.by_precedence:
            for variable in layer.config.environ:
                expanded = self._expand_variable(variable, layer)
                known = variables.get(variable.key)
                if known is None:
                    variables[variable.key] = layer, expanded
                    continue
                winning_layer, winner = known
                lost = Overridden(variable.origin, f"{variable.mode.value} {expanded.value}",
                                  _why_loses(winning_layer, layer))
                variables[variable.key] = winning_layer, replace(
                    winner, overrode=(*winner.overrode, lost))
                identical = (winner.mode, winner.value) == (expanded.mode, expanded.value)
                if not (identical or layer.is_admin or winning_layer.is_admin) and layer.rank:
                    self._warn(f"{variable.key} of {layer.alias} is dropped, {winner.node} sets "
                               f"it already ({winner.origin})", variable.origin, "environ.key")
        return [variable for _, (_, variable) in sorted(variables.items())]

    def _expand_variable(self, variable: Variable, layer: _Layer) -> EffectiveVariable:
        value = variable.value
        if variable.mode is EnvironMode.DEFAULT:
            value = expand(value, layer.names)
            for name in undefined_names(variable.value, layer.names):
                self._warn(f"{variable.key}: ${name} is not defined", variable.origin,
                           "environ.value", f"set {name}, or write \\$ for a dollar sign")
        return EffectiveVariable(variable.key, value, variable.mode, layer.alias,
                                 layer.node_path, variable.origin, variable.info, variable.warn,
                                 variable.value)


def _why_loses(winner: _Layer, loser: _Layer) -> str:
    if winner.is_admin and not loser.is_admin:
        return f"the administrative setting of {winner.alias} wins"
    if loser.rank == 0:
        return f"{winner.alias} wins over the default of redmain"
    return f"{winner.alias} is older and wins"
