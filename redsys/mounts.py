# SPDX-License-Identifier: Apache-2.0
"""The mounts of this process's namespace: proc(5), /proc/PID/mountinfo."""

from __future__ import annotations

import re


def read_mounts() -> list[tuple[str, str]]:
    """The mount points with the types of their file systems, in the order of mounting.

    Raises OSError.
    """
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields, _, rest = line.partition(" - ")
            path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split()[4])
            found.append((path, rest.split()[0]))
    return found
