# SPDX-License-Identifier: Apache-2.0
"""The SMACK label of an application (tag `smack`)."""

from __future__ import annotations

import os

from redwrap.errors import LaunchError
from redwrap.operations import SmackLabel

_FILES = ("/proc/self/attr/smack/current", "/proc/self/attr/current")
_MOUNT = "/sys/fs/smackfs"


def label_file(step: SmackLabel) -> str:
    """The file that takes the label of the process. Raises LaunchError without SMACK."""
    if not os.path.ismount(_MOUNT):
        where = f"{step.origin}: " if step.origin is not None else ""
        node = f" (node {step.origin.node})" if step.origin is not None else ""
        raise LaunchError(f"{where}config.smack: cannot set the label {step.label}: SMACK is not "
                          f"active on this kernel{node}",
                          hint="take the tag out, or boot with security=smack")
    return next(path for path in _FILES if os.path.exists(path))
