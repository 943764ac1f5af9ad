# SPDX-License-Identifier: Apache-2.0
"""Families whose nodes appear merged, and the packages with compiled-in paths for them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.actors import Actor
from support.nodes import TestNode
from support.rpms import build_spec, create_repository, write_repo_file

SPECS = Path(__file__).resolve().parent.parent / "specs"


def python_modules() -> str:
    """Where the core OS's python3 looks for packages of the distribution."""
    script = ("import sys; print(next(path for path in sys.path "
              "if path.startswith('/usr/lib') and path.endswith('-packages')))")
    return subprocess.run(["/usr/bin/python3", "-c", script], check=True, capture_output=True,
                          text=True, env={"PATH": "/usr/bin"}, cwd="/").stdout.strip()


def build_beacon(directory: Path, version: str = "1") -> Path:
    """The two halves of beacon, in repositories `platform` and `application`; the directory."""
    macros = {"beacon_version": version, "python_modules": python_modules()}
    for spec, name in (("beacon-platform", "platform"), ("beacond", "application")):
        build_spec(SPECS / f"{spec}.spec", directory / name, macros)
        create_repository(directory / name)
        write_repo_file(directory / f"{name}.repo", name, directory / name)
    return directory


def make_merged(actor: Actor, path: Path, alias: str, *repositories: Path,
                template: str = "merged") -> TestNode:
    """A node of a template that merges, with repositories of unsigned packages."""
    node = TestNode(actor, path)
    words = ["red-manager", "--create", f"--alias={alias}", f"--template={template}",
             "--setopt=gpgcheck=0", "--save"]
    node.dnf(*words, *(f"--add-repo={repository}" for repository in repositories))
    return node


@dataclass(frozen=True)
class Wrapped:
    """A node, and red-wrap on it."""

    node: TestNode

    def run(self, *words: object, options: Sequence[str] = (),
            **extra: object) -> subprocess.CompletedProcess[str]:
        """red-wrap --redpath=NODE OPTIONS -- WORDS."""
        argv = ["red-wrap", f"--redpath={self.node.path}", *options, "--", *map(str, words)]
        return self.node.actor.run(argv, **extra)  # type: ignore[arg-type]

    def output(self, *words: object, options: Sequence[str] = (), **extra: object) -> str:
        """The same, which must succeed: its stdout."""
        done = self.run(*words, options=options, **extra)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shell(self, script: str) -> str:
        return self.output("sh", "-c", script)

    @contextmanager
    def started(self, *words: object, **extra: object) -> Iterator[subprocess.Popen[str]]:
        """The application, running; it is ended at last."""
        argv = ["red-wrap", f"--redpath={self.node.path}", "--", *map(str, words)]
        extra.setdefault("stdout", subprocess.PIPE)
        process = self.node.actor.popen(argv, **extra)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def ask(port: int, text: str = "") -> str:
    """Everything that 127.0.0.1:port answers to a text."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(text.encode())
        answer = b""
        while True:
            block = connection.recv(65536)
            if not block:
                return answer.decode()
            answer += block


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
