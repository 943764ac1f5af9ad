# SPDX-License-Identifier: Apache-2.0
"""The path a newcomer walks, on the example packages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor, describe
from support.frontends import says
from support.nodes import TestNode, make_node
from support.trees import snapshot_tree


@pytest.fixture(scope="module")
def examples(session_pool: Path, checkout: Path) -> Path:
    directory = session_pool / "examples"
    subprocess.run([str(checkout / "scripts/build-examples"), str(directory)], check=True)
    return directory


@pytest.fixture
def core(actor: Actor, pool: Path, examples: Path) -> TestNode:
    node = make_node(actor, pool / "agl-redpesk9", "agl-core", examples / "platform")
    node.install("agl-httpd")
    return node


@pytest.fixture
def demo(core: TestNode, examples: Path) -> TestNode:
    return make_node(core.actor, core.path / "agl-demo", "agl-demo", examples / "application")


def test_search_finds_what_the_repository_of_the_node_has(core: TestNode) -> None:
    assert "agl-httpd.x86_64" in core.dnf("red-search", "httpd")
    assert "agl-httpd.x86_64" in core.dnf("rse", "httpd")


def test_list_and_repolist_show_the_node(core: TestNode, demo: TestNode) -> None:
    assert "agl-httpd" in core.dnf("red-list", "--installed")
    assert "platform" in core.dnf("red-repolist")
    assert "platform" not in demo.dnf("red-repolist")
    assert "application" in demo.dnf("red-repolist")


def test_a_command_runs_in_the_namespace_of_its_node(core: TestNode) -> None:
    wrap = ["red-wrap", f"--redpath={core.path}"]
    assert core.actor.check([*wrap, "agl-httpd", "--version"]).startswith("agl-httpd ")
    assert core.actor.check([*wrap, "--", "rpm", "-qa"]).count("agl-httpd") == 1


def test_a_child_reuses_its_parent_and_leaves_it_alone(core: TestNode, demo: TestNode) -> None:
    before = snapshot_tree(core.path, without=("agl-demo",))
    demo.install("helloworld")
    assert demo.packages() == ["helloworld"]
    assert core.packages() == ["agl-httpd", "libaglhttp"]
    listing = core.actor.check(["red-wrap", f"--redpath={demo.path}", "ls", "/nodes/agl-demo/usr"])
    assert "share" in listing
    demo.dnf("red-remove", "-y", "helloworld")
    assert demo.packages() == []
    assert snapshot_tree(core.path, without=("agl-demo",)) == before


def test_a_package_of_the_parent_is_not_installed_again(core: TestNode, demo: TestNode) -> None:
    before = demo.state()
    done = demo.try_dnf("red-install", "-y", "agl-httpd")
    assert done.returncode == 0, describe(done)
    assert says("already installed", "agl-httpd-1.0.0-1.x86_64") in done.stdout + done.stderr
    assert demo.packages() == []
    assert demo.state() == before


def test_a_package_of_the_parent_is_not_removed_from_the_child(
    core: TestNode, demo: TestNode
) -> None:
    demo.fails(
        "red-remove",
        "-y",
        "libaglhttp",
        message=f"belongs to node agl-core ({core.path}), node agl-demo cannot change it;"
        f" use --redpath={core.path}",
    )


def test_rm_rf_deletes_a_child_and_the_parent_works_on(core: TestNode, demo: TestNode) -> None:
    demo.install("helloworld")
    shutil.rmtree(demo.path)
    core.actor.check(["red-wrap", f"--redpath={core.path}", "agl-httpd", "--version"])
    core.dnf("red-remove", "-y", "agl-httpd")
    assert core.packages() == []
