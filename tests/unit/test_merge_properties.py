# SPDX-License-Identifier: Apache-2.0
"""What holds for any family: nothing is loosened, order does not matter, one node says it all.

Families are drawn with hypothesis: one to four nodes, a main with or without `enforce`, every
tag, exports and variables, as data that is then written as YAML.
"""

from __future__ import annotations

import random
from typing import Any

from families import make_family, merge, mounts, variables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redpak.constraints import Tighten
from redpak.effective import EffectiveConfig
from redpak.family import Family
from redpak.load import load_text
from redpak.plain import effective_data
from redpak.schema import NAMESPACES, TAGS, CapabilityAction, ExportMode, Rule, Settings, Tag
from redpak.values import replace
from redpak.yamltext import to_yaml, without_notes

WORDS = st.sampled_from(["a", "b", "x-1", "$NODE_ALIAS", "$LEAF_ALIAS", "\\$HOME", "$HOME", "é ü"])
PATHS = st.sampled_from(["/a", "/b/$NODE_ALIAS", "$NODE_PATH/c", "/d/$USER", "/x/\\$LIB", "/a/b"])
MOUNTS = st.sampled_from(["/a", "/a/b", "/n/$NODE_ALIAS", "/n/$LEAF_ALIAS", "/n/one", "/usr"])
CAPS = st.sampled_from(["all", "CAP_KILL", "CAP_CHOWN", "CAP_NET_ADMIN"])

MERGED = [tag for tag in TAGS if tag.rule is not Rule.OWN]
VALUES: dict[str, st.SearchStrategy[str]] = {
    "line": WORDS, "path": PATHS, "boolean": st.sampled_from(["true", "false"]),
    "umask": st.sampled_from(["022", "027"]),
    "share": st.sampled_from(["enabled", "disabled", "unset", "/ns/a", "/ns/$NODE_ALIAS"]),
    "seccomp": st.sampled_from(["none", "default", "/f/$NODE_ALIAS"]),
    "size": st.sampled_from(["0", "1k", "1024", "2m", "max"]),
    "count": st.sampled_from(["1", "20", "max"]),
    "cpus": st.sampled_from(["", "0", "0-1", "1-3", "0-3"]),
    "cpu-max": st.sampled_from(["max", "1000", "1000 10000", "100000 1000000"]),
    "io-max": st.sampled_from(["8:0 rbps=1", "8:0 rbps=9 wbps=max", "8:16 riops=5"]),
    "io-weight": st.sampled_from(["100", "default 200"]),
    "choice": st.sampled_from(["member", "root"]),
    "integer": st.sampled_from(["1", "7", "19"]),
}


def value_of(tag: Tag) -> st.SearchStrategy[Any]:
    one = VALUES[tag.kind.name]
    return st.lists(one, min_size=1, max_size=3, unique=True) if tag.is_list else one


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A `config` or `enforce` section as data."""
    data: dict[str, Any] = {}
    for tag in draw(st.lists(st.sampled_from(MERGED), max_size=8, unique_by=lambda tag: tag.key)):
        place = data
        for group in tag.group:
            place = place.setdefault(group, {})
        place[tag.key.rpartition(".")[2]] = draw(value_of(tag))
    caps = draw(st.lists(CAPS, max_size=3, unique=True))
    if caps:
        data["capabilities"] = [{"cap": cap, "add": draw(st.booleans())} for cap in caps]
    return data


@st.composite
def exports(draw: st.DrawFn) -> list[dict[str, Any]]:
    """An `exports` section as data."""
    found = []
    for mount in draw(st.lists(MOUNTS, max_size=4, unique=True)):
        mode = draw(st.sampled_from(list(ExportMode)))
        entry: dict[str, Any] = {"mode": mode.value, "mount": mount}
        if mode is ExportMode.INTERNAL:
            entry["path"] = "5"
        elif mode.needs_path or (mode.has_path and draw(st.booleans())):
            entry["path"] = draw(PATHS)
        if draw(st.booleans()):
            entry["optional"] = True
        found.append(entry)
    return found


@st.composite
def environs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """An `environ` section as data."""
    found = []
    for key in draw(st.lists(st.sampled_from(["A", "B", "HOME"]), max_size=3, unique=True)):
        mode = draw(st.sampled_from(["Default", "Static", "Execfd", "Remove", "Inherit"]))
        entry = {"key": key, "mode": mode}
        if mode not in ("Remove", "Inherit"):
            entry["value"] = draw(st.one_of(WORDS, PATHS))
        found.append(entry)
    return found


@st.composite
def files(draw: st.DrawFn, *, main: bool = False) -> dict[str, Any]:
    """A configuration file's sections as data."""
    data: dict[str, Any] = {"config": draw(configs()), "exports": draw(exports()),
                            "environ": draw(environs())}
    if main:
        data["enforce"] = draw(configs())
    else:
        inherit = draw(st.sampled_from(["", "", "", "true", "false"]))
        if inherit:
            data["config"]["inherit"] = inherit
    return {section: content for section, content in data.items() if content}


