# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests.

Tests that run commands take `actor` (an ordinary user, then root) and `pool` (a directory of the
test's own that the actor owns). Commands run from a real installation made by scripts/install into
a prefix below /var/tmp: an ordinary user can reach it whatever the mode of the checkout's
directory, and overlayfs gets a real file system. REDPAK_TEST_POOL names another place than
/var/tmp; REDPAK_TEST_KEEP=1 leaves everything behind to look at.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from support.actors import SYSTEM_PATH, Actor, actor_kinds, find_actor
from support.frontends import dnf_under_test
from support.trees import remove_tree

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """A shell starts background jobs with Ctrl-C and Ctrl-\\ ignored, which every command under
    test would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_report_header() -> str:
    if "root" in actor_kinds():
        return "redpak: commands are tested as an ordinary user and as root"
    return "redpak: not root, so commands are tested as this user only; root variants not collected"


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def session_pool() -> Iterator[Path]:
    """A directory for the whole session, readable by every user."""
    parent = os.environ.get("REDPAK_TEST_POOL", "/var/tmp")
    directory = Path(tempfile.mkdtemp(prefix="redpak-tests.", dir=parent)).resolve()
    directory.chmod(0o755)
    yield directory
    if not os.environ.get("REDPAK_TEST_KEEP"):
        remove_tree(directory)


@pytest.fixture(scope="session")
def readable_checkout(session_pool: Path) -> Path:
    """A copy of the checkout's files for an ordinary user, who may not be able to reach it."""
    copy = session_pool / "checkout"
    left_out = shutil.ignore_patterns(".git", ".tox", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(CHECKOUT, copy, ignore=left_out, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
    return copy


@pytest.fixture(scope="session")
def prefix(session_pool: Path) -> Path:
    """A private installation of this checkout."""
    directory = session_pool / "prefix"
    subprocess.run([str(CHECKOUT / "scripts/install"), f"--prefix={directory}"], check=True)
    return directory


@pytest.fixture(scope="session")
def redmain(prefix: Path) -> Path:
    """The installation's main.yaml; a host without an rpm database is adopted in the prefix."""
    main = prefix / "etc/redpak/main.yaml"
    if f"rpmdir: {prefix}/" in main.read_text():
        actor = find_actor(actor_kinds()[-1])
        actor = actor.with_environ(**command_environ(prefix, main, home=prefix))
        actor.check(["red-dnf", "red-manager", "--adopt"])
    return main


def command_environ(prefix: Path, main: Path, *, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{prefix}/bin:{SYSTEM_PATH}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "redpak_MAIN": str(main),
        "REDPAK_DNF": dnf_under_test(),
    }


@pytest.fixture(params=actor_kinds())
def actor(request: pytest.FixtureRequest, pool_root: Path, prefix: Path, redmain: Path) -> Actor:
    """Runs the installed commands as an ordinary user, then as root."""
    found = find_actor(request.param)
    home = pool_root / "home"
    home.mkdir()
    os.chown(home, found.uid, found.gid)
    return found.with_environ(**command_environ(prefix, redmain, home=home))


@pytest.fixture
def pool_root(request: pytest.FixtureRequest, session_pool: Path) -> Path:
    """The test's own directory, below the session's."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", request.node.name)[:60].strip("-")
    directory = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=session_pool))
    directory.chmod(0o755)
    return directory


@pytest.fixture
def pool(pool_root: Path, actor: Actor) -> Path:
    """The directory where the actor keeps its nodes."""
    directory = pool_root / "pool"
    directory.mkdir()
    os.chown(directory, actor.uid, actor.gid)
    return directory
