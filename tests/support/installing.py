# SPDX-License-Identifier: Apache-2.0
"""The checkout, installed: what the tests and the campaigns run."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.actors import SYSTEM_PATH, Actor, actor_kinds, find_actor
from support.frontends import dnf_under_test

CHECKOUT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Installation:
    """What scripts/install makes in a prefix."""

    prefix: Path

    @classmethod
    def make(cls, prefix: Path) -> Installation:
        subprocess.run([CHECKOUT / "scripts/install", f"--prefix={prefix}"], check=True)
        return cls(prefix)

    @property
    def main(self) -> Path:
        return self.prefix / "etc/redpak/main.yaml"

    def adopt_host(self) -> None:
        """Register a host without an rpm database in the prefix."""
        if f"rpmdir: {self.prefix}/" in self.main.read_text():
            actor = self._with_environ(find_actor(actor_kinds()[-1]), home=self.prefix)
            actor.check(["red-dnf", "red-manager", "--adopt"])

    def actor(self, kind: str, home: Path) -> Actor:
        """Who runs the installed commands; makes the home directory."""
        found = find_actor(kind)
        home.mkdir()
        os.chown(home, found.uid, found.gid)
        return self._with_environ(found, home=home)

    def _with_environ(self, actor: Actor, *, home: Path) -> Actor:
        return actor.with_environ(
            PATH=f"{self.prefix}/bin:{SYSTEM_PATH}", HOME=str(home), LANG="C.UTF-8", TERM="dumb",
            redpak_MAIN=str(self.main), REDPAK_DNF=dnf_under_test())
