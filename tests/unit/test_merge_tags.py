# SPDX-License-Identifier: Apache-2.0
"""The merge of tags: plain ones, constraints, paths, shares and capabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from families import make_family, merge

from redpak.errors import ConfigError
from redpak.schema import TAGS, Rule


class Case(NamedTuple):
    """One row: what each node says of a tag, what holds, and how many tried to loosen it."""

    tag: str
    nodes: tuple[str | None, ...]
    expected: str
    violations: int = 0
    main: str | None = None
    enforce: str | None = None


def say(tag: str, value: str | None, section: str = "config") -> str:
    """A section that sets one tag, dotted keys included."""
    if value is None:
        return ""
    keys = tag.split(".")
    return (f"{section}: " + "".join(f"{{{key}: " for key in keys) + value + "}" * len(keys)
            + "\n")


def written(effective: Any, key: str) -> str:
    """A tag's effective value as text; empty when it is not set."""
    tag = next(tag for tag in TAGS if tag.key == key)
    value = getattr(effective.tags, tag.attribute)
    if value is None or value == ():
        return ""
    return ", ".join(map(tag.kind.write, value)) if tag.is_list else tag.kind.write(value)


PLAIN = tuple(
    case for tag, one, two in (
        ("hostname", "a", "b"), ("chdir", "/a", "/b"), ("umask", "'027'", "'022'"),
        ("cgrouproot", "/a", "/b"), ("set-user", "ann", "bob"), ("set-group", "x", "y"),
        ("smack", "A", "B"), ("verbose", "true", "false"), ("die-with-parent", "true", "false"),
        ("new-session", "false", "true"), ("inherit-env", "false", "true"),
        ("map-root-user", "true", "false"), ("cgroups.cpu.weight", "100", "200"),
        ("cgroups.cpu.weight_nice", "-3", "4"), ("cgroups.mem.min", "1m", "2m"),
        ("cgroups.mem.low", "1m", "2m"), ("cgroups.mem.oom_group", "true", "false"),
        ("cgroups.cpuset.cpus_partition", "root", "member"),
        ("cgroups.io.weight", "[default 10]", "[default 20]"),
        ("cgroups.io.cost_qos", "['8:0 enable=1']", "['8:0 enable=0']"),
        ("cgroups.io.cost_model", "['8:0 ctrl=user']", "['8:0 ctrl=auto']"))
    for bare_one in [one.strip("'[]")] for bare_two in [two.strip("'[]")]
    for case in (
        Case(tag, (one, two), bare_one),
        Case(tag, (None, two), bare_two),
        Case(tag, (None, one, two, None), bare_one),
        Case(tag, (None, two), bare_two, main=one),
        Case(tag, (None, None), bare_one, main=one),
        Case(tag, (one, None), bare_two, enforce=two)))

# (tag, tight, loose): what holds whatever the order they are said in.
ORDERED = (
    ("gpgcheck", "true", "false"), ("unsafe", "false", "true"), ("maxage", "3", "30"),
    ("share_net", "disabled", "enabled"), ("share_net", "/ns/a", "enabled"),
    ("share_ipc", "disabled", "/ns/a"), ("share_all", "disabled", "enabled"),
    ("seccomp", "default", "none"), ("seccomp", "/etc/filter", "none"),
    ("cgroups.mem.max", "512m", "1g"), ("cgroups.mem.max", "1g", "max"),
    ("cgroups.mem.high", "1000", "1k"), ("cgroups.mem.swap_max", "0", "1"),
    ("cgroups.mem.swap_high", "0", "max"), ("cgroups.pids.max", "10", "max"),
    ("cgroups.cpu.max", "50000 100000", "max"), ("cgroups.cpu.max", "10000", "50000 100000"),
    ("cgroups.cpu.max", "50000 200000", "30000"), ("cgroups.cpuset.cpus", "0-1", "0-3"),
    ("cgroups.cpuset.mems", "'0'", "'0,1'"),
)
CONSTRAINTS = tuple(
    case for tag, tight, loose in ORDERED
    for bare_tight in [tight.strip("'")] for bare_loose in [loose.strip("'")]
    for case in (
        Case(tag, (tight, loose), bare_tight, 1),
        Case(tag, (loose, tight), bare_tight),
        Case(tag, (tight, tight), bare_tight),
        Case(tag, (None, loose), bare_loose),
        Case(tag, (loose, None, tight, loose), bare_tight, 1),
        Case(tag, (loose, loose), bare_loose, main=tight),
        Case(tag, (None, tight), bare_tight, main=loose),
        Case(tag, (None, None), bare_tight, main=tight),
        Case(tag, (loose, loose), bare_tight, 2, enforce=tight),
        Case(tag, (tight, None), bare_tight, enforce=loose)))

