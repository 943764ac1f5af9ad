# SPDX-License-Identifier: Apache-2.0
"""The options --ota... of red-rpm."""

from __future__ import annotations

from redpak.errors import RedpakError
from redpak.family import Family
from redrpm.rpmoptions import RpmArguments


def run_ota(family: Family, arguments: RpmArguments) -> int:
    """Apply a bundle, take it back, or tell of bundles; the exit status. Raises RedpakError."""
    raise RedpakError(f"{family.leaf.path}: bundles are not known yet")
