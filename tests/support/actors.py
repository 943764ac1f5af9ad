# SPDX-License-Identifier: Apache-2.0
"""Who runs a command under test: an ordinary user, or root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Mapping, Optional, Sequence, Union

TEST_USER = "redpak-test"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Argument = Union[str, Path]


@dataclass(frozen=True)
class Actor:
    """Runs commands as one user, in an environment that holds nothing of the tester's own."""

    kind: str  # "user" or "root"
    name: str
    uid: int
    gid: int
    environ: Mapping[str, str] = field(default_factory=dict)

    def with_environ(self, **changes: str) -> Actor:
        return replace(self, environ={**self.environ, **changes})

    def popen(self, argv: Sequence[Argument], **options: object) -> subprocess.Popen[str]:
        """Start argv; options are those of subprocess.Popen, `env` is added to the actor's own."""
        options.setdefault("stdin", subprocess.DEVNULL)
        extra = options.pop("env", None) or {}
        options["env"] = {**self.environ, **extra}  # type: ignore[dict-item]
        if os.geteuid() != self.uid:
            options.update(user=self.uid, group=self.gid, extra_groups=[])
        command = [os.fspath(word) for word in argv]
        return subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload, no-any-return]

    def run(
        self,
        argv: Sequence[Argument],
        *,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[Path] = None,
        timeout: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run argv to its end; stdout and stderr are caught apart. timeout is in seconds."""
        process = self.popen(
            argv, env=env, cwd=cwd or "/", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def check(self, argv: Sequence[Argument], **options: object) -> str:
        """Run argv, insist on status 0, and return its stdout."""
        done = self.run(argv, **options)  # type: ignore[arg-type]
        assert done.returncode == 0, describe(done)
        return done.stdout


def describe(done: subprocess.CompletedProcess[str]) -> str:
    """The whole of a finished command, for an assertion's message."""
    words = " ".join(str(word) for word in done.args)
    return f"{words}\nstatus {done.returncode}\n{done.stdout}\n{done.stderr}"


def actor_kinds() -> tuple[str, ...]:
    """Root can also be the ordinary user; an ordinary user can only be itself."""
    return ("user", "root") if os.geteuid() == 0 else ("user",)


def find_actor(kind: str) -> Actor:
    """The account behind a kind; makes the tests' own account when root asks for "user"."""
    if kind == "root" or os.geteuid() != 0:
        account = pwd.getpwuid(os.geteuid())
    else:
        account = _ordinary_account()
    return Actor(kind=kind, name=account.pw_name, uid=account.pw_uid, gid=account.pw_gid)


def _ordinary_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(TEST_USER)
    except KeyError:
        subprocess.run(
            ["useradd", "--user-group", "--no-create-home", "--shell", "/bin/sh", TEST_USER],
            check=True,
        )
        return pwd.getpwnam(TEST_USER)
