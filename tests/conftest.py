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

from support.actors import Actor, actor_kinds
from support.installing import CHECKOUT, Installation
from support.trees import remove_tree


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
    return Installation.make(session_pool / "prefix").prefix


@pytest.fixture(scope="session")
def installation(prefix: Path) -> Installation:
    """The same; a host without an rpm database is adopted in the prefix."""
    found = Installation(prefix)
    found.adopt_host()
    return found


@pytest.fixture(scope="session")
def redmain(installation: Installation) -> Path:
    """The installation's main.yaml."""
    return installation.main


@pytest.fixture(params=actor_kinds())
def actor(
    request: pytest.FixtureRequest, pool_root: Path, installation: Installation
) -> Actor:
    """Runs the installed commands as an ordinary user, then as root."""
    return installation.actor(request.param, pool_root / "home")


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
