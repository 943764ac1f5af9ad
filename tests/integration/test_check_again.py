# SPDX-License-Identifier: Apache-2.0
"""red-check once more: what it remembers makes it quicker, and never changes its answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from support.actors import Actor, describe
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository

_OLD = 2.1  # seconds, after which a check believes the times of files


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "again-repository"
    build_rpm(directory, "base", files={
        "/usr/share/base/data": "base, as it is shipped\n", "/opt/base/data": "base\n",
        "/var/lib/base/state/data": "base\n", "/apps/note": "base\n"})
    return create_repository(directory)


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    made = make_node(actor, pool / "node", "node", repository)
    made.install("base")
    return made


def report(node: TestNode, *words: str) -> dict[str, Any]:
    done = node.actor.run(["red-check", f"--redpath={node.path}", "--json", "--no-stamp", *words])
    assert done.stderr == "", describe(done)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def findings(node: TestNode) -> list[tuple[str, str]]:
    """Rule and path of each finding; the report is the same from memory and without."""
    again, cold = report(node), report(node, "--no-cache")
    assert again == cold
    assert report(node) == cold
    return [(each["rule"], each["path"]) for each in cold["findings"]]


def settle(node: TestNode) -> None:
    """Have everything remembered."""
    time.sleep(_OLD)
    report(node)
    assert findings(node) == []


def test_a_directory_among_data_is_missed_and_found_again(node: TestNode) -> None:
    """No package owns /var/lib/base, nor what lies beside it."""
    settle(node)
    place, elsewhere = node.path / "var/lib/base", node.path / "var/lib/elsewhere"
    place.rename(elsewhere)
    assert findings(node) == [("missing-file", "/var/lib/base/state/data")]
    time.sleep(_OLD)
    assert findings(node) == [("missing-file", "/var/lib/base/state/data")]
    elsewhere.rename(place)
    assert findings(node) == []


def test_files_are_looked_for_where_a_new_link_leads(node: TestNode) -> None:
    settle(node)
    place = node.path / "opt/base"
    place.rename(node.path / "usr/share/elsewhere")
    place.symlink_to("/usr/share/elsewhere")
    assert findings(node) == [("unowned-file", "/opt/base")]
    (node.path / "usr/share/elsewhere/data").unlink()
    assert findings(node) == [("missing-file", "/opt/base/data"), ("unowned-file", "/opt/base")]


def test_files_are_looked_for_in_a_directory_that_did_not_change(node: TestNode) -> None:
    """It was looked at, and found as it was, before the link to it was."""
    settle(node)
    place = node.path / "opt/base"
    place.rename(node.path / "var/elsewhere")
    place.symlink_to("/usr/share/base")
    assert findings(node) == [("changed-file", "/opt/base/data"), ("unowned-file", "/opt/base")]


def test_a_finding_is_told_of_the_node_by_its_new_alias(node: TestNode) -> None:
    (node.path / "usr/share/base/data").write_text("evil\n")
    time.sleep(_OLD)
    assert findings(node) == [("changed-file", "/usr/share/base/data")]
    node.dnf("red-manager", "--update", "--alias=other")
    assert findings(node) == [("changed-file", "/usr/share/base/data")]
    assert [each["alias"] for each in report(node)["findings"]] == ["other"]


def test_what_dnf_no_longer_keeps_in_a_directory_belongs_to_nobody(node: TestNode) -> None:
    config, state = node.path / "etc/redpack.yaml", node.path / "opt/state"
    before = config.read_text()
    config.write_text(before.replace("\nconfig:", "\nconfig:\n  persistdir: opt/state", 1))
    state.mkdir()
    (state / "file").touch()
    settle(node)
    config.write_text(before)
    assert findings(node) == [("unowned-file", "/opt/state/file")]


def test_packages_may_have_files_beside_a_child(node: TestNode, repository: Path) -> None:
    """What else lies there is none of the node's."""
    make_node(node.actor, node.path / "apps/child", "child", repository)
    (node.path / "apps/readme").touch()
    settle(node)
    (node.path / "apps/note").write_text("evil\n")
    assert findings(node) == [("changed-file", "/apps/note")]
    (node.path / "apps/note").unlink()
    assert findings(node) == [("missing-file", "/apps/note")]


def test_a_damaged_memory_is_none(node: TestNode) -> None:
    settle(node)
    places = sorted((node.path / ".redpak").glob("check-*.json"))
    assert [place.name for place in places] == [
        "check-family.json", "check-files.json", "check-owned.json"]
    for damage in (b"", b"{}", b"[" * 100_000, b"\xff\n5", "cut", "edited", "link", "directory"):
        for place in places:
            sound = place.read_bytes()
            if damage == "cut":
                place.write_bytes(sound[:-1])
            elif damage == "edited":
                place.write_bytes(sound.replace(b'"value":{', b'"value":{"links":5,', 1))
            elif damage == "link":
                place.rename(node.path / "var" / place.name)
                place.symlink_to(node.path / "var" / place.name)
            elif damage == "directory":
                place.unlink()
                place.mkdir()
            else:
                assert isinstance(damage, bytes)
                place.write_bytes(damage)
        assert findings(node) == [], damage


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_an_image_that_was_exchanged_is_looked_at(node: TestNode, pool: Path) -> None:
    """Each file has the inode, size and times that it had: in a file of it, other bytes."""
    image, place = pool / "image", pool / "mounted"
    node.path.rename(pool / "tree")
    shutil.copytree(node.path.parent / "tree", pool / "source/node", symlinks=True,
                    copy_function=shutil.copy2)
    subprocess.run(["mke2fs", "-q", "-d", pool / "source", image, "64M"], check=True)
    place.mkdir()
    time.sleep(_OLD)
    answers = []
    for _ in range(2):
        mounted = subprocess.run(["mount", "-o", "loop,ro", image, place], check=False,
                                 capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(mounted.stderr)
        try:
            for words in ([], [], ["--no-cache"]):
                made = TestNode(node.actor, place / "node")
                answers.append([each["path"] for each in report(made, *words)["findings"]
                                if each["rule"] == "changed-file"])
        finally:
            subprocess.run(["umount", place], check=True)
        data = image.read_bytes()
        image.write_bytes(data.replace(b"base, as it is shipped\n", b"base, as it is shaped!\n"))
    assert answers[0] == answers[1] == answers[2]
    assert answers[3] == answers[4] == answers[5] == ["/usr/share/base/data"]
