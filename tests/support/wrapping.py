# SPDX-License-Identifier: Apache-2.0
"""Families of nodes for red-wrap, and red-wrap itself as its users run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from support.actors import SYSTEM_PATH, Actor

CHECKOUT = Path(__file__).resolve().parent.parent.parent
UUID = "00000000-0000-4000-8000-{:012d}"

MAIN = """\
config:
  hostname: $LEAF_ALIAS
  path: [/usr/bin]
  chdir: /
exports:
  - {mode: Restricted, mount: /usr/bin}
  - {mode: Restricted, mount: /usr/lib}
  - {mode: Restricted, mount: /usr/lib64, optional: true}
  - {mode: Symlink, mount: /bin, path: usr/bin}
  - {mode: Symlink, mount: /lib, path: usr/lib}
  - {mode: Symlink, mount: /lib64, path: usr/lib64}
  - {mode: Restricted, mount: /etc/alternatives, optional: true}
  - {mode: Procfs, mount: /proc}
  - {mode: Devfs, mount: /dev}
  - {mode: Tmpfs, mount: /tmp}
"""
NODE = """\
headers: {alias: %(alias)s, name: %(name)s}
%(config)s
exports:
  - {mode: Restricted, mount: /nodes/$NODE_ALIAS/usr, path: $NODE_PATH/usr}
  - {mode: Public, mount: /nodes/$NODE_ALIAS/var, path: $NODE_PATH/var}
  - {mode: Private, mount: /nodes/_private, path: $NODE_PATH/private}
%(exports)s
environ:
%(environ)s
"""

# Executes its arguments without a system call that older kernels lack.
WITHOUT_CALLS = """\
import ctypes, os, struct, sys
# Answer ENOSYS to mount_setattr(2), as Linux before 5.12 does.
program = [(0x20, 0, 0, 0), (0x15, 0, 1, 442), (6, 0, 0, 0x00050000 | 38), (6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""


def copy_red_wrap(directory: Path) -> Path:
    """The launcher red-wrap, made in a copy of the checkout that every user can read."""
    for package in ("redwrap", "redpak", "redsys"):
        shutil.copytree(CHECKOUT / package, directory / package,
                        ignore=shutil.ignore_patterns("__pycache__", "red-wrap"))
    subprocess.run(["make", "-s", "-C", directory / "redwrap/launcher"], check=True)
    return directory / "redwrap/launcher/red-wrap"


def indent(lines: Sequence[str], by: str = "  ") -> str:
    return "\n".join(by + line for line in lines)


@dataclass(frozen=True)
class Ground:
    """A place with a main.yaml and nodes that `actor` owns."""

    actor: Actor
    directory: Path
    command: Path

    @property
    def main(self) -> Path:
        return self.directory / "main.yaml"

    def write(self, path: Path, text: str) -> Path:
        """Write a file that the actor owns, settled long enough ago for a plan to trust it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for owned in (path, path.parent):
            if owned != self.directory:
                os.chown(owned, self.actor.uid, self.actor.gid)
        return path

    def settle(self) -> None:
        """Wait until no file counts as just changed any more (redwrap.compiled)."""
        time.sleep(0.08)

    def node(self, path: str, *, config: Sequence[str] = (), exports: Sequence[str] = (),
             environ: Sequence[str] = (), alias: str = "") -> Path:
        """Make the node `path` below the ground; its alias is its name unless given."""
        node = self.directory / path
        number = sum(map(ord, path))
        for name in ("usr/bin", "var", "private", "etc", ".redpak"):
            (node / name).mkdir(parents=True, exist_ok=True)
        text = NODE % {
            "alias": alias or node.name, "name": UUID.format(number),
            "config": "config:\n" + indent(config) if config else "",
            "exports": indent(exports), "environ": indent(environ)}
        self.write(node / "etc/redpack.yaml", text.replace("environ:\n\n", ""))
        self.write(node / ".rednode.yaml",
                   f"state: Enable\nrealpath: {node}\ntimestamp: 1\ninfo: ''\n")
        for root, directories, _ in os.walk(node):
            for name in (root, *(os.path.join(root, each) for each in directories)):
                os.chown(name, self.actor.uid, self.actor.gid)
        return node

    def script(self, path: Path, text: str) -> Path:
        """An executable shell script."""
        self.write(path, "#!/bin/sh\n" + text)
        path.chmod(0o755)
        return path

    def run(self, node: Path, *words: object, options: Sequence[str] = (),
            **extra: object) -> subprocess.CompletedProcess[str]:
        """red-wrap --redpath=NODE OPTIONS -- WORDS."""
        argv = [self.command, f"--redpath={node}", *options, "--", *map(str, words)]
        return self.actor.run(argv, **extra)  # type: ignore[arg-type]

    def output(self, node: Path, *words: object, options: Sequence[str] = (),
               **extra: object) -> str:
        """The same, which must succeed: its stdout."""
        done = self.run(node, *words, options=options, **extra)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def plan(self, node: Path) -> Path:
        """Where the compiled plan of the node is."""
        return node / ".redpak/launch"


def make_ground(actor: Actor, directory: Path, command: Path, *, main: str = MAIN) -> Ground:
    home = directory / "home"
    home.mkdir()
    os.chown(home, actor.uid, actor.gid)
    os.chown(directory, actor.uid, actor.gid)
    environ = {"PATH": SYSTEM_PATH, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb",
               "redpak_MAIN": str(directory / "main.yaml"), "PYTHONDONTWRITEBYTECODE": "1"}
    ground = Ground(actor.with_environ(**environ), directory, command)
    ground.write(ground.main, main)
    return ground
