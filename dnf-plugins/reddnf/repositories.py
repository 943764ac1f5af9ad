# SPDX-License-Identifier: Apache-2.0
"""A node's repositories and dnf options: what dnf's config-manager does for a system."""

from __future__ import annotations

import configparser
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dnf
import dnf.exceptions
import libdnf

from redpak.errors import RedpakError
from redpak.files import write_file_atomic
from redpak.node import Node


@dataclass(frozen=True)
class RepositoryFile:
    """A .repo file to add to a node: ``name`` is its file name."""

    name: str
    content: bytes


def prepare_repository(base: Any, source: str) -> RepositoryFile:
    """A .repo file (path or URL), or one made for a base URL; checked, nothing written.

    Raises RedpakError.
    """
    if source.endswith(".repo"):
        content = _fetch(base, source)
        name = os.path.basename(source)
        _check_repo_file(source, content)
        return RepositoryFile(name, content)
    if source.startswith("/"):
        source = f"file://{source}"
    if not re.match(r"(https?|ftp|file)://[^\s]+\Z", source):
        raise RedpakError(
            f"{source}: neither a URL nor a .repo file", hint="write --add-repo=URL or FILE.repo"
        )
    identifier = re.sub(r"[^A-Za-z0-9_.:-]+", "_", source.split("://", 1)[1]).strip("_")
    content = (
        f"[{identifier}]\nname=created by red-manager from {source}\nbaseurl={source}\nenabled=1\n"
    ).encode()
    return RepositoryFile(f"{identifier}.repo", content)


def add_repository(node: Node, repository: RepositoryFile) -> str:
    """Write ``repository`` into the node; its path. Raises RedpakError."""
    path = f"{node.repos_dir}/{repository.name}"
    try:
        os.makedirs(node.repos_dir, exist_ok=True)
        write_file_atomic(path, repository.content)
    except OSError as err:
        raise RedpakError(f"{path}: cannot write: {err.strerror}") from err
    return path


def save_options(base: Any, node: Node, main: Mapping[str, Sequence[str]],
                 repos: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Keep ``--setopt`` values: of dnf itself in the node's dnf.conf, of a repository in its file.

    Raises RedpakError for an unknown repository or option.
    """
    changes = []
    if main:
        _check_names(base.conf, main)
        changes.append((f"{node.path}/etc/dnf/dnf.conf", "main", _last_values(main)))
    for pattern, options in repos.items():
        matching = list(base.repos.get_matching(pattern))
        if not matching:
            raise RedpakError(
                f"no repository {pattern} in node {node.alias}",
                hint=f"red-repolist --all --redpath={node.path} lists them",
            )
        _check_names(matching[0], options)
        changes += [(repo.repofile, repo.id, _last_values(options)) for repo in matching]
    for path, section, options in changes:
        _write_options(base, path, section, options)


def set_enabled(base: Any, node: Node, patterns: Sequence[str], *, enabled: bool) -> None:
    """Enable or disable repositories for good. Raises RedpakError."""
    if not patterns:
        raise RedpakError("no repository given", hint="name it after the options")
    value = {"enabled": ["1" if enabled else "0"]}
    save_options(base, node, {}, dict.fromkeys(patterns, value))


def _check_names(conf: Any, options: Iterable[str]) -> None:
    unknown = sorted(name for name in options if not hasattr(conf, name))
    if unknown:
        raise RedpakError(f"dnf has no option {unknown[0]}", hint="see dnf.conf(5)")


def _last_values(options: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {key: values[-1] for key, values in options.items()}


def _write_options(base: Any, path: str, section: str, options: Mapping[str, str]) -> None:
    """dnf writes configuration files in place; ours are replaced whole."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = b""
        if os.path.exists(path):
            with open(path, "rb") as stream:
                content = stream.read()
        if f"[{section}]".encode() not in content:
            content += f"[{section}]\n".encode()
        with tempfile.NamedTemporaryFile(suffix=".conf") as draft:
            draft.write(content)
            draft.flush()
            base.conf.write_raw_configfile(draft.name, section, base.conf.substitutions, options)
            with open(draft.name, "rb") as stream:
                write_file_atomic(path, stream.read())
    except OSError as err:
        raise RedpakError(f"{path}: cannot write: {err.strerror}") from err


def _fetch(base: Any, source: str) -> bytes:
    if "://" not in source:
        try:
            with open(source, "rb") as stream:
                return stream.read()
        except OSError as err:
            raise RedpakError(f"{source}: cannot read: {err.strerror}") from err
    try:
        with base.urlopen(source) as stream:
            return bytes(stream.read())
    except (OSError, dnf.exceptions.Error, libdnf.error.Error) as err:
        raise RedpakError(f"{source}: cannot fetch: {err}") from err


def _check_repo_file(source: str, content: bytes) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(content.decode(), source)
    except (UnicodeDecodeError, configparser.Error) as err:
        reason = str(err).replace("\n", " ")
        raise RedpakError(f"{source}: not a repository file: {reason}") from err
    for section in parser.sections():
        if section != "main" and not {"baseurl", "mirrorlist", "metalink"} & set(parser[section]):
            raise RedpakError(f"{source}: repository [{section}] has no baseurl")
    if not parser.sections():
        raise RedpakError(f"{source}: describes no repository")
