# SPDX-License-Identifier: Apache-2.0
"""red-wrap's own failures carry the exit status that a shell user expects."""

from __future__ import annotations

from redpak.errors import RedpakError

FAILED = 125  # red-wrap itself, as in env(1), nohup(1) and chroot(1)
NOT_EXECUTABLE = 126
NOT_FOUND = 127


class LaunchError(RedpakError):
    """The application cannot be started; `status` is red-wrap's exit status."""

    def __init__(self, message: str, *, hint: str = "", status: int = FAILED) -> None:
        super().__init__(message, hint=hint)
        self.status = status
