# SPDX-License-Identifier: Apache-2.0
"""What a merge gives: values, and where each of them came from."""

from __future__ import annotations

from collections.abc import Mapping

from redpak.errors import TYPE_CHECKING
from redpak.findings import Finding, Origin
from redpak.schema import Capability, EnvironMode, ExportMode, Tags
from redpak.values import dataclass, field

if TYPE_CHECKING:
    from typing import Any

BUILT_IN = Origin("built-in default", 0, 0, "redmain")


@dataclass(frozen=True)
class Overridden:
    """A value that did not become effective, and why."""

    origin: Origin
    value: str
    reason: str


@dataclass(frozen=True)
class Provenance:
    """Where a tag's value came from, and how it was written there.

    One origin and one written form; as many of both as elements where a tag cumulates.
    """

    origins: tuple[Origin, ...]
    written: tuple[Any, ...]
    overrode: tuple[Overridden, ...] = ()

    @property
    def origin(self) -> Origin:
        """The (first) place it came from."""
        return self.origins[0]


@dataclass(frozen=True)
class EffectiveExport:
    """One mount. `mount` and `path` are expanded, the command of an Execfd is not.

    Several entries with the same mount are layers of an overlay, the bottom one first.
    """

    mode: ExportMode
    mount: str
    path: str
    node: str  # alias, "redmain" for the core OS
    node_path: str  # empty for the core OS
    origin: Origin
    info: str = ""
    warn: str = ""
    optional: bool = False
    written: tuple[str, str] = ("", "")  # mount and path before their expansion
    overrode: tuple[Overridden, ...] = ()


@dataclass(frozen=True)
class EffectiveVariable:
    """One variable. `value` is expanded in mode Default, as written in Static and Execfd."""

    key: str
    value: str
    mode: EnvironMode
    node: str
    node_path: str
    origin: Origin
    info: str = ""
    warn: str = ""
    written: str = ""  # the value before its expansion
    overrode: tuple[Overridden, ...] = ()


@dataclass(frozen=True)
class EffectiveConfig:
    """The configuration of a family. Exports are in path order, parents before children."""

    exports: tuple[EffectiveExport, ...]
    environ: tuple[EffectiveVariable, ...]
    tags: Tags
    capabilities: tuple[Capability, ...]  # "all" first
    provenance: Mapping[str, Provenance]  # by key of the tag, "capabilities.CAP_..."
    names: Mapping[str, Mapping[str, str]]  # by alias: what Execfd commands get as environment
    used_names: frozenset[str]  # the names that some effective value depends on
    dropped: tuple[Overridden, ...] = ()  # entries that count for no one here
    warnings: tuple[Finding, ...] = field(default=())
