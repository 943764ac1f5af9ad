# SPDX-License-Identifier: Apache-2.0
"""What the core OS says of itself: os-release(5)."""

from __future__ import annotations

# The first that is there counts.
OS_RELEASE_FILES = ("/etc/os-release", "/usr/lib/os-release")


def read_os_release() -> dict[str, str]:
    """The core OS's os-release, quotes taken off; empty when it has none."""
    for file in OS_RELEASE_FILES:
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                pairs = (line.strip().partition("=") for line in stream)
                return {key: value.strip("\"'") for key, _, value in pairs if key}
        except OSError:
            continue
    return {}
