# SPDX-License-Identifier: Apache-2.0
"""Finding and checking families on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redpak.create import create_node, set_state, update_node
from redpak.errors import ConfigError, RedpakError
from redpak.family import (
    Family,
    Main,
    find_ancestors,
    find_descendants,
    load_family,
    load_main,
    resolve_redpath,
)
from redpak.node import NodeState, NodeStatus, now_ms, prove_node, read_status, write_status

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def main() -> Main:
    return load_main(str(CONF / "main.yaml"), {})


@pytest.fixture
def pool(tmp_path: Path, main: Main) -> Path:
    """pool/core, pool/core/group/demo: a family of two with a plain directory between."""
    create_node(str(tmp_path / "core"), alias="core", main=main)
    create_node(str(tmp_path / "core/group/demo"), alias="demo", main=main)
    return tmp_path


def test_the_option_wins_over_the_environment() -> None:
    assert resolve_redpath("/a", {"REDPATH": "/b"}) == "/a"
    assert resolve_redpath(None, {"REDPATH": "/b"}) == "/b"


@pytest.mark.parametrize(("redpath", "message"), [
    (None, "no node given; say which with --redpath=DIR or REDPATH"),
    ("", "no node given"),
    ("pool/core", "redpath pool/core is not absolute; write --redpath=/"),
    ("/pool/../etc", 'redpath /pool/../etc has a ".." part'),
    ("/pool\n/x", "redpath '/pool\\\\n/x' has a control character"),
    ("/pool\0", "has a control character"),
    ("/pool/\udcff", "is not UTF-8 text"),
])
def test_an_unfit_redpath_is_refused(redpath: str | None, message: str) -> None:
    with pytest.raises(RedpakError) as caught:
        resolve_redpath(redpath, {})
    assert message.replace("\\\\", "\\") in str(caught.value)


def test_directories_that_are_no_nodes_are_skipped(pool: Path, main: Main) -> None:
    family = load_family(str(pool / "core/group/demo"), main=main)
    assert [node.path for node in family.nodes] == [
        str(pool / "core"), str(pool / "core/group/demo")]
    assert family.leaf.alias == "demo"
    assert [node.alias for node in family.ancestors] == ["core"]


def test_a_redpath_through_a_link_is_the_real_node(pool: Path, main: Main) -> None:
    (pool / "link").symlink_to("core/group/demo")
    assert load_family(str(pool / "link"), main=main).leaf.path == str(pool / "core/group/demo")


@pytest.mark.parametrize(("name", "message"), [
    ("none", "none does not exist; check --redpath"),
    ("core/group", "group is not a node, it has no .rednode.yaml; make it one with red-manager "
     "--create --alias=NAME"),
    ("file", "file is not a directory"),
])
def test_what_is_no_node_is_refused(pool: Path, main: Main, name: str, message: str) -> None:
    (pool / "file").write_text("")
    with pytest.raises(RedpakError) as caught:
        load_family(str(pool / name), main=main)
    assert message in str(caught.value)


@pytest.mark.parametrize("state", [NodeState.DISABLE, NodeState.UNKNOWN, NodeState.ERROR])
def test_an_ancestor_that_is_not_enabled_stops_its_descendants(pool: Path, main: Main,
                                                               state: NodeState) -> None:
    set_state(str(pool / "core"), state, info="why not")
    with pytest.raises(RedpakError) as caught:
        load_family(str(pool / "core/group/demo"), main=main)
    assert str(caught.value) == (f"node core at {pool}/core has the state {state.value} "
                                 "(why not); set it with red-manager --state=Enable, or say "
                                 "--force")
    assert load_family(str(pool / "core/group/demo"), main=main, force=True).leaf.alias == "demo"


def test_a_node_moved_to_another_family_is_refused_until_update(pool: Path, main: Main) -> None:
    create_node(str(pool / "other"), alias="other", main=main)
    (pool / "core/group/demo").rename(pool / "other/demo")
    with pytest.raises(RedpakError, match="node demo at .*/other/demo was created at .*/core/"):
        load_family(str(pool / "other/demo"), main=main)
    update_node(str(pool / "other/demo"), main=main)
    family = load_family(str(pool / "other/demo"), main=main)
    assert [node.alias for node in family.nodes] == ["other", "demo"]


def test_a_moved_node_whose_alias_is_taken_there_stays_refused(pool: Path, main: Main) -> None:
    create_node(str(pool / "other"), alias="demo", main=main)
    (pool / "core/group/demo").rename(pool / "other/demo")
    with pytest.raises(RedpakError, match="the alias demo belongs to both"):
        update_node(str(pool / "other/demo"), main=main)


def test_two_nodes_of_one_name_are_refused(pool: Path, main: Main) -> None:
    name = load_family(str(pool / "core"), main=main).leaf.name
    with pytest.raises(RedpakError, match=f"the name {name} belongs to both"):
        create_node(str(pool / "core/third"), alias="third", name=name, main=main)


def test_the_faults_of_all_files_of_a_family_come_at_once(pool: Path, main: Main) -> None:
    for name in ("core", "core/group/demo"):
        file = pool / name / "etc/redpack.yaml"
        file.write_text(file.read_text() + "unknown: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_family(str(pool / "core/group/demo"), main=main)
    assert len(caught.value.findings) == 2
    assert len(str(caught.value).splitlines()) == 2


def test_a_proof_of_coherency_is_noted_with_its_time(pool: Path) -> None:
    path = str(pool / "core")
    old = NodeStatus(NodeState.ENABLE, path, 100)
    write_status(path, old)
    before = now_ms()
    prove_node(path)
    assert before <= read_status(path).timestamp <= now_ms()
    assert read_status(path).state is old.state


def test_ancestors_come_nearest_first(pool: Path, main: Main) -> None:
    assert find_ancestors(str(pool / "core/group/demo")) == [str(pool / "core")]


def test_nodes_are_not_looked_for_where_none_can_be(pool: Path) -> None:
    for name in ("usr", "etc", "var", "opt", "srv", ".redpak", "private"):
        hidden = pool / "core" / name / "node"
        hidden.mkdir(parents=True, exist_ok=True)
        (hidden / ".rednode.yaml").write_text("")
    assert find_descendants(str(pool / "core")) == [str(pool / "core/group/demo")]
    assert find_descendants(str(pool)) == [str(pool / "core"), str(pool / "core/group/demo")]


def test_main_comes_from_the_option_the_environment_or_etc(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.yaml").write_text("config: {rpmdir: core/rpm}\n")
    environ = {"redpak_MAIN": str(tmp_path / "b/main.yaml")}
    assert load_main(str(tmp_path / "a/main.yaml"), environ).file == str(tmp_path / "a/main.yaml")
    main = load_main(None, environ)
    assert main.file == str(tmp_path / "b/main.yaml")
    assert main.rpmdb_dir == str(tmp_path / "b/core/rpm")
    assert main.templates_dir == str(tmp_path / "b/templates.d")


def test_a_missing_main_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(RedpakError, match=r"none\.yaml does not exist, it describes the core OS; "
                                          r"install redpak's configuration or say --rmain=FILE"):
        load_main(str(tmp_path / "none.yaml"), {})


def test_the_rpmdb_of_the_core_os_may_be_absolute(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text("")
    assert load_main(str(tmp_path / "main.yaml"), {}).rpmdb_dir == "/var/lib/rpm"


def test_an_admin_file_counts_only_when_nobody_else_can_write_it(pool: Path, main: Main) -> None:
    file = pool / "core/etc/redpack-admin.yaml"
    file.write_text("config: {verbose: true}\n")
    file.chmod(0o664)

    def load(*, admin: bool) -> Family:
        return load_family(str(pool / "core"), main=main, admin=admin)
    assert load(admin=False).leaf.admin is None
    with pytest.raises(RedpakError, match=r"redpack-admin\.yaml can be written by others than its "
                                          r"owner; run chmod go-w"):
        load(admin=True)
    file.chmod(0o644)
    admin = load(admin=True).leaf.admin
    assert admin is not None and admin.config.tags.verbose is True
    assert admin.may_loosen is (os.getuid() == 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_an_admin_file_of_a_stranger_is_refused(pool: Path, main: Main) -> None:
    file = pool / "core/etc/redpack-admin.yaml"
    file.write_text("config: {verbose: true}\n")
    os.chown(file, 1234, 1234)
    with pytest.raises(RedpakError, match="belongs to user 1234 and cannot count"):
        load_family(str(pool / "core"), main=main, admin=True)
    os.chown(pool / "core", 1234, 1234)
    admin = load_family(str(pool / "core"), main=main, admin=True).leaf.admin
    assert admin is not None and not admin.may_loosen


def test_main_admin_stands_beside_main(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text("")
    (tmp_path / "main-admin.yaml").write_text("config: {verbose: true}\n")
    assert load_main(str(tmp_path / "main.yaml"), {}).admin is None
    if os.getuid() == 0:
        admin = load_main(str(tmp_path / "main.yaml"), {}, admin=True).admin
        assert admin is not None and admin.config.tags.verbose is True