OTHERS = (
    Case("share_net", ("/ns/a", "/ns/b"), "/ns/a", 1),
    Case("share_net", ("/ns/a", "/ns/a"), "/ns/a"),
    Case("share_net", ("unset", "enabled"), "enabled"),
    Case("share_net", ("disabled", "unset"), "disabled"),
    Case("share_net", ("/ns/$NODE_ALIAS", None), "/ns/one"),
    Case("seccomp", ("default", "/etc/filter"), "default", 1),
    Case("cgroups.cpuset.cpus", ("0-3", "2-5"), "0-3", 1),
    Case("cgroups.cpuset.cpus", ("0-3", "''"), "0-3"),
    Case("cgroups.cpuset.cpus", ("'0-3, 5'", "'01, 2'"), "1, 2"),
    Case("cgroups.io.max", ("['8:0 rbps=100 wbps=max']", "['8:0 rbps=50 wbps=10']"),
         "8:0 rbps=50 wbps=10"),
    Case("cgroups.io.max", ("['8:0 rbps=100']", "['8:0 rbps=200 wbps=10', '8:16 riops=5']"),
         "8:0 rbps=100 wbps=10, 8:16 riops=5", 1),
    # The kernel reads 08:16 as 8:16, and the 0 before a size as octal.
    Case("cgroups.io.max", ("['8:16 rbps=100']", "['08:16 rbps=max']"), "8:16 rbps=100", 1),
    Case("cgroups.mem.max", ("0100k", "70k"), "70k"), Case("cgroups.mem.max", ("'00'",), "0"),
    Case("cgroups.pids.max", ("0100", "101"), "100", 1),
    Case("seccomp", ("None", "DEFAULT"), "default"),
    Case("path", ("[/a, /b]", "[/c]"), "/c, /a, /b, /core", main="[/core]"),
    Case("path", ("[/a, /b]", "[/b]"), "/b, /a"),
    Case("path", ("[/$NODE_ALIAS]", "[/$NODE_ALIAS]", "/three", "[/four]"),
         "/four, /three, /two, /one"),
    Case("ldpath", (None, "[/a]"), "/a, /core", main="[/core, /a]"),
    Case("derived-files", ("[/a/*]", None), "/a/*, /core/*", main="[/core/*]"),
    Case("path", ("[/a]", "[/b]"), "/b, /a, /must, /core", main="[/core]", enforce="[/must]"),
    Case("unsafe", (None,), "false"),
    Case("inherit-env", (None,), "true"),
    Case("hostname", (None, None), ""),
)


@pytest.mark.parametrize("case", PLAIN + CONSTRAINTS + OTHERS,
                         ids=lambda case: f"{case.tag}-{case.nodes}".replace(" ", ""))
def test_tags(case: Case) -> None:
    family = make_family(*(say(case.tag, value) for value in case.nodes),
                         main=say(case.tag, case.main) + say(case.tag, case.enforce, "enforce"))
    effective = merge(family)
    assert written(effective, case.tag) == case.expected
    assert len(effective.warnings) == case.violations
    if case.violations:
        assert "cannot loosen" in str(effective.warnings[0])
        with pytest.raises(ConfigError, match="cannot loosen"):
            merge(family, strict=True)


def test_every_tag_that_merges_has_a_case() -> None:
    shares = {f"share_{name}" for name in ("user", "cgroup", "net", "pid", "ipc", "time")}
    covered = {case.tag for case in PLAIN + CONSTRAINTS + OTHERS} | shares
    assert {tag.key for tag in TAGS if tag.rule is not Rule.OWN} == covered


def test_a_violation_says_who_where_and_what() -> None:
    effective = merge(make_family("config:\n  share_net: disabled\n",
                                  "config:\n  share_net: enabled\n"))
    assert [str(warning) for warning in effective.warnings] == [
        "/pool/one/two/etc/redpack.yaml:3:3: config.share_net: two cannot loosen disabled, which "
        "one sets (/pool/one/etc/redpack.yaml:3), to enabled; remove it"]


