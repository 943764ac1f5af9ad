# SPDX-License-Identifier: Apache-2.0
"""External commands: every one of them goes through run()."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Optional, Union

from redpak.errors import RedpakError

# What a tool needs to behave the same everywhere; nothing else crosses.
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TERM")


def tool_environment(extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """The environment of an external tool: a safe part of ours, the C locale, and ``extra``."""
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environment["PATH"] = environment.get("PATH") or "/usr/sbin:/usr/bin:/sbin:/bin"
    environment["LC_ALL"] = "C.UTF-8"
    environment.update(extra or {})
    return environment


def run(
    argv: Sequence[str],
    *,
    data: Optional[bytes] = None,
    stdin: Optional[Union[int, IO[bytes]]] = None,
    stdout: Optional[Union[int, IO[bytes]]] = None,
    environ: Optional[Mapping[str, str]] = None,
    package: str = "",
) -> bytes:
    """Run ``argv`` (never through a shell) and return what it wrote to stdout.

    ``data`` is fed to its stdin, which is closed otherwise; ``stdin`` and ``stdout`` may be open
    files instead. ``package`` names the package that ships the tool, for the hint when it is
    missing. Raises RedpakError with the tool's own last line when it fails.
    """
    if data is None and stdin is None:
        stdin = subprocess.DEVNULL
    try:
        done = subprocess.run(
            list(argv),
            input=data,
            stdin=stdin if data is None else None,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            env=tool_environment(environ),
            check=False,
        )
    except FileNotFoundError as err:
        raise RedpakError(
            f"{argv[0]}: command not found", hint=f"install {package or argv[0]}"
        ) from err
    except OSError as err:
        raise RedpakError(f"{argv[0]}: {err.strerror}") from err
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise RedpakError(f"{' '.join(argv[:3])}: {reason}")
    return done.stdout or b""


def pass_through(argv: Sequence[str]) -> int:
    """Run ``argv`` on our own standard streams, in our environment; its exit status.

    128 + N when signal N ended it. Raises RedpakError when it cannot be started.
    """
    sys.stdout.flush()
    try:
        status = subprocess.run(list(argv), check=False).returncode
    except OSError as err:
        raise RedpakError(f"{argv[0]}: {err.strerror}", hint=f"install {argv[0]}") from err
    return status if status >= 0 else 128 - status


def run_silently(become: Callable[[], object]) -> None:
    """Wait for a child without our standard streams, in which ``become`` executes a program.

    Nothing is told of how it ended.
    """
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        become()
    finally:
        os._exit(127)


def command_line() -> list[str]:
    """The arguments of this process as it was started, with those of its interpreter."""
    with open("/proc/self/cmdline", "rb") as stream:
        return [os.fsdecode(word) for word in stream.read().split(b"\0")[:-1]]
