# SPDX-License-Identifier: Apache-2.0
"""A node's repositories and dnf options, as files: what config-manager does for a system.

Knows no dnf: red-manager serves dnf4 and dnf5.
"""

from __future__ import annotations

import configparser
import fnmatch
import os
import re
import stat
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence

from redpak.errors import RedpakError
from redpak.files import write_file_atomic
from redpak.node import Node
from redpak.values import dataclass

# Of a node's dnf.conf and of a repository's section: option -> value.
Options = Mapping[str, str]
# Raises RedpakError for an option (name, value) that dnf has not, or does not take; the last
# argument is whether it is a repository's.
CheckOption = Callable[[str, str, bool], None]
_MAX_REPO_FILE = 2**20  # bytes


@dataclass(frozen=True)
class RepositoryFile:
    """A .repo file to add to a node: ``name`` is its file name; ``directory`` the place of the
    repository when it was told by that."""

    name: str
    content: bytes
    directory: str = ""

    @property
    def lacks_metadata(self) -> bool:
        """Whether dnf will find nothing there."""
        return bool(self.directory) and not os.path.exists(
            f"{self.directory}/repodata/repomd.xml")


def prepare_repository(source: str) -> RepositoryFile:
    """A .repo file (path or URL), or one made for a base URL or a directory; nothing is written.

    Raises RedpakError.
    """
    if source.endswith(".repo"):
        content = _fetch(source)
        _check_repo_file(source, content)
        return RepositoryFile(os.path.basename(source), content)
    directory = source if os.path.isdir(source) else ""
    source = _base_url(source)
    identifier = re.sub(r"[^A-Za-z0-9_.:-]+", "_", source.split("://", 1)[1]).strip("_")
    if identifier in ("", "main"):  # of "/", and what is no repository for dnf
        identifier = f"repository_{identifier}".strip("_")
    content = (
        f"[{identifier}]\nname=created by red-manager from {source}\nbaseurl={source}\nenabled=1\n"
    ).encode()
    return RepositoryFile(f"{identifier}.repo", content, directory)


def _base_url(source: str) -> str:
    """The base URL that ``source`` is, or that a directory has. Raises RedpakError."""
    if re.match(r"(https?|ftp)://[^\s]+\Z", source):
        return source
    if re.match(r"file://[^\s]+\Z", source):
        _check_directory(source, urllib.parse.unquote(re.sub("file://(localhost)?", "", source)))
        return source
    if "://" in source or not ("/" in source or os.path.isdir(source)):
        raise RedpakError(
            f"{source}: neither a URL nor a .repo file",
            hint="write --add-repo=URL, FILE.repo or DIRECTORY",
        )
    path = os.path.abspath(source)
    _check_directory(source, path)
    # dnf splits base URLs at blanks and commas, and $ begins one of its variables.
    return f"file://{urllib.parse.quote(path, safe='/${}+~@:=')}"


def _check_directory(source: str, path: str) -> None:
    """Raise RedpakError unless a repository can be at ``path``, now or later."""
    if not path.startswith("/"):
        raise RedpakError(
            f"{source}: names another host", hint="the URL of a directory is file:///DIRECTORY"
        )
    if "$" in path:  # what dnf's variables will be, only dnf knows
        return
    if "\0" in path:
        raise RedpakError(f"{source}: no path has a null byte (%00)")
    try:
        found = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as err:
        raise RedpakError(
            f"{source}: cannot be a repository: {err.strerror}",
            hint="name a directory, a .repo file or a URL",
        ) from err
    if not found:
        raise RedpakError(f"{source}: neither a directory nor a .repo file")


def add_repository(node: Node, repository: RepositoryFile) -> str:
    """Write ``repository`` into the node; its path. Raises RedpakError."""
    path = f"{node.repos_dir}/{repository.name}"
    _write(path, repository.content)
    return path


def repository_files(node: Node, added: Sequence[RepositoryFile]) -> list[str]:
    """All that this module may change in the node, when ``added`` come to it."""
    old = set(find_repositories(node).values())
    new = {f"{node.repos_dir}/{repository.name}" for repository in added}
    return [_options_file(node), *sorted(old | new)]


def _options_file(node: Node) -> str:
    return f"{node.path}/etc/dnf/dnf.conf"