class Admin(NamedTuple):
    """One row with administrative files: root's or a user's, of node one, two or redmain."""

    tag: str
    nodes: tuple[str | None, ...]
    root: dict[str, str]
    user: dict[str, str]
    expected: str
    violations: int = 0
    enforce: str | None = None
    main: str | None = None


ADMINS = (
    Admin("hostname", ("a", "b"), {"two": "c"}, {}, "c"),
    Admin("hostname", ("a", "b"), {"one": "c", "two": "d"}, {}, "c"),
    Admin("hostname", ("a", "b"), {"redmain": "m", "one": "c"}, {}, "m"),
    Admin("hostname", ("a", "b"), {"two": "c"}, {}, "e", enforce="e"),
    Admin("hostname", ("a", "b"), {}, {"two": "c"}, "c"),
    Admin("hostname", ("a", "b"), {"two": "c"}, {"one": "d"}, "d"),
    Admin("share_net", ("disabled", None), {"two": "enabled"}, {}, "enabled"),
    Admin("share_net", ("enabled", "enabled"), {"two": "disabled"}, {}, "disabled"),
    Admin("share_net", (None, None), {"one": "disabled", "two": "enabled"}, {}, "disabled", 1),
    Admin("share_net", ("enabled", None), {"two": "enabled"}, {}, "disabled", 1,
          enforce="disabled"),
    Admin("share_net", ("disabled", None), {}, {"two": "enabled"}, "disabled", 1),
    Admin("share_net", ("enabled", None), {}, {"two": "disabled"}, "disabled"),
    Admin("share_net", ("disabled", None), {"one": "enabled"}, {"two": "disabled"}, "disabled"),
    Admin("share_net", (None, None), {"redmain": "enabled"}, {}, "enabled", main="disabled"),
    Admin("gpgcheck", ("true", "true"), {"one": "false"}, {}, "false"),
    Admin("gpgcheck", ("true", "true"), {}, {"one": "false"}, "true", 1),
    Admin("maxage", ("30", "20"), {"two": "90"}, {}, "90"),
    Admin("path", ("/a", "/b"), {"one": "/c"}, {"two": "/d"}, "/d, /b, /c, /a"),
)


@pytest.mark.parametrize("case", ADMINS)
def test_administrative_tags(case: Admin) -> None:
    family = make_family(
        *(say(case.tag, value) for value in case.nodes),
        main=say(case.tag, case.main) + say(case.tag, case.enforce, "enforce"),
        admins={alias: say(case.tag, value) for alias, value in case.root.items()},
        user_admins={alias: say(case.tag, value) for alias, value in case.user.items()})
    effective = merge(family)
    assert written(effective, case.tag) == case.expected
    assert len(effective.warnings) == case.violations


def test_share_all_speaks_for_the_namespaces_its_file_does_not_name() -> None:
    effective = merge(make_family(
        "config: {share_all: disabled, share_net: enabled}\n", "config: {share_ipc: enabled}\n",
        main="config: {share_all: enabled}\n"))
    states = {name: written(effective, f"share_{name}")
              for name in ("user", "cgroup", "net", "pid", "ipc", "time")}
    assert states == {"user": "disabled", "cgroup": "disabled", "net": "enabled",
                      "pid": "disabled", "ipc": "disabled", "time": "disabled"}
    assert [warning.key for warning in effective.warnings] == ["config.share_ipc"]


def test_a_child_cannot_loosen_through_share_all() -> None:
    effective = merge(make_family("config: {share_net: disabled}\n",
                                  "config: {share_all: enabled}\n"))
    assert written(effective, "share_net") == "disabled"
    assert written(effective, "share_pid") == "enabled"


def capabilities(*entries: str) -> str:
    """A config section with capabilities: "+NAME" adds, "-NAME" drops."""
    return "config:\n  capabilities:\n" + "".join(
        f"    - {{cap: {entry[1:]}, add: {'true' if entry[0] == '+' else 'false'}}}\n"
        for entry in entries)


