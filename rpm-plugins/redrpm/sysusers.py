# SPDX-License-Identifier: Apache-2.0
"""The accounts that packages declare (sysusers.d(5)), made in a view.

rpm 4.19 and later start a helper for the accounts that a package provides, outside of the root in
which its scriptlets run. The distributions' helpers make their tools change to that root, for which
nothing that is started beside a view has the power; and in a view a package may have put symlinks
that lead out of it. This helper opens the four files from the directory they are in, and follows
none.

`sysusers.py [--replace FILE] [--root DIR] -` reads the lines from stdin, as rpm gives them. It runs
without the distribution's modules: the standard library only.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Optional

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
_FORBIDDEN = re.compile(r"[:\x00-\x1f]")
# Numbers of system accounts, given away from the top (login.defs(5), SYS_UID_MAX and _MIN).
_SYSTEM_IDS = range(999, 100, -1)
_SHELL = "/usr/sbin/nologin"
_MODES = {"passwd": 0o644, "group": 0o644}  # the shadows are only kept where there are some
_SHADOWS = ("shadow", "gshadow")


class AccountError(Exception):
    """A line that nothing can be made of: one line."""


class Accounts:
    """passwd, group and their shadows in the directory ``etc``; changed in memory until write()."""

    def __init__(self, etc: str) -> None:
        """Raises OSError."""
        self._directory = os.open(etc, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._rows = {name: self._read(name) for name in (*_MODES, *_SHADOWS)}
        self._changed: set[str] = set()

    def add_group(self, name: str, wanted: Optional[int] = None) -> str:
        """The number of a group, made when it is not there: ``wanted``, when nobody has that."""
        row = self._find("group", name)
        if row is not None:
            return row[2]
        number = str(self._choose("group", wanted))
        self._append("group", [_checked_name(name), "x", number, ""])
        self._append("gshadow", [name, "!*", "", ""])
        return number

    def add_user(
        self,
        name: str,
        *,
        wanted: Optional[int] = None,
        group: str = "",
        gecos: str = "",
        home: str = "",
        shell: str = "",
        locked: bool = False,
    ) -> None:
        """Make a user that is not there, and without ``group`` one of the same name."""
        if self._find("passwd", name) is not None:
            return
        gid = self._group_number(group) if group else self.add_group(name, wanted)
        number = self._choose("passwd", wanted, int(gid))
        row = [_checked_name(name), "x", str(number), gid, gecos, home or "/", shell or _SHELL]
        for field in row:
            if _FORBIDDEN.search(field):
                raise AccountError(f"{name}: {field!r} cannot stand in passwd")
        self._append("passwd", row)
        self._append("shadow", [name, "!*", "", "", "", "", "", "1" if locked else "", ""])

    def add_member(self, user: str, group: str) -> None:
        """Put a user into a group; both are made when they are not there."""
        self.add_user(user)
        self.add_group(group)
        for name in ("group", "gshadow"):
            row = self._find(name, group)
            members = row[3].split(",") if row is not None and row[3] else []
            if row is not None and user not in members:
                row[3] = ",".join([*members, user])
                self._changed.add(name)

    def write(self) -> None:
        """Replace the files that are changed. Raises OSError."""
        for name in sorted(self._changed):
            text = "".join(":".join(row) + "\n" for row in self._rows[name])
            self._replace(name, text.encode("utf-8", "surrogateescape"))
        self._changed.clear()

    def _read(self, name: str) -> list[list[str]]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._directory)
        except FileNotFoundError:
            return []
        with open(fd, encoding="utf-8", errors="surrogateescape") as stream:
            return [line.rstrip("\n").split(":") for line in stream if line.strip()]

    def _replace(self, name: str, content: bytes) -> None:
        new = f".{name}.redpak"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(new, flags, 0o600, dir_fd=self._directory)
        with open(fd, "wb") as stream:
            stream.write(content)
            try:
                old = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                os.fchmod(fd, _MODES[name])
            else:
                os.fchown(fd, old.st_uid, old.st_gid)
                os.fchmod(fd, old.st_mode & 0o7777)
        os.rename(new, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _find(self, file: str, name: str) -> Optional[list[str]]:
        """The row of an account; None when there is none, or it is an odd one."""
        fields = {"passwd": 7, "group": 4, "gshadow": 4}[file]
        return next(
            (row for row in self._rows[file] if row[0] == name and len(row) == fields), None
        )

    def _append(self, file: str, row: list[str]) -> None:
        if file in _SHADOWS and not self._rows[file] and not self._exists(file):
            return
        self._rows[file].append(row)
        self._changed.add(file)

    def _exists(self, name: str) -> bool:
        return name in os.listdir(self._directory)

    def _group_number(self, group: str) -> str:
        row = self._find("group", group)
        if row is not None:
            return row[2]
        if group.isdecimal():
            return group
        raise AccountError(f"group {group} does not exist")

    def _choose(self, file: str, *wanted: Optional[int]) -> int:
        """The first of ``wanted`` that nobody in ``file`` has, or a number that is free in both."""
        for each in wanted:
            if each is not None and str(each) not in self._numbers(file):
                return each
        taken = self._numbers(*_MODES)
        for number in _SYSTEM_IDS:
            if str(number) not in taken:
                return number
        raise AccountError("no number is left for a system account")

    def _numbers(self, *files: str) -> set[str]:
        return {row[2] for name in files for row in self._rows[name] if len(row) > 2}


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise AccountError(f"{name!r} is not the name of an account")
    return name


def apply_line(accounts: Accounts, line: str, root: str) -> None:
    """Make what one line of sysusers.d(5) says. Raises AccountError."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as err:
        raise AccountError(f"{line!r}: {err}") from err
    if not words:
        return
    kind, name, number, *rest = [*words, "-", "-"] if len(words) < 3 else words
    gecos, home, shell, *_ = [*("" if word == "-" else word for word in rest), "", "", ""]
    if kind == "m":
        accounts.add_member(name, number)
    elif kind == "g":
        accounts.add_group(name, _number(number, root, "st_gid"))
    elif kind in ("u", "u!"):
        uid, _, group = ("", "", "") if number == "-" else number.partition(":")
        accounts.add_user(
            name, wanted=_number(uid or "-", root, "st_uid"), group=group, gecos=gecos, home=home,
            shell=shell, locked=kind == "u!",
        )  # fmt: skip
    elif kind != "r":  # a range of numbers is for the administrator to say
        raise AccountError(f"{line!r}: no account is of the kind {kind}")


