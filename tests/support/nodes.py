# SPDX-License-Identifier: Apache-2.0
"""Nodes for tests: made by the real commands, looked at by the stock ones."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from support.actors import Actor, describe
from support.trees import snapshot_tree

# What a failed command may still have changed (design section 4).
NOT_STATE = ("var/cache", "var/log", ".redpak")

Finished = subprocess.CompletedProcess


@dataclass(frozen=True)
class TestNode:
    """A node and the user who works on it."""

    __test__ = False

    actor: Actor
    path: Path

    def try_dnf(self, *words: Union[str, Path], **options: object) -> Finished[str]:
        """Run red-dnf on the node and return how it ended."""
        argv = ["red-dnf", *words, f"--redpath={self.path}"]
        return self.actor.run(argv, **options)  # type: ignore[arg-type]

    def dnf(self, *words: Union[str, Path], **options: object) -> str:
        """Run red-dnf on the node, insist on success, return stdout."""
        done = self.try_dnf(*words, **options)
        assert done.returncode == 0, describe(done)
        return done.stdout

    def install(self, *packages: str) -> str:
        return self.dnf("red-install", "-y", *packages)

    def packages(self) -> list[str]:
        """Names in the node's own rpmdb, by stock rpm."""
        query = ["rpm", "--dbpath", self.path / "var/lib/rpm", "-qa", "--qf", "%{NAME}\\n"]
        return sorted(self.actor.check(query).split())

    def state(self) -> dict[str, tuple[object, ...]]:
        """What "the node is as it was" compares."""
        return snapshot_tree(self.path, without=NOT_STATE)

    def fails(self, *words: Union[str, Path], message: str) -> None:
        """Insist that a command fails with ``message`` on stderr, no traceback, and no change."""
        before = self.state() if self.path.exists() else None
        done = self.try_dnf(*words)
        assert done.returncode != 0, describe(done)
        assert message in done.stderr, describe(done)
        assert "Traceback" not in done.stderr, describe(done)
        after = self.state() if self.path.exists() else None
        assert after == before, describe(done)


def make_node(actor: Actor, path: Path, alias: str, *repositories: Path) -> TestNode:
    """Create a node with repositories of unsigned packages."""
    node = TestNode(actor, path)
    words = ["red-manager", "--create", f"--alias={alias}", "--setopt=gpgcheck=0", "--save"]
    node.dnf(*words, *(f"--add-repo={repository}" for repository in repositories))
    return node
