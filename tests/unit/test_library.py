# SPDX-License-Identifier: Apache-2.0
"""Where red-check keeps its copies of rpmdbs."""

from __future__ import annotations

import pytest

from redcheck.library import Library, UnreadableError
from redcheck.scope import Layer


def test_a_machine_without_room_for_a_copy_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose whole root is read-only."""
    def fail() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("redrpm.scratch.ScratchDirectory", fail)
    library = Library()
    with pytest.raises(UnreadableError, match="/db: there is no place for a copy of the rpmdb: No "
                       "usable temporary directory found; set TMPDIR"):
        library.of(Layer("/", "/", "redmain", None, "/db"))
    library.close()
