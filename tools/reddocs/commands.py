# SPDX-License-Identifier: Apache-2.0
"""The commands of this checkout, as setup.cfg declares them, and what each says of itself."""

from __future__ import annotations

import configparser
import functools
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reddocs.helptext import Help, Option, parse_help

CHECKOUT = Path(__file__).resolve().parents[2]
# The second half of red-wrap, not called by people.
INTERNAL = frozenset({"red-wrap-cold"})
_ROOMS = ("", "rpm-plugins", "dnf-plugins")


@dataclass(frozen=True)
class Page:
    """A manual page: a page of docs/, and the commands whose options it lists."""

    name: str
    section: int
    source: str
    commands: tuple[tuple[str, ...], ...] = ()


def pages() -> list[Page]:
    """Every manual page; one for each command of setup.cfg, and what stands beside them."""
    found = [Page("redpak.yaml", 5, "docs/configuration.md"),
             Page("red-manager", 1, "docs/red-manager.md", (("red-dnf", "red-manager"),))]
    for name in command_names():
        words: list[tuple[str, ...]] = [(name,)]
        if name == "red-dnf":
            words = [("red-dnf", "red-install")]
        else:
            words += [(name, sub) for sub, _ in read_help(name).commands]
        found.append(Page(name, 1, f"docs/{_SOURCES.get(name, name)}.md", tuple(words)))
    return sorted(found, key=lambda page: page.name)


# Pages of docs/ that are not called like their command.
_SOURCES: dict[str, str] = {"red-rpm": "rpm", "red-check": "check"}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    return parser


@functools.cache
def entry_points() -> dict[str, str]:
    """Console scripts: name -> module:function."""
    lines = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): entry.strip() for name, _, entry in pairs}


def command_names() -> list[str]:
    """What lands in bin, and is for people."""
    return sorted({*entry_points(), *setup_cfg()["redpak.programs"]} - INTERNAL)


@functools.cache
def read_help(*words: str) -> Help:
    """What `WORDS --help` of this checkout prints. Raises RuntimeError."""
    return parse_help(help_text(words))


def help_text(words: Sequence[str]) -> str:
    """The text itself, in lines of any length."""
    entry = entry_points().get(words[0]) or entry_points()[f"{words[0]}-cold"]
    module, _, function = entry.partition(":")
    program = (f"import sys; sys.argv[0] = {words[0]!r}; from {module} import {function}; "
               f"sys.exit({function}())")
    path = os.pathsep.join(str(CHECKOUT / room) for room in _ROOMS)
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": path, "COLUMNS": "400",
               "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent",
               # The manual pages are those of dnf4; docs/dnf5.md has what differs.
               "REDPAK_DNF": "4"}
    # The distribution's interpreter has dnf and rpm.
    done = subprocess.run(["/usr/bin/python3", "-c", program, *words[1:], "--help"],
                          capture_output=True, text=True, env=environ, cwd="/")
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} --help: status {done.returncode}:"
                           f" {done.stderr.strip()}")
    # red-rpm goes on with the help of the rpm that is installed.
    return done.stdout.partition("All other options are those of rpm")[0]


def options_of(words: Sequence[str]) -> list[Option]:
    """A command's options; of a dnf command those that redpak adds to the stock ones."""
    found = read_help(*words).options
    if words[0] == "red-dnf" and len(words) > 1:
        stock = {option.names for option in read_help(*_stock(words)).options}
        found = [option for option in found if option.names not in stock]
    return [option for option in found if "--help" not in option.names or words[0] != "red-conf"]


def _stock(words: Sequence[str]) -> tuple[str, str]:
    """The stock command behind a red- command of dnf; red-manager has none."""
    name = words[1][len("red-"):]
    return (words[0], "check" if name == "manager" else name)


def twin_commands() -> list[str]:
    """The red- commands of dnf."""
    text = help_text(("red-dnf",))
    words = (line.split() for line in text.splitlines())
    return sorted({line[0] for line in words if line and line[0].startswith("red-")})