def save_options(
    node: Node, main: Options, repos: Mapping[str, Options], check: CheckOption
) -> None:
    """Keep options: of dnf itself in the node's dnf.conf, of repositories in their files.

    ``repos`` is told by patterns of repository ids. Raises RedpakError for an unknown repository or
    option, or a value that it cannot have; nothing was written then.
    """
    for name, value in sorted(main.items()):
        check(name, value, False)
    changes = [(_options_file(node), "main", main)] if main else []
    for pattern, options in repos.items():
        matching = {
            identifier: path
            for identifier, path in find_repositories(node).items()
            if fnmatch.fnmatchcase(identifier, pattern)
        }
        if not matching:
            raise RedpakError(
                f"no repository {pattern} in node {node.alias}",
                hint=f"red-repolist --all --redpath={node.path} lists them",
            )
        for name, value in sorted(options.items()):
            check(name, value, True)
        changes += [(path, identifier, options) for identifier, path in matching.items()]
    for path, section, options in changes:
        _save(path, section, options)


def no_such_option(name: str, of_repository: bool) -> RedpakError:
    """For a front end's check."""
    whose = "a repository" if of_repository else "dnf"
    return RedpakError(f"{whose} has no option {name}", hint="see dnf.conf(5)")


def wrong_value(name: str, value: str, reason: object) -> RedpakError:
    """The same, for what the option cannot be."""
    return RedpakError(f"{name}={value}: {reason}", hint="see dnf.conf(5)")


def set_enabled(node: Node, patterns: Sequence[str], *, enabled: bool) -> None:
    """Enable or disable repositories for good. Raises RedpakError."""
    if not patterns:
        raise RedpakError("no repository given", hint="name it after the options")
    value = {"enabled": "1" if enabled else "0"}
    save_options(node, {}, dict.fromkeys(patterns, value), lambda *_: None)


def find_repositories(node: Node) -> dict[str, str]:
    """The files of a node's repositories by their ids. Raises RedpakError."""
    found: dict[str, str] = {}
    try:
        names = sorted(os.listdir(node.repos_dir))
    except FileNotFoundError:
        return found
    for name in names:
        if name.endswith(".repo"):
            path = f"{node.repos_dir}/{name}"
            for section in _parse(path, _read(path)).sections():
                if section != "main":
                    found.setdefault(section, path)
    return found


def _save(path: str, section: str, options: Options) -> None:
    """Set ``options`` in one section of a file; all other lines stay as they are."""
    text = _read(path).decode("utf-8", "surrogateescape") if os.path.exists(path) else ""
    lines = text.splitlines()
    header = f"[{section}]"
    if header not in [line.strip() for line in lines]:
        lines.append(header)
    start = [line.strip() for line in lines].index(header) + 1
    end = next((n for n in range(start, len(lines)) if lines[n].startswith("[")), len(lines))
    body = lines[start:end]
    for name, value in options.items():
        body = _set_option(body, name, value)
    content = "\n".join([*lines[:start], *body, *lines[end:], ""])
    _write(path, content.encode("utf-8", "surrogateescape"))


def _set_option(lines: list[str], name: str, value: str) -> list[str]:
    """The lines of a section with option ``name`` set, where it was or after the last option."""
    kept: list[str] = []
    place = None
    skipping = False
    for line in lines:
        # An option goes on in the lines below it that are indented.
        skipping = skipping and line[:1] in (" ", "\t")
        if re.match(rf"{re.escape(name)}\s*[=:]", line):
            skipping = True
            place = len(kept) if place is None else place
        if not skipping:
            kept.append(line)
    if place is None:
        place = max((n + 1 for n, line in enumerate(kept) if line.strip()), default=0)
    return [*kept[:place], f"{name}={value}", *kept[place:]]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as err:
        raise RedpakError(f"{path}: cannot read: {err.strerror}") from err


def _write(path: str, content: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_file_atomic(path, content)
    except OSError as err:
        raise RedpakError(f"{path}: cannot write: {err.strerror}") from err


def _fetch(source: str) -> bytes:
    if "://" not in source:
        return _read(source)
    if not re.match(r"(https?|ftp|file)://", source):
        raise RedpakError(f"{source}: cannot fetch: unknown kind of URL")
    try:
        with urllib.request.urlopen(source, timeout=60) as stream:
            return bytes(stream.read(_MAX_REPO_FILE))
    except (OSError, ValueError) as err:
        raise RedpakError(f"{source}: cannot fetch: {getattr(err, 'reason', err)}") from err


def _parse(source: str, content: bytes) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(content.decode(), source)
    except (UnicodeDecodeError, configparser.Error) as err:
        reason = str(err).replace("\n", " ")
        raise RedpakError(f"{source}: not a repository file: {reason}") from err
    return parser


def _check_repo_file(source: str, content: bytes) -> None:
    parser = _parse(source, content)
    for section in parser.sections():
        if section != "main" and not {"baseurl", "mirrorlist", "metalink"} & set(parser[section]):
            raise RedpakError(f"{source}: repository [{section}] has no baseurl")
    if not parser.sections():
        raise RedpakError(f"{source}: describes no repository")
