# SPDX-License-Identifier: Apache-2.0
"""What a shell offers for the word before the cursor: nodes, aliases, packages, repositories.

A shell asks `red-conf complete [--redpath=DIR] -- KIND [WORD]`. Completion is a courtesy: what
cannot be read offers nothing, and never says so.
"""

from __future__ import annotations

import configparser
import glob
import os
from collections.abc import Iterable, Iterator, Mapping

from redpak.errors import RedpakError
from redpak.family import find_ancestors, find_descendants, load_main
from redpak.node import CLOSED_DIRECTORIES, Node, is_node, read_node
from redpak.rpmnames import package_names
from redpak.templates import list_templates

AVAILABLE = "available-names"
# How many directories are looked into for a node somewhere below: a key press may not take long.
_MOST_DIRECTORIES = 400
_PROGRAM_DIRECTORIES = ("usr/bin", "usr/sbin")


def complete(kind: str, word: str, *, redpath: str, environ: Mapping[str, str]) -> list[str]:
    """The words of `kind` that start with `word`, sorted. Raises KeyError for an unknown kind."""
    offer = {
        "nodes": _nodes, "aliases": _aliases, "installed": _installed, "available": _available,
        "repos": _repos, "templates": _templates, "programs": _programs,
    }[kind]
    try:
        return sorted(set(offer(word, redpath or environ.get("REDPATH", ""), environ)))
    except (RedpakError, OSError, ValueError):
        return []


def _nodes(word: str, redpath: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Nodes by path, directories on the way to one with a slash behind, and nodes by alias."""
    if word and "/" not in word:
        yield from (node.path for node in _known_nodes(redpath) if node.alias.startswith(word))
        return
    directory, name = os.path.split(word or "/")
    inside = is_node(directory)
    for entry in _directories(directory):
        path = os.path.join(directory, entry)
        if not entry.startswith(name) or (inside and entry in CLOSED_DIRECTORIES):
            continue
        if entry.startswith(".") and not name.startswith("."):
            continue
        if is_node(path):
            yield path
        elif _leads_to_node(path):
            yield f"{path}/"


def _directories(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def _leads_to_node(path: str) -> bool:
    pending = [path]
    for _ in range(_MOST_DIRECTORIES):
        if not pending:
            return False
        directory = pending.pop(0)
        try:
            below = [f"{directory}/{name}" for name in _directories(directory)]
        except OSError:
            continue
        if any(is_node(child) for child in below):
            return True
        pending += [child for child in below if not os.path.islink(child)]
    return False


def _known_nodes(redpath: str) -> Iterator[Node]:
    """The nodes of the tree that `redpath` belongs to."""
    if not is_node(redpath):
        return
    root = [os.path.realpath(redpath), *find_ancestors(os.path.realpath(redpath))][-1]
    for path in [root, *find_descendants(root, lenient=True)]:
        try:
            yield read_node(path)
        except RedpakError:
            continue


def _aliases(word: str, redpath: str, environ: Mapping[str, str]) -> list[str]:
    return _matching(word, (node.alias for node in _known_nodes(redpath)))


def _installed(word: str, redpath: str, environ: Mapping[str, str]) -> list[str]:
    return _matching(word, package_names(read_node(redpath).rpmdb_dir))


def _available(word: str, redpath: str, environ: Mapping[str, str]) -> list[str]:
    with open(f"{read_node(redpath).cache_dir}/{AVAILABLE}", encoding="utf-8") as stream:
        return _matching(word, stream.read().split())


def _repos(word: str, redpath: str, environ: Mapping[str, str]) -> list[str]:
    directory = read_node(redpath).repos_dir
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    for file in glob.glob(f"{glob.escape(directory)}/*.repo"):
        try:
            parser.read(file, encoding="utf-8")
        except configparser.Error:
            continue
    return _matching(word, parser.sections())


def _templates(word: str, redpath: str, environ: Mapping[str, str]) -> list[str]:
    directory = environ.get("redpak_TMPL") or load_main(None, environ).templates_dir
    return _matching(word, list_templates(directory, admin=False))


def _programs(word: str, redpath: str, environ: Mapping[str, str]) -> Iterator[str]:
    """The commands of the family and of the core OS."""
    leaf = os.path.realpath(redpath)
    roots = [leaf, *find_ancestors(leaf), ""] if is_node(leaf) else []
    for root in roots:
        for directory in _PROGRAM_DIRECTORIES:
            try:
                names = os.listdir(f"{root}/{directory}")
            except OSError:
                continue
            yield from _matching(word, names)


def _matching(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]


def remember_available(node: Node, names: Iterable[str]) -> None:
    """Keep the names of the packages that the repositories of `node` have, for completion.

    `names` is read only when the repositories' metadata changed since. What cannot be written is
    left out.
    """
    file = f"{node.cache_dir}/{AVAILABLE}"
    # dnf5 has its metadata beside dnf4's.
    caches = glob.escape(os.path.dirname(node.cache_dir))
    metadata = glob.glob(f"{caches}/*/*/repodata/repomd.xml")
    try:
        newest = max((os.stat(path).st_mtime for path in metadata), default=0.0)
        if os.path.exists(file) and os.stat(file).st_mtime >= newest:
            return
        # Not worth the syncs of write_file_atomic(): half a list is as good as an old one.
        draft = f"{file}.{os.getpid()}"
        with open(draft, "x", encoding="utf-8") as stream:
            stream.writelines(f"{name}\n" for name in sorted(set(names)))
        os.replace(draft, file)
    except OSError:
        return
