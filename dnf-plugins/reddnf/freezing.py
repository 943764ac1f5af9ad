# SPDX-License-Identifier: Apache-2.0
"""red-manager --freeze and --thaw: the engine is in redcheck, dnf only installs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redcheck.engine import Options, check, locked_scope
from redcheck.manifest import freeze, read_manifest
from redcheck.reports import counted
from redcheck.scope import Request
from redcheck.thaw import thaw
from redpak.family import load_main, resolve_redpath
from redpak.files import write_output
from redpak.values import dataclass
from redsys.run import run as run_tool

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Again:
    """How this dnf is started once more: the program and its own options; as_dependency is what
    its mark calls a package that nobody asked for."""

    program: Sequence[str]
    as_dependency: str

    def run(self, *words: str) -> None:
        run_tool([*self.program, *words], environ=dict(os.environ), package="dnf")


def is_wanted(opts: Any) -> bool:
    """Whether the command line asks for one of them."""
    return bool(opts.freeze or opts.thaw)


def run(opts: Any, tell: Tell, dnf: Again) -> None:
    """Freeze or thaw; ``dnf`` is the command that installs. Raises RedpakError."""
    if opts.freeze:
        _freeze(opts, tell)
    else:
        main = load_main(opts.rmain, os.environ)
        top = os.path.realpath(resolve_redpath(opts.redpath, os.environ))
        thaw(read_manifest(opts.thaw), top, main=main, notify=tell,
             install=partial(_install, dnf, main=main.file))


def _freeze(opts: Any, tell: Tell) -> None:
    request = Request(opts.redpath, opts.rmain, wide="tree")
    with locked_scope(request, os.environ, tell) as scope:
        manifest = freeze(check(scope, Options(), os.environ))
    write_output(opts.freeze, manifest.text().encode())
    packages = sum(len(node["packages"]) for node in manifest.nodes.values())
    tell(f"Froze {counted(len(manifest.nodes), 'node')} with {counted(packages, 'package')} in"
         f" {opts.freeze}")


def _install(dnf: Again, place: str, packages: Sequence[str], *, forced: bool,
             dependencies: Sequence[str], main: str) -> None:
    """redcheck.thaw.Install, by the command that we are: one transaction."""
    node = [f"--redpath={place}", f"--rmain={main}", "--node-force"]
    exactly = ["--setopt=install_weak_deps=0", "--setopt=obsoletes=0"]
    dnf.run("red-install", "-y", *node, *exactly, *(["--forcenode"] if forced else []), *packages)
    if dependencies:
        dnf.run("red-mark", dnf.as_dependency, "-y", *node, *dependencies)
