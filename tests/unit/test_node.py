# SPDX-License-Identifier: Apache-2.0
"""A node's places, its status file, and files that are replaced whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from redpak.errors import RedpakError
from redpak.files import write_file_atomic
from redpak.node import Node, NodeState, NodeStatus, read_node, read_status, write_status


def make_node(path: Path, config: str = "", name: str = "etc/redpack.yaml") -> Node:
    file = path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("headers: {alias: a}\n" + config)
    write_status(str(path), NodeStatus(NodeState.ENABLE, str(path), 1))
    return read_node(str(path))


@pytest.mark.parametrize("info", ["", "plain", "it's: a \"test\" # of\n\ttext", "é\u2028\x85\ufeff",
                                  "#undef", "- x", "\\n"])
def test_a_status_is_read_back_as_it_was_written(tmp_path: Path, info: str) -> None:
    status = NodeStatus(NodeState.ERROR, f"{tmp_path}/it's \"here\"", 1_700_000_000_123, info)
    write_status(str(tmp_path), status)
    assert read_status(str(tmp_path)) == status


def test_the_places_of_a_node_are_those_of_the_design(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    places = {
        "status_file": ".rednode.yaml", "config_file": "etc/redpack.yaml",
        "admin_file": "etc/redpack-admin.yaml", "state_dir": ".redpak",
        "rpmdb_dir": "var/lib/rpm", "repos_dir": "etc/yum.repos.d", "vars_dir": "etc/dnf/vars",
        "persist_dir": "var/lib/dnf", "cache_dir": "var/cache/dnf", "log_dir": "var/log",
        "private_dir": "private"}
    for attribute, place in places.items():
        assert getattr(node, attribute) == f"{tmp_path}/{place}"
    assert node.owner_uid == os.getuid()


def test_the_other_spelling_of_the_file_is_read_when_the_first_is_missing(tmp_path: Path) -> None:
    node = make_node(tmp_path, name="etc/redpak.yaml")
    assert node.config_file == f"{tmp_path}/etc/redpak.yaml"
    (tmp_path / "etc/redpack.yaml").write_text("headers: {alias: b}\n")
    assert read_node(str(tmp_path)).alias == "b"


def test_a_node_without_configuration_says_how_to_write_it(tmp_path: Path) -> None:
    write_status(str(tmp_path), NodeStatus(NodeState.ENABLE, str(tmp_path), 1))
    with pytest.raises(RedpakError, match=r"has no configuration etc/redpack\.yaml; write it again"
                                          r" with --update --template=NAME"):
        read_node(str(tmp_path))


def test_a_node_may_place_its_rpmdb_elsewhere_below_itself(tmp_path: Path) -> None:
    node = make_node(tmp_path, "config: {rpmdir: $NODE_PATH/usr/lib/sysimage/rpm, "
                               "cachedir: var/cache/x}\n")
    assert node.rpmdb_dir == f"{tmp_path}/usr/lib/sysimage/rpm"
    assert node.cache_dir == f"{tmp_path}/var/cache/x"


@pytest.mark.parametrize("place", ["/var/lib/rpm", "$HOME/rpm", ".", "${NODE_PATH}x/rpm"])
def test_a_place_outside_the_node_is_refused(tmp_path: Path, place: str) -> None:
    node = make_node(tmp_path, f"config:\n  rpmdir: {place}\n")
    with pytest.raises(RedpakError, match=r"redpack\.yaml:3: config\.rpmdir: .* is not below the "
                                          r"node; write a relative path such as var/lib/rpm"):
        _ = node.rpmdb_dir


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "state"
    write_file_atomic(str(file), b"one", 0o600)
    old = os.open(file, os.O_RDONLY)
    write_file_atomic(str(file), b"two", 0o640)
    assert os.read(old, 10) == b"one"
    os.close(old)
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["state"]


def test_a_file_left_by_a_killed_writer_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f"state.{os.getpid()}.tmp").write_text("half")
    write_file_atomic(str(tmp_path / "state"), b"whole")
    assert os.listdir(tmp_path) == ["state"]


def test_a_failed_replacement_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(OSError):
        write_file_atomic(str(tmp_path / "state"), b"x")
    assert os.listdir(tmp_path) == ["state"]
