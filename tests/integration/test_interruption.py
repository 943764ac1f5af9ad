# SPDX-License-Identifier: Apache-2.0
"""kill -9 in mid-transaction: the next command heals the node and says so."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.actors import Actor, describe
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository

KILLS = 20
HEALED = ("threw away the unfinished transaction", "finished the transaction")


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "versions"
    for version in ("1.0", "2.0"):
        files = {f"/usr/share/many/{number}": f"{version} {number}\n" for number in range(200)}
        files[f"/usr/share/many/only-{version}"] = "x\n"
        build_rpm(
            directory,
            "many",
            version=version,
            files=files,
            scriptlets={"post": "echo %{version} > /usr/share/many/version"},
        )
    return create_repository(directory)


def content(node: TestNode) -> dict[str, tuple[object, ...]]:
    """Digests and modes of the packages' files; the rpmdb by what it says."""
    files: dict[str, tuple[object, ...]] = {
        path: (row[0], row[1], row[2], row[4])
        for path, row in node.state().items()
        if path.startswith("usr/")
    }
    query = ["rpm", "--dbpath", node.path / "var/lib/rpm", "-qa", "--qf", "%{NEVRA} %{SIGMD5}\\n"]
    files["rpmdb"] = tuple(sorted(node.actor.check(query).split("\n")))
    return files


def kill_after(node: TestNode, seconds: float, *words: str) -> bool:
    """Run red-dnf and kill it (it alone: what it started must follow). True if it was running."""
    argv = ["red-dnf", *words, f"--redpath={node.path}"]
    process = node.actor.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        process.wait(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True


def test_a_killed_transaction_leaves_the_old_node_or_the_new(
    actor: Actor, pool: Path, repository: Path
) -> None:
    node = make_node(actor, pool / "node", "node", repository)
    node.install("many-1.0")
    old = content(node)
    start = time.monotonic()
    node.dnf("red-upgrade", "-y", "many")
    duration = time.monotonic() - start
    new = content(node)
    node.dnf("red-downgrade", "-y", "many")
    assert content(node) == old

    generator = random.Random(KILLS)
    killed = healed = 0
    for number in range(KILLS):
        # Spread over the measured duration, one in each of KILLS equal parts.
        moment = duration * (number + generator.random()) / KILLS
        running = kill_after(node, moment, "red-upgrade", "-y", "many")
        killed += running
        done = node.try_dnf("red-list", "--installed")
        assert done.returncode == 0, describe(done)
        told = any(text in done.stderr for text in HEALED)
        dirty = (node.path / ".redpak/stage").exists()
        done = node.try_dnf("red-manager", "--recover")
        assert done.returncode == 0, describe(done)
        told = told or any(text in done.stderr for text in HEALED)
        assert told or not dirty, describe(done)
        healed += told
        assert content(node) in (old, new), f"killed after {moment:.3f} s"
        assert not (node.path / ".redpak/stage").exists()
        assert not (node.path / ".redpak/journal").exists()
        if content(node) == new:
            node.dnf("red-downgrade", "-y", "many")
    assert killed >= KILLS // 2
    assert healed >= KILLS // 4
    with open("/proc/self/mountinfo") as mounts:
        assert os.fspath(node.path) not in mounts.read()
