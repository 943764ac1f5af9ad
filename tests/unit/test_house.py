# SPDX-License-Identifier: Apache-2.0
"""The house rules: who may import whom, and how big and how plain the sources stay."""

from __future__ import annotations

import ast
import configparser
import sys
from pathlib import Path
from typing import Iterator

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent

_ENGINE = {"redrpm", "redsys", "redpak", "rpm"}
# Room -> what its modules may import beside the standard library. Arrows go down only.
ARROWS = {
    "redpak": {"redpak", "yaml"},
    "redsys": {"redsys", "redpak.errors"},
    "redwrap": {"redwrap", "redsys", "redpak"},
    "rpm-plugins/redrpm": _ENGINE,
    # The libraries of the SBOM formats are optional: imported when a bill is written.
    "rpm-plugins/redcheck": {"redcheck", "cyclonedx", "spdx_tools", "license_expression",
                             "packageurl"} | _ENGINE,
    "rpm-plugins/redrpmcli": {"redrpmcli", "redcheck"} | _ENGINE,
    "dnf-plugins/reddnf": {"reddnf", "redcheck", "dnf", "libdnf", "hawkey", "libdnf5"} | _ENGINE,
    "dnf-plugins/reddnf5": {"reddnf5", "reddnf", "libdnf5"} | _ENGINE,
    "dnf-plugins/dnf4": {"reddnf", "dnf"},
    "dnf-plugins/dnf5": {"reddnf5", "libdnf5"},
    # Makes the documentation from what the commands print; not installed.
    "tools/reddocs": {"reddocs"},
}
# The domain is pure: it starts no process, and knows no kernel interface but plain files.
FORBIDDEN = {"redpak": {"subprocess", "ctypes", "multiprocessing", "socket", "pty"}}

MODULE_LINES = 500
FUNCTION_LINES = 50


def sources(room: str) -> list[Path]:
    return sorted(Path(CHECKOUT, room).rglob("*.py"))


LAUNCHER = sorted(
    path for path in (CHECKOUT / "redwrap/launcher").iterdir() if path.suffix in (".c", ".h"))
SCRIPTS = [CHECKOUT / "scripts/install", CHECKOUT / "scripts/uninstall"]
ALL_SOURCES = [*SCRIPTS, *(path for room in [*ARROWS, "tests"] for path in sources(room))]


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Every absolute name a module imports, inside functions too; relative ones stay in its room.

    `from a import b` yields a.b: the rule for redsys tells redpak.errors from redpak.node.
    """
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def is_allowed(name: str, room: str) -> bool:
    top = name.partition(".")[0]
    if top in FORBIDDEN.get(room, set()):
        return False
    if top in sys.stdlib_module_names or top == "__future__":
        return True
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in ARROWS[room])


@pytest.mark.parametrize("room", ARROWS)
def test_imports_go_down_only(room: str) -> None:
    wrong = [
        f"{path.relative_to(CHECKOUT)}:{line}: {name}"
        for path in sources(room)
        for line, name in imported_names(path)
        if not is_allowed(name, room)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_of_the_house_is_inhabited() -> None:
    """A room that moved would otherwise pass the test above with nothing in it."""
    assert [room for room in ARROWS if not sources(room)] == []


def test_the_arrows_cover_every_package_that_setup_cfg_ships() -> None:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    shipped = set(setup["options"]["packages"].split())
    assert shipped == {Path(room).name for room in ARROWS} - {"dnf4", "dnf5", "reddocs"}


def test_every_source_has_its_licence_line() -> None:
    wrong = [
        str(path.relative_to(CHECKOUT))
        for path in [*ALL_SOURCES, *LAUNCHER]
        if "SPDX-License-Identifier: Apache-2.0" not in "".join(path.open().readlines()[:2])
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_and_functions_stay_short() -> None:
    wrong = []
    for path in [*ALL_SOURCES, *LAUNCHER]:
        text = path.read_text()
        where = path.relative_to(CHECKOUT)
        if text.count("\n") > MODULE_LINES:
            wrong.append(f"{where}: {text.count(chr(10))} lines")
        if path in LAUNCHER:
            continue
        if where.parts[0] == "tests":
            continue  # a test that lists forty packages is long, but not deep
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    wrong.append(f"{where}:{node.lineno}: {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong)
