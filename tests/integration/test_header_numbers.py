# SPDX-License-Identifier: Apache-2.0
"""Headers of two rpmdbs that happen to have one number are two packages all the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from redrpm.coherence import find_problems
from redrpm.rpmdb import Member, make_readable
from support.actors import Actor, describe
from support.nodes import make_node
from support.rpms import build_rpm


@pytest.fixture(scope="module")
def packages(session_pool: Path) -> dict[str, Path]:
    directory = session_pool / "numbers"
    return {"first": build_rpm(directory, "first"), "victim": build_rpm(directory, "victim"),
            "second": build_rpm(directory, "second"),
            "foe": build_rpm(directory, "foe", tags=["Conflicts: victim"])}


def register(directory: Path, *packages: Path) -> str:
    """Number the packages from 1 in the rpmdb ``directory``."""
    directory.mkdir(exist_ok=True)
    for package in packages:
        subprocess.run(["rpm", "--dbpath", directory, "--justdb", "--nodeps", "-i", package],
                       check=True, capture_output=True)
    make_readable(str(directory))
    return str(directory)


def test_a_transaction_sees_their_conflict(tmp_path: Path, packages: dict[str, Path]) -> None:
    base = register(tmp_path / "base", packages["first"], packages["victim"])
    leaf = register(tmp_path / "leaf", packages["second"], packages["foe"])
    assert find_problems(base, [Member("/node", leaf)]) == {
        "victim conflicts with foe-1.0-1.noarch"}


def test_red_check_sees_their_conflict(actor: Actor, pool: Path,
                                       packages: dict[str, Path]) -> None:
    parent = make_node(actor, pool / "parent", "parent")
    child = make_node(actor, parent.path / "child", "child")
    for node, names in ((parent, ("first", "victim")), (child, ("second", "foe"))):
        register(node.path / "var/lib/rpm", *(packages[name] for name in names))
    done = actor.run(["red-check", f"--redpath={child.path}", "--json"])
    assert done.returncode == 1, describe(done)
    assert [(each["rule"], each["message"]) for each in json.loads(done.stdout)["findings"]] == [
        ("conflict", "victim conflicts with foe-1.0-1.noarch")]
