# SPDX-License-Identifier: Apache-2.0
"""The red- commands that are no twins of dnf5's own: all of the work is ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from redcheck import cli as check
from reddnf.manage_line import run_manager

# By name; each takes the arguments and returns the exit status.
RUNNERS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "red-manager": run_manager,
    "rmg": run_manager,
    "red-check": check.main,
}
