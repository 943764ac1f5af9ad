# SPDX-License-Identifier: Apache-2.0
"""The mounts of this process's namespace: proc(5), /proc/PID/mountinfo."""

from __future__ import annotations

import re


def read_mounts() -> list[tuple[str, str]]:
    """The mount points with the types of their file systems, in the order of mounting.

    Raises OSError.
    """
    return [(path, kind) for path, kind, _ in read_devices()]


def read_devices() -> list[tuple[str, str, int]]:
    """read_mounts(), with the major number of the device that each file system is on.

    Raises OSError.
    """
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            fields, _, rest = line.partition(" - ")
            words = fields.split()
            path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])
            found.append((path, rest.split()[0], int(words[2].partition(":")[0])))
    return found
