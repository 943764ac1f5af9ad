# SPDX-License-Identifier: Apache-2.0
"""Standard streams that the caller closed, or that take nothing more."""

from __future__ import annotations

import os
import sys

from redpak.errors import RedpakError


def open_missing_streams() -> None:
    """Open the standard streams that the caller closed: what is opened next must not get their
    numbers, and Python has None in their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
            setattr(sys, name, os.fdopen(fd, mode))


def print_all(text: str) -> None:
    """Write ``text`` to stdout, and see that it is there. Raises RedpakError; BrokenPipeError when
    its reader has seen enough. Then Python has nothing left to write when it ends."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise RedpakError(f"cannot write to stdout: {error.strerror}") from error