@pytest.mark.parametrize(("nodes", "main", "expected", "violations"), [
    ((capabilities("+CAP_KILL"), ""), "", ["+CAP_KILL"], 0),
    ((capabilities("-CAP_KILL"), capabilities("+CAP_KILL")), "", ["-CAP_KILL"], 1),
    ((capabilities("+CAP_KILL"), capabilities("-CAP_KILL")), "", ["-CAP_KILL"], 0),
    ((capabilities("-all"), capabilities("+CAP_KILL")), "", ["-all", "-CAP_KILL"], 1),
    ((capabilities("+CAP_KILL", "-all"), ""), "", ["-all", "+CAP_KILL"], 0),
    ((capabilities("-all", "+CAP_KILL"), capabilities("+CAP_KILL")), "",
     ["-all", "+CAP_KILL"], 0),
    ((capabilities("-all", "+CAP_KILL"), capabilities("-all")), "", ["-all", "-CAP_KILL"], 0),
    ((capabilities("-CAP_KILL"), capabilities("+all")), "", ["+all", "-CAP_KILL"], 1),
    ((capabilities("+CAP_KILL"), ""), capabilities("-all"), ["-all", "+CAP_KILL"], 0),
    (("", ""), capabilities("-all", "+CAP_CHOWN"), ["-all", "+CAP_CHOWN"], 0),
    ((capabilities("+all"), ""), capabilities("-all").replace("config", "enforce"),
     ["-all"], 1),
    (("", capabilities("-CAP_KILL"), "", capabilities("+CAP_KILL", "-CAP_CHOWN")), "",
     ["-CAP_CHOWN", "-CAP_KILL"], 1),
])
def test_capabilities(nodes: tuple[str, ...], main: str, expected: list[str],
                      violations: int) -> None:
    effective = merge(make_family(*nodes, main=main))
    assert [("+" if capability.action.value == "add" else "-") + capability.cap
            for capability in effective.capabilities] == expected
    assert len(effective.warnings) == violations


def test_provenance_names_the_file_the_line_the_node_and_what_was_overridden() -> None:
    effective = merge(make_family("config:\n  umask: 027\n", "config:\n  umask: 022\n",
                                  main="config:\n  umask: 077\n"))
    found = effective.provenance["umask"]
    assert (str(found.origin), found.origin.node) == ("/pool/one/etc/redpack.yaml:3", "one")
    assert [(str(lost.origin), lost.value) for lost in found.overrode] == [
        ("/pool/one/two/etc/redpack.yaml:3", "022"), ("/conf/main.yaml:2", "077")]


def test_each_element_of_a_path_knows_its_line() -> None:
    effective = merge(make_family("config:\n  path:\n    - /a\n    - /b\n",
                                  "config:\n  path:\n    - /c\n    - /b\n"))
    found = effective.provenance["path"]
    assert effective.tags.path == ("/c", "/b", "/a")
    assert [(origin.node, origin.line) for origin in found.origins] == [
        ("two", 4), ("two", 5), ("one", 4)]
    assert [(str(lost.origin), lost.value) for lost in found.overrode] == [
        ("/pool/one/etc/redpack.yaml:5", "/b")]


@pytest.mark.parametrize(("config", "warned"), [
    ("{share_pid: /ns/a}", True),
    ("{share_pid: /ns/a, share_user: disabled}", True),
    ("{share_pid: /ns/a, share_all: disabled}", True),
    ("{share_pid: /ns/a, share_all: disabled, share_user: enabled}", False),
    ("{share_pid: /ns/a, share_user: /ns/b}", False),
    ("{share_pid: enabled, share_user: disabled}", False),
])
def test_a_pid_namespace_that_nobody_can_join_is_a_warning(config: str, warned: bool) -> None:
    effective = merge(make_family(f"config: {config}\n"))
    assert [str(warning) for warning in effective.warnings] == [
        "/pool/one/etc/redpack.yaml:2:10: config.share_pid: /ns/a cannot be joined from a new user"
        " namespace; say share_user: enabled, or the user namespace that it was made in"] * warned


def test_a_built_in_default_says_so() -> None:
    assert str(merge(make_family("")).provenance["unsafe"].origin) == "built-in default"


def test_a_tag_that_cannot_be_expanded_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r'one/etc/redpack.yaml:3:3: config.chdir: "\$NONE/x" '
                                          r"expands to '#undef:NONE/x', where \$NONE is not"):
        merge(make_family("config:\n  chdir: $NONE/x\n"))
