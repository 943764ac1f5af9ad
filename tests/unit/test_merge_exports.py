# SPDX-License-Identifier: Apache-2.0
"""The merge of exports and environ: who wins, what is dropped, and what is said about it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from families import make_family, merge, mounts, variables

from redpak.errors import ConfigError


def exports(*entries: str) -> str:
    return "exports:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


def environ(*entries: str) -> str:
    return "environ:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


class Case(NamedTuple):
    """One row: the family, the effective mounts, and the warnings (their beginnings)."""

    name: str
    nodes: tuple[str, ...]
    expected: list[tuple[str, str, str, str]]
    warnings: tuple[str, ...] = ()
    main: str = ""


CASES = (
    Case("all nodes cumulate",
         (exports("mode: Public, mount: /a, path: /x"),
          exports("mode: Public, mount: /b, path: /y")),
         [("/a", "Public", "/x", "one"), ("/b", "Public", "/y", "two")]),
    Case("a missing path is the mount",
         (exports("mode: Restricted, mount: /usr/share"),),
         [("/usr/share", "Restricted", "/usr/share", "one")]),
    Case("the oldest node wins a mount",
         (exports("mode: Restricted, mount: /a, path: /x"),
          exports("mode: Public, mount: /a, path: /y")),
         [("/a", "Restricted", "/x", "one")],
         ("exports.mount: /a of two is dropped, one mounts it already",)),
    Case("the oldest of four levels wins",
         ("", exports("mode: Public, mount: /a, path: /2"),
          exports("mode: Public, mount: /a, path: /3"),
          exports("mode: Public, mount: /a, path: /4")),
         [("/a", "Public", "/2", "two")],
         ("exports.mount: /a of three is dropped", "exports.mount: /a of four is dropped")),
    Case("the same mount is found after expansion",
         (exports("mode: Public, mount: /n/$LEAF_ALIAS, path: /x"),
          exports("mode: Public, mount: /n//two/, path: /y")),
         [("/n/two", "Public", "/x", "one")], ("exports.mount: /n/two of two is dropped",)),
    Case("identical entries are no conflict",
         (exports("mode: Public, mount: /a, path: /x"),
          exports("mode: Public, mount: /a, path: /x")),
         [("/a", "Public", "/x", "one")]),
    Case("a node wins over a default of redmain",
         (exports("mode: Public, mount: /a, path: /x"),), [("/a", "Public", "/x", "one")],
         main=exports("mode: Restricted, mount: /a, path: /core")),
    Case("the defaults of redmain stay",
         ("",), [("/a", "Restricted", "/core", "redmain")],
         main=exports("mode: Restricted, mount: /a, path: /core")),
    Case("private entries of an ancestor are dropped",
         (exports("mode: Private, mount: /a", "mode: PrivateFile, mount: /b",
                  "mode: PrivateRestricted, mount: /c", "mode: Public, mount: /d"), ""),
         [("/d", "Public", "/d", "one")]),
    Case("private entries of the leaf are kept",
         ("", exports("mode: Private, mount: /a", "mode: PrivateFile, mount: /b",
                      "mode: PrivateRestricted, mount: /c")),
         [("/a", "Private", "/a", "two"), ("/b", "PrivateFile", "/b", "two"),
          ("/c", "PrivateRestricted", "/c", "two")]),
    Case("a private entry of an ancestor does not compete",
         (exports("mode: Private, mount: /a, path: /x"),
          exports("mode: Public, mount: /a, path: /y")),
         [("/a", "Public", "/y", "two")]),
    Case("each node has its own names",
         (exports("mode: Public, mount: /n/$NODE_ALIAS, path: $NODE_PATH/usr"),
          exports("mode: Public, mount: /n/$NODE_ALIAS, path: $NODE_PATH/usr")),
         [("/n/one", "Public", "/pool/one/usr", "one"),
          ("/n/two", "Public", "/pool/one/two/usr", "two")]),
    Case("parents come before children",
         (exports("mode: Public, mount: /a-b", "mode: Public, mount: /a/b/c",
                  "mode: Public, mount: /a", "mode: Public, mount: /a/b"),),
         [(mount, "Public", mount, "one") for mount in ("/a", "/a/b", "/a/b/c", "/a-b")]),
    Case("inherit false drops the ancestors' exports and keeps those of redmain",
         (exports("mode: Public, mount: /a"), "config: {inherit: false}\n"
          + exports("mode: Public, mount: /b"), exports("mode: Public, mount: /c")),
         [("/b", "Public", "/b", "two"), ("/c", "Public", "/c", "three"),
          ("/m", "Public", "/m", "redmain")],
         main=exports("mode: Public, mount: /m")),
    Case("a mount is free again once its owner is not inherited",
         (exports("mode: Public, mount: /a, path: /x"), "config: {inherit: false}\n"
          + exports("mode: Public, mount: /a, path: /y")),
         [("/a", "Public", "/y", "two")]),
    Case("layers of an overlay stack, the leaf's on top",
         (exports("mode: Overlay, mount: /usr, path: $NODE_PATH/usr"),
          exports("mode: Overlay, mount: /usr, path: $NODE_PATH/usr")),
         [("/usr", "Overlay", "/usr", "redmain"), ("/usr", "Overlay", "/pool/one/usr", "one"),
          ("/usr", "Overlay", "/pool/one/two/usr", "two")],
         main=exports("mode: Restricted, mount: /usr")),
    Case("only the leaf's overlay is written to",
         (exports("mode: OverlayPrivate, mount: /etc, path: $NODE_PATH/etc"),
          exports("mode: OverlayPrivate, mount: /etc, path: $NODE_PATH/etc")),
         [("/etc", "Overlay", "/pool/one/etc", "one"),
          ("/etc", "OverlayPrivate", "/pool/one/two/etc", "two")]),
    Case("of a directory that an overlay has twice, the younger layer stays",
         (exports("mode: OverlayPrivate, mount: /opt, path: /srv/a"),
          exports("mode: Overlay, mount: /opt, path: /srv/b"),
          exports("mode: OverlayPrivate, mount: /opt, path: /srv/a")),
         [("/opt", "Overlay", "/srv/b", "two"), ("/opt", "OverlayPrivate", "/srv/a", "three")],
         main=exports("mode: Overlay, mount: /opt, path: /srv/a")),
    Case("a bind does not enter an older overlay",
         (exports("mode: Overlay, mount: /usr, path: $NODE_PATH/usr"),
          exports("mode: Public, mount: /usr, path: /y")),
         [("/usr", "Overlay", "/pool/one/usr", "one")],
         ("exports.mount: /usr of two is dropped",)),
    Case("the command of an Execfd is not expanded",
         (exports("mode: Execfd, mount: /etc/passwd, path: 'id $USER'"),),
         [("/etc/passwd", "Execfd", "id $USER", "one")]),
    Case("what a link points to is expanded and may be relative",
         (exports("mode: Symlink, mount: /self, path: ../nodes/$NODE_ALIAS"),),
         [("/self", "Symlink", "../nodes/one", "one")]),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_exports(case: Case) -> None:
    effective = merge(make_family(*case.nodes, main=case.main))
    assert mounts(effective) == case.expected
    assert len(effective.warnings) == len(case.warnings)
    for warning, text in zip(effective.warnings, case.warnings):
        assert warning.message.startswith(text)


ENVIRON_CASES = (
    Case("all nodes cumulate", (environ("key: A, value: x"), environ("key: B, value: y")),
         [("A", "Default", "x", "one"), ("B", "Default", "y", "two")]),
    Case("the oldest node wins a variable",
         (environ("key: A, value: x"), environ("key: A, value: y")),
         [("A", "Default", "x", "one")],
         ("environ.key: A of two is dropped, one sets it already",)),
    Case("the oldest of four levels wins",
         ("", environ("key: A, mode: Remove"), environ("key: A, value: y"), ""),
         [("A", "Remove", "", "two")], ("environ.key: A of three is dropped",)),
    Case("identical entries are no conflict",
         (environ("key: A, value: x"), environ("key: A, value: x")),
         [("A", "Default", "x", "one")]),
    Case("a node wins over a default of redmain", (environ("key: A, value: x"),),
         [("A", "Default", "x", "one")], main=environ("key: A, value: core")),
    Case("the defaults of redmain stay", ("",), [("A", "Default", "core", "redmain")],
         main=environ("key: A, value: core")),
    Case("only Default is expanded",
         (environ("key: A, value: $NODE_ALIAS", "key: B, value: $NODE_ALIAS, mode: Expanded",
                  "key: C, value: $NODE_ALIAS, mode: Static",
                  "key: D, value: 'echo $NODE_ALIAS', mode: Execfd", "key: E, mode: Inherit"),),
         [("A", "Default", "one", "one"), ("B", "Default", "one", "one"),
          ("C", "Static", "$NODE_ALIAS", "one"), ("D", "Execfd", "echo $NODE_ALIAS", "one"),
          ("E", "Inherit", "", "one")]),
    Case("an undefined name is warned about", (environ("key: A, value: $NONE"),),
         [("A", "Default", "#undef:NONE", "one")],
         ("environ.value: A: $NONE is not defined",)),
)


@pytest.mark.parametrize("case", ENVIRON_CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_environ(case: Case) -> None:
    effective = merge(make_family(*case.nodes, main=case.main))
    assert variables(effective) == case.expected
    assert len(effective.warnings) == len(case.warnings)
    for warning, text in zip(effective.warnings, case.warnings):
        assert warning.message.startswith(text)


def test_an_administrative_export_wins_over_normal_ones_without_a_warning() -> None:
    family = make_family(exports("mode: Restricted, mount: /a, path: /x"), "",
                         admins={"two": exports("mode: Public, mount: /a, path: /y")})
    effective = merge(family)
    assert mounts(effective) == [("/a", "Public", "/y", "two")]
    assert effective.warnings == ()
    assert [(lost.value, lost.reason) for lost in effective.exports[0].overrode] == [
        ("Restricted /x", "the administrative setting of two wins")]


def test_an_administrative_export_loses_to_an_ancestors() -> None:
    family = make_family("", "", admins={
        "one": exports("mode: Public, mount: /a, path: /x"),
        "two": exports("mode: Public, mount: /a, path: /y")})
    assert mounts(merge(family)) == [("/a", "Public", "/x", "one")]


@pytest.mark.parametrize(("admin", "expected"), [("true", ["/a", "/b"]), ("false", ["/b"])])
def test_the_administrative_word_on_inheritance_counts(admin: str, expected: list[str]) -> None:
    normal = "false" if admin == "true" else "true"
    family = make_family(
        exports("mode: Public, mount: /a"),
        f"config: {{inherit: {normal}}}\n" + exports("mode: Public, mount: /b"),
        admins={"two": f"config: {{inherit: {admin}}}\n"})
    assert [export.mount for export in merge(family).exports] == expected


def test_main_admin_wins_over_all() -> None:
    text = environ("key: A, value: machine")
    family = make_family(environ("key: A, value: x"), "", main=environ("key: A, value: core"),
                         admins={"redmain": text, "one": environ("key: A, value: y")})
    assert variables(merge(family)) == [("A", "Default", "machine", "redmain")]


def test_what_is_dropped_is_listed_with_its_reason() -> None:
    family = make_family(exports("mode: Private, mount: /a", "mode: Public, mount: /b"),
                         "config: {inherit: false}\n")
    assert [(str(lost.origin), lost.value, lost.reason) for lost in merge(family).dropped] == [
        ("/pool/one/etc/redpack.yaml:3", "Private /a",
         "private to its node, which is not the leaf"),
        ("/pool/one/etc/redpack.yaml:4", "Public /b",
         "two does not inherit its ancestors' exports")]


def test_an_effective_export_knows_where_it_came_from_and_what_it_overrode() -> None:
    family = make_family(exports("mode: Restricted, mount: /a, path: /x"),
                         exports("mode: Public, mount: /a, path: /y"),
                         main=exports("mode: Public, mount: /a, path: /z"))
    export = merge(family).exports[0]
    assert (str(export.origin), export.origin.node) == ("/pool/one/etc/redpack.yaml:3", "one")
    assert [(str(lost.origin), lost.origin.node, lost.value, lost.reason)
            for lost in export.overrode] == [
        ("/pool/one/two/etc/redpack.yaml:3", "two", "Public /y", "one is older and wins"),
        ("/conf/main.yaml:2", "redmain", "Public /z", "one wins over the default of redmain")]


@pytest.mark.parametrize(("entry", "message"), [
    ("mode: Public, mount: /a/$NONE", '$NONE in "/a/$NONE" is not defined'),
    ("mode: Public, mount: /a, path: $NONE/b", '$NONE in "$NONE/b" is not defined'),
    ("mode: Symlink, mount: /a, path: $NONE", '$NONE in "$NONE" is not defined'),
    ("mode: Public, mount: $UP/a", "\"$UP/a\" expands to '/x/../y/a', which has a \"..\" part"),
    ("mode: Public, mount: $RELATIVE", "expands to 'etc', which is not absolute"),
    ("mode: Public, mount: $ROOT", "nothing can be mounted over the root itself"),
    ("mode: Public, mount: /a, path: $LINES", "which has a control character or a line break"),
])
def test_an_expansion_that_makes_no_safe_path_is_an_error(entry: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge(make_family(exports(entry)), UP="/x/../y", RELATIVE="etc", ROOT="//",
              LINES="/a\nb")
    assert message in str(caught.value)
    assert "/pool/one/etc/redpack.yaml:3:5: " in str(caught.value)


def test_every_fault_of_the_merge_is_reported_at_once() -> None:
    family = make_family(exports("mode: Public, mount: /a/$X", "mode: Public, mount: /b/$Y"),
                         "config: {hostname: $Z}\n")
    with pytest.raises(ConfigError) as caught:
        merge(family)
    assert [finding.message.partition("$")[2][0] for finding in caught.value.findings] == [
        "X", "Y", "Z"]


def test_the_names_that_matter_are_known() -> None:
    family = make_family(exports("mode: Public, mount: /a/$USER", "mode: Execfd, mount: /b, "
                                 "path: echo $PID") + environ("key: A, value: $HOME"))
    assert merge(family, HOME="/h", OTHER="x").used_names == {"USER", "HOME"}


def test_execfd_commands_get_the_names_of_their_node() -> None:
    names = merge(make_family("", ""), HOME="/h").names
    assert (names["one"]["NODE_PATH"], names["two"]["NODE_PATH"]) == (
        "/pool/one", "/pool/one/two")
    assert names["redmain"]["NODE_PATH"] == ""
    assert names["one"]["HOME"] == "/h"
