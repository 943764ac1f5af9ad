# SPDX-License-Identifier: Apache-2.0
"""What the core OS says of itself: os-release(5)."""

from __future__ import annotations


def read_os_release() -> dict[str, str]:
    """The core OS's os-release, quotes taken off; empty when it has none."""
    for file in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                pairs = (line.strip().partition("=") for line in stream)
                return {key: value.strip("\"'") for key, _, value in pairs if key}
        except OSError:
            continue
    return {}