def _number(word: str, root: str, owner: str) -> Optional[int]:
    """The number that a word stands for; of a path the one of its owner; None: any will do."""
    if word.isdecimal():
        return int(word)
    if word.startswith("/"):
        try:
            return int(getattr(os.lstat(root + os.path.normpath(word)), owner))
        except OSError:
            return None
    if word != "-":
        raise AccountError(f"{word!r} is not the number of an account")
    return None


def write_helper(directory: str, python: str) -> str:
    """A command in ``directory`` that is this program: rpm's macro takes no arguments."""
    path = f"{directory}/sysusers"
    words = (python, "-I", "-S", "-B", os.path.abspath(__file__))
    with open(path, "x", encoding="utf-8") as stream:
        stream.write(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, words))} "$@"\n')
    os.chmod(path, 0o755)
    return path


def main(arguments: Sequence[str]) -> int:
    """The program; its exit status."""
    options = dict(zip(arguments[::2], arguments[1::2]))
    root = options.get("--root", "/").rstrip("/")
    # The administrator's file of the same name says it otherwise.
    other = f"{root}/etc/sysusers.d/{os.path.basename(options.get('--replace', ''))}"
    try:
        lines = sys.stdin.read().splitlines()
        if os.path.isfile(other) and not os.path.islink(other):
            with open(other, encoding="utf-8") as stream:
                lines = stream.read().splitlines()
        accounts = Accounts(f"{root}/etc")
        # rpm gives them sorted by what they provide; who is to be a member is made first.
        for line in sorted(lines, key=lambda line: line.lstrip().startswith("m")):
            apply_line(accounts, line, root)
        accounts.write()
    except (AccountError, OSError, UnicodeDecodeError) as err:
        sys.stderr.write(f"cannot make the accounts of a package: {err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