FAMILIES = st.tuples(files(main=True), st.lists(files(), min_size=1, max_size=4))
THOROUGH = settings(max_examples=100, deadline=None,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def build(drawn: tuple[dict[str, Any], list[dict[str, Any]]]) -> Family:
    main, nodes = drawn
    return make_family(*(to_yaml(node) if node else "" for node in nodes),
                       main=to_yaml(main) if main else "")


def gist(effective: EffectiveConfig) -> dict[str, Any]:
    """What of a configuration a launch depends on."""
    return {
        "mounts": [entry[:3] for entry in mounts(effective)],
        "optional": [export.optional for export in effective.exports],
        "variables": [entry[:3] for entry in variables(effective)],
        "tags": effective.tags,
        "capabilities": [(one.cap, one.action) for one in effective.capabilities]}


def shuffled(data: Any, source: random.Random) -> Any:
    """The same data with the keys of every mapping in another order."""
    if isinstance(data, dict):
        items = [(key, shuffled(value, source)) for key, value in data.items()]
        source.shuffle(items)
        return dict(items)
    return [shuffled(part, source) for part in data] if isinstance(data, list) else data


def loosens(tighten: Tighten, ancestor: Any, effective: Any) -> bool:
    return tighten(ancestor, effective)[1]


def said_of_tag(section: Settings, tag: Tag, alias: str, path: str) -> Any:
    """What a section says of a constraint, its own names expanded; None when nothing."""
    value = getattr(section.tags, tag.attribute)
    if value is None and tag.key in {f"share_{name}" for name in NAMESPACES}:
        value = section.tags.share_all
    if getattr(value, "path", ""):
        value = replace(value, path=value.path.replace("$NODE_ALIAS", alias))
    if isinstance(value, str):
        value = value.replace("$NODE_ALIAS", alias)
    return None if value == () else value


@given(FAMILIES)
@THOROUGH
def test_no_effective_constraint_is_weaker_than_any_ancestors(
        drawn: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    family = build(drawn)
    effective = merge(family, HOME="/h")
    sections = [(family.main.config.enforce, "redmain", "")]
    sections += [(node.config.settings, node.alias, node.path) for node in family.nodes]
    for tag in TAGS:
        if tag.tighten is None:
            continue
        held = getattr(effective.tags, tag.attribute)
        said = [value for value in (said_of_tag(section, tag, alias, path)
                                    for section, alias, path in sections) if value is not None]
        # Of contradictions (two joins, two filters, disjoint cpus) the oldest holds, so each is
        # held against those that are older than the one that became effective, and the first.
        if said:
            assert not loosens(tag.tighten, said[0], held), tag.key
        if tag.kind.name in ("boolean", "integer", "size", "count", "cpu-max"):
            assert not any(loosens(tag.tighten, value, held) for value in said), tag.key
        if tag.kind.name == "share":
            ranks = {"disabled": 0, "join": 1, "enabled": 2}
            assert all(ranks[held.state.value] <= ranks[value.state.value] for value in said)
    allowed = {one.cap for one in effective.capabilities if one.action is CapabilityAction.ADD}
    for section, _, _ in sections:
        spoken = {one.cap: one.action for one in section.capabilities}
        for cap in ("CAP_KILL", "CAP_CHOWN", "CAP_NET_ADMIN"):
            if spoken.get(cap, spoken.get("all")) is CapabilityAction.DROP:
                assert cap not in allowed
                named = {one.cap for one in effective.capabilities}
                assert cap in named or "all" not in allowed


@given(FAMILIES, st.randoms(use_true_random=False))
@THOROUGH
def test_merging_is_deterministic_and_independent_of_the_order_of_keys(
        drawn: tuple[dict[str, Any], list[dict[str, Any]]], source: random.Random) -> None:
    main, nodes = drawn
    again = shuffled(main, source), [shuffled(node, source) for node in nodes]
    first = merge(build(drawn), HOME="/h")
    assert merge(build(drawn), HOME="/h") == first
    assert gist(merge(build(again), HOME="/h")) == gist(first)


@given(FAMILIES, st.booleans())
@THOROUGH
def test_the_merged_configuration_loaded_as_a_single_node_is_the_same(
        drawn: tuple[dict[str, Any], list[dict[str, Any]]], expanded: bool) -> None:
    family = build(drawn)
    first = merge(family, HOME="/h")
    data = without_notes(effective_data(family, first, expanded=expanded))
    text = to_yaml(data)
    leaf = family.leaf
    single = Family(family.main, (replace(leaf, config=load_text(text.encode(), "merged.yaml")),))
    assert gist(merge(single, HOME="/h")) == gist(first)
