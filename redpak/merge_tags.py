# SPDX-License-Identifier: Apache-2.0
"""The merge of `config` and `enforce`: plain tags, constraints, paths and capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from redpak.effective import BUILT_IN, Overridden, Provenance
from redpak.errors import TYPE_CHECKING
from redpak.expand import expand, undefined_names
from redpak.findings import Finding, Origin, Severity
from redpak.kinds import CAPABILITIES, BadValue, Share, ShareState, check_path
from redpak.schema import (
    NAMESPACES,
    TAGS,
    Capability,
    CapabilityAction,
    Rule,
    Settings,
    Tag,
    Tags,
)
from redpak.values import dataclass, replace

if TYPE_CHECKING:
    from typing import Any

_SHARES = frozenset(f"share_{namespace}" for namespace in NAMESPACES)


@dataclass(frozen=True)
class Speaker:
    """Who says something about tags: one section of one file, with the names it expands with."""

    settings: Settings
    rank: int  # age in the family, 0 is redmain
    alias: str
    names: Mapping[str, str]


@dataclass(frozen=True)
class Statement:
    """What one speaker says about one thing."""

    value: Any
    origin: Origin
    text: str
    written: Any  # the value before its expansion
    places: tuple[Origin, ...] = ()  # of each element, where the value is a list


@dataclass(frozen=True)
class MergedTags:
    """The effective tags; `violations` are the attempts to loosen a constraint."""

    tags: Tags
    capabilities: tuple[Capability, ...]
    provenance: Mapping[str, Provenance]
    findings: tuple[Finding, ...]
    violations: tuple[Finding, ...]


def merge_tags(*, enforce: Sequence[Speaker], admins: Sequence[Speaker],
               user_admins: Sequence[Speaker], nodes: Sequence[Speaker],
               redmain: Speaker) -> MergedTags:
    """The effective tags. Each sequence is oldest first.

    `admins` belong to root and may loosen what `nodes` say; `user_admins` may not.
    """
    return _TagMerger(enforce, admins, user_admins, nodes, redmain).merge()


class _TagMerger:
    def __init__(self, enforce: Sequence[Speaker], admins: Sequence[Speaker],
                 user_admins: Sequence[Speaker], nodes: Sequence[Speaker],
                 redmain: Speaker) -> None:
        self.enforce = enforce
        self.admins = admins
        self.user_admins = user_admins
        self.nodes = nodes
        self.redmain = redmain
        self.everyone = (*enforce, *admins, *user_admins, *nodes, redmain)
        self.findings: list[Finding] = []
        self.violations: dict[tuple[Origin, Origin], Finding] = {}
        self.provenance: dict[str, Provenance] = {}

    def merge(self) -> MergedTags:
        values: dict[str, Any] = {}
        by_rule: dict[Rule, Callable[[Tag], Any]] = {
            Rule.OLDEST: self._oldest, Rule.TIGHTEN: self._tightest,
            Rule.CUMULATE: self._cumulate}
        spoken_of = self._spoken_of()
        for tag in TAGS:
            if tag.rule is not Rule.OWN:
                # Of most tags nobody says anything.
                value = (by_rule[tag.rule](tag) if tag.attribute in spoken_of
                         else self._settle(tag, None, []))
                if value is not None:
                    values[tag.attribute] = value
        capabilities = tuple(self._capabilities())
        self._check_pid(Tags(**values))
        return MergedTags(Tags(**values), capabilities, self.provenance, tuple(self.findings),
                          tuple(self.violations.values()))

    def _check_pid(self, tags: Tags) -> None:
        """Nobody can join a pid namespace from a new user namespace, root neither: setns(2)."""
        user = tags.share_user or tags.share_all
        if (tags.share_pid is not None and tags.share_pid.state is ShareState.JOIN
                and (user is None or user.state is ShareState.DISABLED)):
            self.findings.append(Finding(
                Severity.WARNING, f"config.share_pid: {tags.share_pid.path} cannot be joined from "
                "a new user namespace", self.provenance["share_pid"].origin, "config.share_pid",
                "say share_user: enabled, or the user namespace that it was made in"))

    # -- what a speaker says ----------------------------------------------------------------

    def _spoken_of(self) -> set[str]:
        """The attributes of all tags that somebody says something about."""
        spoken_of = {name for speaker in self.everyone
                     for name, value in vars(speaker.settings.tags).items()
                     if value is not None and value != ()}
        return spoken_of | _SHARES if "share_all" in spoken_of else spoken_of

    def _say(self, speaker: Speaker, tag: Tag) -> Statement | None:
        settings = speaker.settings
        value, key = getattr(settings.tags, tag.attribute), tag.key
        if value is None and key in _SHARES:
            value, key = settings.tags.share_all, "share_all"
        if value is None or value == ():
            return None
        places, written = settings.origins[key], value
        origin = places[0]
        if tag.expands:
            value = self._expand(value, speaker, tag, origin)
            if value is None:
                return None
        return Statement(value, origin, _write(value, tag), written, places)

    def _expand(self, value: Any, speaker: Speaker, tag: Tag, origin: Origin) -> Any:
        if isinstance(value, tuple):
            expanded = tuple(self._expand(part, speaker, tag, origin) for part in value)
            return None if None in expanded else expanded
        if isinstance(value, Share):
            if not value.path:
                return value
            path = self._expand(value.path, speaker, tag, origin)
            return None if path is None else replace(value, path=path)
        missing = undefined_names(value, speaker.names)
        text = expand(value, speaker.names)
        problem, hint = "", ""
        if missing:
            problem = f"where ${missing[0]} is not defined"
            hint = f"set {missing[0]} in the environment, or write \\$ for a dollar sign"
        elif tag.kind.name in ("path", "share", "seccomp"):
            try:
                check_path(text)
            except BadValue as error:
                problem, hint = f"which {error}", error.hint
        if problem:
            self.findings.append(Finding(
                Severity.ERROR, f'config.{tag.key}: "{value}" expands to {text!r}, {problem}',
                origin, tag.key, hint))
            return None
        return text

    def _statements(self, speakers: Iterable[Speaker], tag: Tag) -> list[Statement]:
        said = [self._say(speaker, tag) for speaker in speakers]
        return [statement for statement in said if statement is not None]

    # -- the rules --------------------------------------------------------------------------

    def _oldest(self, tag: Tag) -> Any:
        admins = sorted((*self.admins, *self.user_admins), key=lambda speaker: speaker.rank)
        said = self._statements((*self.enforce, *admins, *self.nodes), tag)
        defaults = self._statements((self.redmain,), tag)
        if not said:
            return self._settle(tag, defaults[0] if defaults else None, [])
        node = said[0].origin.node
        return self._settle(tag, said[0], [
            *(Overridden(lost.origin, lost.text, f"{node} wins") for lost in said[1:]),
            *(_lost_default(node, lost) for lost in defaults)])

    def _settle(self, tag: Tag, statement: Statement | None, overrode: list[Overridden]) -> Any:
        """Note the provenance and give the value: the statement's, else the tag's default."""
        if statement is not None:
            self.provenance[tag.key] = Provenance((statement.origin,), (statement.written,),
                                                  tuple(overrode))
            return statement.value
        if tag.default is not None:
            self.provenance[tag.key] = Provenance((BUILT_IN,), (tag.default,))
        return tag.default

    def _tightest(self, tag: Tag) -> Any:
        assert tag.tighten is not None
        statement, overrode = self._tighten(
            f"config.{tag.key}", lambda speakers: self._statements(speakers, tag), tag.tighten,
            lambda value: _write(value, tag))
        return self._settle(tag, statement, overrode)

    def _tighten(self, key: str, say: Callable[[Iterable[Speaker]], list[Statement]],
                 tighten: Callable[[Any, Any], tuple[Any, bool]],
                 write: Callable[[Any], str]) -> tuple[Statement | None, list[Overridden]]:
        overrode: list[Overridden] = []
        chain = say(self.enforce)
        admins, nodes, user_admins = say(self.admins), say(self.nodes), say(self.user_admins)
        if admins:
            overrode += [Overridden(lost.origin, lost.text, "the administrative setting of "
                                    f"{admins[0].origin.node} wins") for lost in nodes]
        chain += (admins or nodes) + user_admins
        defaults = say((self.redmain,))
        if not chain:
            return (defaults[0] if defaults else None), overrode
        held = chain[0]
        for wanted in chain[1:]:
            value, loosened = tighten(held.value, wanted.value)
            if loosened:
                # By two places: one line about all namespaces is one violation, not seven.
                self.violations.setdefault((wanted.origin, held.origin), Finding(
                    Severity.WARNING, f"{key}: {wanted.origin.node} cannot loosen {held.text}, "
                    f"which {held.origin.node} sets ({held.origin}), to {wanted.text}",
                    wanted.origin, key, "remove it"))
                overrode.append(Overridden(wanted.origin, wanted.text, "would loosen a "
                                           f"constraint of {held.origin.node}"))
            if value != held.value:
                overrode.append(Overridden(held.origin, held.text,
                                           f"{wanted.origin.node} tightens it"))
                written = wanted.written if value == wanted.value else value
                held = Statement(value, wanted.origin, write(value), written)
        overrode += [_lost_default(held.origin.node, lost) for lost in defaults]
        return held, overrode

    def _cumulate(self, tag: Tag) -> tuple[str, ...]:
        by_age = sorted((*self.enforce, *self.admins, *self.user_admins, *self.nodes),
                        key=lambda speaker: -speaker.rank)
        kept: dict[str, tuple[Origin, str]] = {}
        dropped = []
        for statement in self._statements((*by_age, self.redmain), tag):
            for value, written, origin in zip(statement.value, statement.written,
                                              statement.places):
                if value in kept:
                    dropped.append(Overridden(origin, value, "is there already"))
                else:
                    kept[value] = origin, written
        if kept:
            self.provenance[tag.key] = Provenance(
                tuple(origin for origin, _ in kept.values()),
                tuple(written for _, written in kept.values()), tuple(dropped))
        return tuple(kept)

    def _capabilities(self) -> Iterable[Capability]:
        named = {capability.cap for speaker in self.everyone
                 for capability in speaker.settings.capabilities}
        for cap in ("all", *CAPABILITIES):
            if cap not in named:
                continue
            key = f"capabilities.{cap}"
            held, overrode = self._tighten(
                f"config.{key}", partial(_say_capability, cap), _keep_dropped,
                lambda value: str(value.action.value))
            if held is not None:
                self.provenance[key] = Provenance((held.origin,), (held.written,), tuple(overrode))
                yield replace(held.value, cap=cap)


def _lost_default(winner: str, lost: Statement) -> Overridden:
    return Overridden(lost.origin, lost.text, f"{winner} wins over the default of redmain")


def _write(value: Any, tag: Tag) -> str:
    if isinstance(value, tuple):
        return ", ".join(tag.kind.write(part) for part in value)
    return tag.kind.write(value)


def _say_capability(cap: str, speakers: Iterable[Speaker]) -> list[Statement]:
    """What speakers say of a capability: of itself, else of all."""
    statements = []
    for speaker in speakers:
        said = {capability.cap: capability for capability in speaker.settings.capabilities}
        capability = said.get(cap) or said.get("all")
        if capability is not None:
            statements.append(Statement(capability, capability.origin, capability.action.value,
                                        capability))
    return statements


def _keep_dropped(older: Capability, younger: Capability) -> tuple[Capability, bool]:
    if older.action is younger.action:
        return older, False
    return (younger, False) if younger.action is CapabilityAction.DROP else (older, True)
