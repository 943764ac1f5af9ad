# SPDX-License-Identifier: Apache-2.0
"""Whether the packages of a node must be signed."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from redcheck.scope import Layer
from redpak.errors import TYPE_CHECKING

if TYPE_CHECKING:
    from configparser import ConfigParser


def requires_signatures(layer: Layer, *, tag: bool) -> bool:
    """Whether gpgcheck holds for a node: by the family's tag, else by its own dnf.conf, when none
    of its repositories says otherwise. Raises OSError when that cannot be read."""
    if tag or layer.node is None:
        return tag
    main = _read_ini(f"{layer.path}/etc/dnf/dnf.conf")
    if main is None or not _is_true(main.get("main", "gpgcheck", fallback="0")):
        return False
    directory = f"{layer.path}/etc/yum.repos.d"
    names: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(directory)
    for name in names:
        repos = _read_ini(f"{directory}/{name}") if name.endswith(".repo") else None
        if repos is not None and any(
                not _is_true(repos.get(section, "gpgcheck", fallback="1"))
                for section in repos.sections()):
            return False
    return True


def _read_ini(path: str) -> ConfigParser | None:
    """None for what is no plain file, or not in this form. Raises OSError."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    import configparser  # most nodes have no such file

    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        with open(path, encoding="utf-8") as stream:
            parser.read_file(stream)
    except (configparser.Error, UnicodeDecodeError):
        return None
    return parser


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("1", "yes", "true", "on")
