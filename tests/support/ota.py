# SPDX-License-Identifier: Apache-2.0
"""A family of three nodes, bundles for its middle one, and what they must make of it."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from support.actors import Actor, describe
from support.interruption import (
    VICTIMS,
    Content,
    Tools,
    difference,
    start_and_kill,
    wait_until_alone,
)
from support.nodes import Finished, TestNode, make_node
from support.rpms import RpmFile, build_rpm
from support.signing import SigningKey, make_key

Word = Union[str, Path]
RECORD = "var/lib/redpak/bundles.json"
CHANGES = 60  # that a commit of the bundle makes, at least


@dataclass(frozen=True)
class OtaPackages:
    """low-1 for the oldest node; app, tool and lib for the middle one; top for the leaf."""

    directory: Path
    key: SigningKey
    stranger: SigningKey

    def __getitem__(self, label: str) -> Path:
        return self.directory / f"{label}-1.noarch.rpm"


def build_packages(directory: Path) -> OtaPackages:
    """app-2 needs lib, which tool-1 hides from the node; top needs app of any version."""
    out = directory / "packages"
    for version in ("1", "2"):
        files: dict[str, Union[str, RpmFile]] = {
            f"/usr/share/app/{number}": f"{version} {number}\n" for number in range(12)
        }
        files["/etc/app.conf"] = RpmFile("x\n", directive="%config(noreplace)")
        build_rpm(out, "app", version=version, files=files,
                  requires=["low"] if version == "1" else ["low", "lib"],
                  scriptlets={"post": f"echo {version} > /usr/share/app/post; sleep 0.05"})
    build_rpm(out, "low", version="1", files={"/usr/share/low": "x\n"})
    build_rpm(out, "lib", version="1", files={"/usr/share/lib": "x\n"}, tags=["Conflicts: tool"])
    build_rpm(out, "tool", version="1", files={"/usr/share/tool/file": "x\n"})
    build_rpm(out, "top", version="1", files={"/usr/share/top": "x\n"}, requires=["app"])
    build_rpm(out, "more", version="1", files={"/usr/share/more": "x\n"})
    return OtaPackages(out, make_key(directory, "maker"), make_key(directory, "stranger"))


@dataclass(frozen=True)
class OtaFamily:
    """low, its child middle and that one's child leaf; the bundle updates middle."""

    nodes: tuple[TestNode, TestNode, TestNode]
    packages: OtaPackages
    home: Path

    @property
    def middle(self) -> TestNode:
        return self.nodes[1]

    @classmethod
    def make(cls, actor: Actor, pool: Path, packages: OtaPackages) -> OtaFamily:
        # Processes are told by the end of a path: it must be nobody else's.
        nodes = [make_node(actor, pool / pool.parent.name / "low", "low")]
        for alias in ("middle", "leaf"):
            nodes.append(make_node(actor, nodes[-1].path / alias, alias))
        # The actor signs with a copy: gpg insists on a home of his own, with a short name for the
        # socket of its agent.
        work = tempfile.mkdtemp(prefix="gpg.", dir="/tmp")
        atexit.register(shutil.rmtree, work, ignore_errors=True)
        os.chmod(work, 0o755)
        home = Path(work, "home")
        shutil.copytree(packages.key.home, home, ignore=shutil.ignore_patterns("S.*"))
        subprocess.run(["chown", "-R", f"{actor.uid}:{actor.gid}", home], check=True)
        home.chmod(0o700)
        family = cls((nodes[0], nodes[1], nodes[2]), packages, home)
        family.check(nodes[0], "-i", "--nosignature", packages["low-1"])
        # The key is the oldest node's: its descendants trust it.
        family.check(nodes[0], "--import", packages.key.public)
        family.check(nodes[1], "-i", "--nosignature", packages["app-1"], packages["tool-1"])
        family.check(nodes[2], "-i", "--nosignature", packages["top-1"])
        return family

    def run(self, node: TestNode, *words: Word) -> Finished[str]:
        return node.actor.run(["red-rpm", f"--redpath={node.path}", *words])

    def check(self, node: TestNode, *words: Word) -> str:
        done = self.run(node, *words)
        assert done.returncode == 0, describe(done)
        return done.stdout

    def bundle(self, target: Path, *words: Word) -> Path:
        """Have red-manager make a bundle for the middle node."""
        argv = ["red-manager", f"--bundle={target}", "--sign-key=maker", *words]
        self.middle.dnf(*argv, env={"GNUPGHOME": str(self.home)})
        return target

    def update(self, target: Path) -> Path:
        """The bundle from app-1 and tool to app-2 and lib: made from the difference, on the node
        itself, which then is what it was."""
        packages, middle = self.packages, self.middle
        state = target.parent / "state.json"
        state.write_text(self.check(middle, "--ota-state"))
        subprocess.run(["cp", "-a", middle.path, target.parent / "before"], check=True)
        self.check(middle, "-e", "tool")
        self.check(middle, "-U", "--nosignature", packages["app-2"], packages["lib-1"])
        self.bundle(target, f"--since={state}", packages.directory)
        self.restore(target.parent / "before")
        return target

    def restore(self, saved: Path) -> None:
        """Make the middle node, and what lies below, a copy of ``saved``."""
        subprocess.run(["rm", "-rf", self.middle.path], check=True)
        subprocess.run(["cp", "-a", saved, self.middle.path], check=True)


class OtaBench:
    """An update to be interrupted, again and again."""

    def __init__(self, family: OtaFamily, ground: Path, tools: Tools, *, tar: bool) -> None:
        self.family = family
        self.bundle = family.update(ground / ("bundle.tar" if tar else "bundle"))
        self._saved = ground / "before"
        self.old = self._content()
        start = time.monotonic()
        family.check(family.middle, f"--ota={self.bundle}")
        self.duration = time.monotonic() - start  # seconds
        self.new = self._content()
        self._tools = tools

    def _content(self) -> dict[str, object]:
        found = Content.of(self.family.middle).loose
        assert isinstance(found, dict)
        found.pop(RECORD, None)  # it has the time of its making
        return found

    def interrupt(self, generator: random.Random) -> str:
        """Kill one apply, look at the node, apply again; where it was killed."""
        self.family.restore(self._saved)
        middle = self.family.middle
        argv = ["red-rpm", f"--redpath={middle.path}", f"--ota={self.bundle}"]
        if generator.random() < 0.3:
            point = generator.randrange(CHANGES)
            done = middle.actor.run(self._tools.command("dying.py", point, *argv))
            assert done.returncode == -9, describe(done)
            where = f"change {point}"
        else:
            moment = generator.random() * self.duration
            killed = start_and_kill(middle.actor, argv, moment, generator.choice(VICTIMS))
            where = "clock" if killed else "too late"
        done = self.family.run(middle, f"--ota={self.bundle}")
        assert done.returncode == 0, describe(done)
        wait_until_alone(middle.path)
        difference(self._content(), self.new)
        assert self.family.check(middle, "-Va", "--family") == ""
        assert self.family.check(middle, "--ota-list").count("\n") == 1
        left = {name.split(".")[0] for name in os.listdir(middle.path / ".redpak")}
        assert left <= {"previous", "family-rpmdb"}, left
        again = self.family.check(middle, f"--ota={self.bundle}")
        assert "is already applied." in again, again
        return where
