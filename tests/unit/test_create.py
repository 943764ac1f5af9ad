# SPDX-License-Identifier: Apache-2.0
"""Making nodes and changing them, on real directories."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from redpak.create import create_node, set_state, update_node
from redpak.errors import RedpakError
from redpak.expand import Caller
from redpak.family import Main, find_descendants, load_family, load_main
from redpak.merge import merge_family
from redpak.node import NodeState, NodeStatus, write_status
from redpak.values import replace

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def main() -> Main:
    return load_main(str(CONF / "main.yaml"), {})


def test_a_created_family_merges_with_the_shipped_configuration(tmp_path: Path,
                                                                main: Main) -> None:
    core = create_node(str(tmp_path / "core"), alias="agl-core", main=main)
    demo = create_node(str(tmp_path / "core/demo"), alias="agl-demo", main=main)
    family = load_family(demo.path, main=main)
    assert [node.alias for node in family.nodes] == ["agl-core", "agl-demo"]
    effective = merge_family(family, environ={}, caller=Caller.current())
    paths = {export.mount: export.path for export in effective.exports}
    assert paths["/nodes/agl-core/usr"] == f"{core.path}/usr"
    assert paths["/nodes/_private"] == f"{demo.path}/private"
    assert paths["/var/lib/rpm"] == f"{demo.path}/var/lib/rpm"
    assert effective.tags.hostname == "agl-demo"
    assert effective.tags.path[0] == "/nodes/agl-demo/usr/bin"
    assert effective.warnings == ()


def test_every_directory_that_the_template_exports_exists(tmp_path: Path, main: Main) -> None:
    node = create_node(str(tmp_path / "core"), alias="core", main=main)
    for name in ("usr", "etc", "opt", "var", "private", "var/lib/rpm", "etc/yum.repos.d"):
        assert os.path.isdir(f"{node.path}/{name}")


def test_an_alias_with_a_slash_is_refused_and_nothing_is_made(tmp_path: Path,
                                                              main: Main) -> None:
    with pytest.raises(RedpakError, match=r'"a/b" is not an alias; use letters, digits'):
        create_node(str(tmp_path / "core"), alias="a/b", main=main)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("alias", ["redmain", "_private"])
def test_a_reserved_alias_is_refused(tmp_path: Path, main: Main, alias: str) -> None:
    with pytest.raises(RedpakError, match=f'the alias "{alias}" is reserved; choose another'):
        create_node(str(tmp_path / "core"), alias=alias, main=main)
    assert os.listdir(tmp_path) == []


def test_an_alias_of_the_family_is_refused(tmp_path: Path, main: Main) -> None:
    create_node(str(tmp_path / "core"), alias="core", main=main)
    with pytest.raises(RedpakError, match=r"the alias core belongs to both"):
        create_node(str(tmp_path / "core/demo"), alias="core", main=main)
    assert not (tmp_path / "core/demo").exists()


def test_a_node_that_exists_is_refused_without_update(tmp_path: Path, main: Main) -> None:
    create_node(str(tmp_path / "core"), alias="core", main=main)
    with pytest.raises(RedpakError, match=r"is a node already; say --update to change it"):
        create_node(str(tmp_path / "core"), alias="other", main=main)


def test_an_unknown_template_names_the_known_ones(tmp_path: Path, main: Main) -> None:
    with pytest.raises(RedpakError, match=r'unknown template defalt.*did you mean "default"'):
        create_node(str(tmp_path / "core"), alias="core", main=main, template="defalt")
    assert os.listdir(tmp_path) == []


def test_a_moved_node_is_refused_until_it_is_updated(tmp_path: Path, main: Main) -> None:
    create_node(str(tmp_path / "core"), alias="core", main=main)
    (tmp_path / "core").rename(tmp_path / "moved")
    with pytest.raises(RedpakError, match=r"was created at .*/core; accept the move"):
        load_family(str(tmp_path / "moved"), main=main)
    assert load_family(str(tmp_path / "moved"), main=main, force=True).leaf.alias == "core"
    update_node(str(tmp_path / "moved"), main=main)
    assert load_family(str(tmp_path / "moved"), main=main).leaf.alias == "core"


def test_a_disabled_node_is_refused(tmp_path: Path, main: Main) -> None:
    create_node(str(tmp_path / "core"), alias="core", main=main)
    set_state(str(tmp_path / "core"), NodeState.DISABLE)
    with pytest.raises(RedpakError, match=r"has the state Disable; set it with red-manager"):
        load_family(str(tmp_path / "core"), main=main)


@pytest.mark.parametrize("changes", [
    {}, {"info": "new"}, {"template": "leaf"}, {"template_admin": "leaf"}])
def test_an_update_keeps_the_state_and_its_reason(
        tmp_path: Path, main: Main, changes: dict[str, str]) -> None:
    """It says where the node is; whether the node may be used is for --state to say."""
    create_node(str(tmp_path / "core"), alias="core", main=main)
    status = NodeStatus(NodeState.DISABLE, str(tmp_path / "core"), 12345, "under repair")
    write_status(str(tmp_path / "core"), status)
    (tmp_path / "core").rename(tmp_path / "moved")
    node = update_node(str(tmp_path / "moved"), main=main, **changes)
    assert node.status == replace(status, realpath=str(tmp_path / "moved"))


def test_no_node_can_be_made_in_the_usr_of_another(tmp_path: Path, main: Main) -> None:
    create_node(str(tmp_path / "core"), alias="core", main=main)
    with pytest.raises(RedpakError, match=r"is in usr/ of node core .* where no node can be"):
        create_node(str(tmp_path / "core/usr/demo"), alias="demo", main=main)


def test_descendants_are_found_at_any_depth_but_not_through_links(tmp_path: Path,
                                                                 main: Main) -> None:
    create_node(str(tmp_path / "core"), alias="core", main=main)
    create_node(str(tmp_path / "core/group/a"), alias="a", main=main)
    create_node(str(tmp_path / "core/group/a/b"), alias="b", main=main)
    (tmp_path / "core/link").symlink_to(tmp_path / "core/group")
    assert find_descendants(str(tmp_path / "core")) == [
        str(tmp_path / "core/group/a"), str(tmp_path / "core/group/a/b")]


def test_a_copy_of_a_node_needs_a_name_of_its_own(tmp_path: Path, main: Main) -> None:
    node = create_node(str(tmp_path / "core"), alias="core", main=main)
    shutil.copytree(tmp_path / "core", tmp_path / "copy")
    with pytest.raises(RedpakError, match=rf"the name {node.name} belongs to .*/core already; "
                                          "say --name=NAME"):
        update_node(str(tmp_path / "copy"), main=main)
    copy = update_node(str(tmp_path / "copy"), main=main, name="another")
    assert (copy.name, copy.status.realpath) == ("another", str(tmp_path / "copy"))
    assert load_family(copy.path, main=main).leaf.name == "another"


def test_a_name_of_a_sibling_is_refused(tmp_path: Path, main: Main) -> None:
    for name in ("core", "core/a"):
        create_node(str(tmp_path / name), alias=name.replace("/", "-"), name=name, main=main)
    with pytest.raises(RedpakError, match=r"the name core/a belongs to .*/core/a already"):
        create_node(str(tmp_path / "core/b"), alias="b", name="core/a", main=main)
    assert not (tmp_path / "core/b").exists()


def test_a_node_that_cannot_be_written_is_not_left_half_made(tmp_path: Path, main: Main) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core/etc").write_text("no directory")
    with pytest.raises(RedpakError, match=r"cannot write .*/core/etc: File exists"):
        create_node(str(tmp_path / "core"), alias="core", main=main)
    assert os.listdir(tmp_path / "core") == ["etc"]


def test_a_node_between_two_others_must_fit_both(tmp_path: Path, main: Main) -> None:
    create_node(str(tmp_path / "a/b/c"), alias="c", main=main)
    with pytest.raises(RedpakError, match="the alias c belongs to both"):
        create_node(str(tmp_path / "a/b"), alias="c", main=main)
    create_node(str(tmp_path / "a/b"), alias="b", main=main)
    assert [node.alias for node in load_family(str(tmp_path / "a/b/c"), main=main).nodes] == [
        "b", "c"]


def test_a_child_of_a_disabled_node_needs_force(tmp_path: Path, main: Main) -> None:
    create_node(str(tmp_path / "core"), alias="core", main=main)
    set_state(str(tmp_path / "core"), NodeState.DISABLE)
    with pytest.raises(RedpakError, match="has the state Disable"):
        create_node(str(tmp_path / "core/demo"), alias="demo", main=main)
    create_node(str(tmp_path / "core/demo"), alias="demo", main=main, force=True)
