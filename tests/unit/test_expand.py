# SPDX-License-Identifier: Apache-2.0
"""Expansion of names."""

from __future__ import annotations

import re

import pytest
from families import ALIASES, CALLER, make_family

from redpak.expand import (
    Caller,
    expand,
    expand_known,
    literal,
    node_names,
    undefined_names,
)

NAMES = {"A": "one", "B": "$A", "EMPTY": ""}


@pytest.mark.parametrize(("text", "expanded"), [
    ("plain", "plain"),
    ("$A", "one"),
    ("${A}", "one"),
    ("x${A}y", "xoney"),
    ("$A/$A", "one/one"),
    ("\\$A", "$A"),
    ("\\\\$A", "\\$A"),
    ("$B", "$A"),
    ("$EMPTY.", "."),
    ("$NONE/x", "#undef:NONE/x"),
    ("${NONE}", "#undef:NONE"),
    ("$", "$"),
    ("$1", "$1"),
    ("${A", "${A"),
    ("${}", "${}"),
    ("a$", "a$"),
    ("$$A", "$one"),
    ("$A_", "#undef:A_"),
])
def test_names_are_replaced_once(text: str, expanded: str) -> None:
    assert expand(text, NAMES) == expanded


def test_a_literal_text_expands_to_itself() -> None:
    for text in ("$A", "\\$A", "$$", "a$b\\c"):
        assert expand(literal(text), NAMES).replace("\\", "") == text.replace("\\", "")
    assert expand(literal("$A ${B}"), NAMES) == "$A ${B}"


def test_undefined_names_are_named_once() -> None:
    assert undefined_names("$X $A $X \\$Y ${Z}", NAMES) == ["X", "Z"]


def test_known_names_are_replaced_and_others_stay() -> None:
    assert expand_known("$A ${X} \\$A $B", NAMES) == "one ${X} \\$A \\$A"


def test_every_name_of_the_design_is_there() -> None:
    family = make_family("", "")
    names = node_names(family, family.nodes[0], environ={"HOME": "/h"}, caller=CALLER)
    expected = {
        "NODE_ALIAS": "one", "NODE_NAME": "name-one", "NODE_PATH": "/pool/one",
        "NODE_INFO": "the one", "LEAF_ALIAS": "two", "LEAF_NAME": "name-two",
        "LEAF_PATH": "/pool/one/two", "LEAF_INFO": "the two",
        "FAMILY_ALIASES": "one:two", "UID": "1000", "GID": "100",
        "PID": "4242", "USER": "ann", "LOGNAME": "ann", "HOSTNAME": "host",
        "TODAY": "2026-01-31", "UUID": CALLER.uuid, "NODE_PREFIX": "",
        "CGROUPS_MOUNT_POINT": "/sys/fs/cgroup", "redpak_MAIN": "/conf/main.yaml",
        "redpak_TMPL": "/conf/templates.d", "REDNODE_CONF": "/pool/one/etc/redpack.yaml",
        "REDNODE_ADMIN": "/pool/one/etc/redpack-admin.yaml",
        "REDNODE_STATUS": "/pool/one/.rednode.yaml",
        "REDNODE_VARDIR": "/pool/one/var/lib/rpm",
        "REDNODE_REPODIR": "/pool/one/etc/yum.repos.d",
        "REDNODE_LOCK": "/pool/one/.redpak/lock", "REDPESK_VERSION": "9", "HOME": "/h"}
    assert names == expected


def test_the_environment_cannot_pose_as_the_caller_or_the_node() -> None:
    family = make_family("")
    names = node_names(family, family.leaf, caller=CALLER,
                       environ={"UID": "0", "USER": "root", "NODE_PATH": "/", "LEAF_PATH": "/"})
    assert (names["UID"], names["USER"], names["NODE_PATH"], names["LEAF_PATH"]) == (
        "1000", "ann", "/pool/one", "/pool/one")


def test_in_redmain_the_node_is_the_core_os() -> None:
    names = node_names(make_family(""), None, environ={}, caller=CALLER)
    assert (names["NODE_ALIAS"], names["NODE_PATH"]) == ("redmain", "")
    assert expand("$NODE_PATH/usr", names) == "/usr"


def test_the_current_caller_has_a_random_uuid() -> None:
    caller = Caller.current()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                        caller.uuid)
    assert caller.uuid != Caller.current().uuid
    assert caller.user not in ALIASES
