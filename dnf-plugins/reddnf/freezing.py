# SPDX-License-Identifier: Apache-2.0
"""red-manager --freeze and --thaw: the engine is in redcheck, dnf only installs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redcheck.engine import Options, check, locked
from redcheck.manifest import freeze, read_manifest
from redcheck.scope import Request, read_scope
from redcheck.thaw import thaw
from redpak.errors import RedpakError
from redpak.family import load_main, resolve_redpath
from redpak.files import write_file_atomic
from redsys.run import run as run_tool

Tell = Callable[[str], None]


def add_options(parser: Any) -> None:
    """Declare the two actions."""
    parser.add_argument("--freeze", metavar="FILE", help="write a manifest of every node at and"
                        " below DIR: configuration and exact packages")
    parser.add_argument("--thaw", metavar="FILE", help="build the nodes of a manifest at DIR, from"
                        " it and the repositories that it names")


def is_wanted(opts: Any) -> bool:
    """Whether the command line asks for one of them."""
    return bool(opts.freeze or opts.thaw)


def run(opts: Any, tell: Tell) -> None:
    """Freeze or thaw. Raises RedpakError."""
    if opts.freeze and opts.thaw:
        raise RedpakError("--freeze and --thaw exclude each other")
    if opts.freeze:
        _freeze(opts, tell)
    else:
        main = load_main(opts.rmain, os.environ)
        top = os.path.realpath(resolve_redpath(opts.redpath, os.environ))
        thaw(read_manifest(opts.thaw), top, main=main, notify=tell,
             install=partial(_install, main=main.file))


def _freeze(opts: Any, tell: Tell) -> None:
    scope = read_scope(Request(opts.redpath, opts.rmain, wide="tree"), os.environ)
    with locked(scope, tell):
        manifest = freeze(check(scope, Options(), os.environ))
    try:
        write_file_atomic(opts.freeze, manifest.text().encode())
    except OSError as err:
        raise RedpakError(f"{opts.freeze}: cannot write: {err.strerror}") from err
    packages = sum(len(node["packages"]) for node in manifest.nodes.values())
    tell(f"Froze {len(manifest.nodes)} nodes with {packages} packages in {opts.freeze}")


def _install(place: str, packages: Sequence[str], *, forced: bool, dependencies: Sequence[str],
             main: str) -> None:
    """redcheck.thaw.Install, by the command that we are: one transaction."""
    node = [f"--redpath={place}", f"--rmain={main}", "--node-force"]
    exactly = ["--setopt=install_weak_deps=0", "--setopt=obsoletes=0"]
    _run("red-install", "-y", *node, *exactly, *(["--forcenode"] if forced else []), *packages)
    if dependencies:
        _run("red-mark", "-y", *node, "remove", *dependencies)


def _run(*words: str) -> None:
    with open("/proc/self/cmdline", "rb") as stream:
        argv = [os.fsdecode(word) for word in stream.read().split(b"\0")[:-1]]
    # The interpreter, its options and the program: all that comes before our arguments.
    program = argv[:len(argv) - len(sys.argv) + 1]
    run_tool([*program, *words], environ=dict(os.environ), package="dnf")
