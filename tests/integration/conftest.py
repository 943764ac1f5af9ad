# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of red-wrap, test_wrap_*.py: the launcher of a checkout, without an
installation and without packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.actors import actor_kinds, find_actor
from support.wrapping import Ground, copy_red_wrap, make_ground


@pytest.fixture(scope="session")
def red_wrap(session_pool: Path) -> Path:
    """The launcher; nobody but the tests of red-wrap makes it."""
    return copy_red_wrap(session_pool / "red-wrap")


@pytest.fixture(params=actor_kinds())
def ground(request: pytest.FixtureRequest, pool_root: Path, red_wrap: Path) -> Ground:
    """The place of a test of red-wrap, an ordinary user's, then root's."""
    return make_ground(find_actor(request.param), pool_root, red_wrap)
