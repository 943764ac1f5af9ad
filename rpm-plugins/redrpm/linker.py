# SPDX-License-Identifier: Apache-2.0
"""ld.so.cache of a merged node, made in the view of the transaction that changes the node.

The launch of an application finds it by the state of the directories it was made from, and makes
another one (redwrap) when an ancestor or the core OS has changed since.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Optional

from redpak.family import Family
from redpak.linker import (
    CACHE_FILE,
    LibraryDirectory,
    cache_name,
    find_directories,
    store_cache,
)
from redsys.run import run_silently

_TOOLS = ("/sbin/ldconfig", "/usr/sbin/ldconfig")


def is_merged(family: Family) -> bool:
    """Whether the leaf appears at the real paths, where a linker's cache counts."""
    return any(export.mode.is_overlay for export in family.leaf.config.exports)


def make_linker_cache(family: Family, root: str, delta: str) -> Optional[bytes]:
    """The cache for what is merged at ``root``, in which ``delta`` is the topmost layer.

    None when the core OS has no ldconfig, when it is not needed, or cannot be made: the first
    launch makes it then.
    """
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=f"{root}/tmp") as work:
        _run_ldconfig(family, root, delta, f"{work[len(root) :]}/cache")
        with open(f"{work}/cache", "rb") as stream:
            return stream.read()
    return None


def show_linker_cache(family: Family, root: str, delta: str) -> None:
    """Put the cache of the family as it is into the view, for scriptlets: a derived file, which no
    commit keeps."""
    with contextlib.suppress(OSError):
        _run_ldconfig(family, root, delta, CACHE_FILE)


def _run_ldconfig(family: Family, root: str, delta: str, target: str) -> None:
    nodes = [delta, *(node.path for node in reversed(family.nodes))]
    etc = [f"{node}/etc" for node in nodes]
    directories = find_directories(etc, _layers_of(family, nodes))
    tool = next((path for path in _TOOLS if os.path.isfile(path)), None)
    if tool is not None and any(directory.is_family for directory in directories):
        _run_in_root(root, [tool, "-X", "-C", target, "-f", "/dev/null",
                            *(directory.path for directory in directories)])


def keep_linker_cache(family: Family, data: bytes) -> None:
    """Keep the cache for the node as it is now, after the commit."""
    leaf = family.leaf
    etc = [f"{node.path}/etc" for node in reversed(family.nodes)]
    nodes = [node.path for node in reversed(family.nodes)]
    directories: Sequence[LibraryDirectory] = find_directories(etc, _layers_of(family, nodes))
    with contextlib.suppress(OSError):
        store_cache(cache_name(directories), data, leaf.state_dir)


def _layers_of(family: Family, nodes: Sequence[str]) -> Callable[[str], list[str]]:
    """What a directory of the merged root is made of: the nodes', and of the core OS what redmain
    exports at its own place."""
    core = [export.mount for export in family.main.config.exports
            if export.mode.is_bind and export.path in ("", export.mount)]

    def layers(path: str) -> list[str]:
        found = [node + path for node in nodes if os.path.isdir(node + path)]
        shown = any(path == mount or path.startswith(f"{mount}/") for mount in core)
        return [*found, path] if shown and os.path.isdir(path) else found
    return layers


def _run_in_root(root: str, argv: list[str]) -> None:
    """Run a program of the view in it: a child may still change its root, what it executes not."""
    def become() -> None:
        os.chroot(root)
        os.chdir("/")
        os.execve(argv[0], argv, {})

    run_silently(become)
