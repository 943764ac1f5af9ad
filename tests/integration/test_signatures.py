# SPDX-License-Identifier: Apache-2.0
"""Signatures: gpgcheck is a constraint, keys belong to the node that imported them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from support.actors import Actor
from support.frontends import says
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository, write_repo_file
from support.signing import SigningKey, make_key


@dataclass(frozen=True)
class Sources:
    """Repositories: signed by a key, signed by another one, not signed."""

    key: SigningKey
    signed: Path
    foreign: Path
    plain: Path


@pytest.fixture(scope="module")
def sources(session_pool: Path) -> Sources:
    directory = session_pool / "signatures"
    key, stranger = make_key(directory, "maker"), make_key(directory, "stranger")
    key.sign(build_rpm(directory / "signed", "signed", files={"/usr/share/signed": "x\n"}))
    key.sign(build_rpm(directory / "signed", "second", files={"/usr/share/second": "x\n"}))
    stranger.sign(build_rpm(directory / "foreign", "foreign"))
    build_rpm(directory / "plain", "plain", files={"/usr/share/plain": "x\n"})
    places = [create_repository(directory / name) for name in ("signed", "foreign", "plain")]
    return Sources(key, *places)


@pytest.fixture
def parent(actor: Actor, pool: Path, pool_root: Path, sources: Sources) -> TestNode:
    """A node that insists on signatures."""
    node = make_node(actor, pool / "parent", "parent")
    config = node.path / "etc/redpack.yaml"
    config.write_text(config.read_text().replace("config:\n", "config:\n  gpgcheck: true\n", 1))
    add(node, pool_root, "signed", sources.signed, f"gpgkey=file://{sources.key.public}")
    return node


def add(node: TestNode, directory: Path, name: str, repository: Path, *lines: str) -> None:
    file = write_repo_file(directory / f"{name}.repo", name, repository, *lines)
    node.dnf("red-manager", f"--add-repo={file}")


def test_the_key_of_a_repository_is_imported_into_the_node(parent: TestNode) -> None:
    parent.install("signed")
    assert parent.packages() == ["gpg-pubkey", "signed"]


def test_a_child_trusts_the_keys_of_its_parent_and_does_not_copy_them(
    parent: TestNode, pool_root: Path, sources: Sources
) -> None:
    parent.install("signed")
    child = make_node(parent.actor, parent.path / "child", "child")
    add(child, pool_root, "again", sources.signed)
    child.install("second")
    assert child.packages() == ["second"]


def test_a_child_cannot_loosen_what_its_parent_insists_on(
    parent: TestNode, pool_root: Path, sources: Sources
) -> None:
    child = make_node(parent.actor, parent.path / "child", "child")
    config = child.path / "etc/redpack.yaml"
    config.write_text(config.read_text().replace("config:\n", "config:\n  gpgcheck: false\n", 1))
    add(child, pool_root, "plain", sources.plain)
    message = says("unsigned", "plain-1.0-1.noarch")
    child.fails("red-install", "-y", "plain", message=message)
    child.fails("red-install", "-y", "plain", "--nogpgcheck", message=message)


def test_a_package_signed_by_an_unknown_key_is_refused(
    parent: TestNode, pool_root: Path, sources: Sources
) -> None:
    add(parent, pool_root, "foreign", sources.foreign, f"gpgkey=file://{sources.key.public}")
    parent.fails("red-install", "-y", "foreign", message=says("signed by another key"))


def test_a_local_package_is_checked_too(parent: TestNode, sources: Sources) -> None:
    package = next(sources.plain.glob("*.rpm"))
    parent.fails("red-install", "-y", package, message="is not signed")


def test_without_the_constraint_the_repository_decides(
    actor: Actor, pool: Path, pool_root: Path, sources: Sources
) -> None:
    node = make_node(actor, pool / "free", "free")
    add(node, pool_root, "plain", sources.plain)
    node.install("plain")
    assert node.packages() == ["plain"]
