# SPDX-License-Identifier: Apache-2.0
"""One file beside its package's description, as `rpm --verify` compares them (lib/verify.c)."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import stat
import struct
from collections.abc import Mapping, Sequence

import rpm

from redcheck.owned import OwnedFile
from redpak.kinds import CAPABILITIES
from redpak.values import dataclass

_BLOCK = 1 << 20
# What is not compared, by the type of what is there.
_MEANINGLESS = {
    stat.S_IFDIR: (rpm.RPMVERIFY_FILEDIGEST | rpm.RPMVERIFY_FILESIZE | rpm.RPMVERIFY_MTIME
                   | rpm.RPMVERIFY_LINKTO | rpm.RPMVERIFY_CAPS),
    stat.S_IFLNK: (rpm.RPMVERIFY_FILEDIGEST | rpm.RPMVERIFY_FILESIZE | rpm.RPMVERIFY_MTIME
                   | rpm.RPMVERIFY_MODE | rpm.RPMVERIFY_CAPS),
    stat.S_IFREG: rpm.RPMVERIFY_LINKTO,
}
_OF_DEVICES = _MEANINGLESS[stat.S_IFDIR]
_OF_GHOSTS = _MEANINGLESS[stat.S_IFDIR] | rpm.RPMVERIFY_MODE
# Ownership and what comes with it: only root can give them to a file.
_OF_ROOT = rpm.RPMVERIFY_USER | rpm.RPMVERIFY_GROUP | rpm.RPMVERIFY_CAPS | rpm.RPMVERIFY_RDEV
_SET_IDS = stat.S_ISUID | stat.S_ISGID
# What an administrator may change in a configuration file without a word.
_CONTENT = (rpm.RPMVERIFY_FILEDIGEST | rpm.RPMVERIFY_FILESIZE | rpm.RPMVERIFY_MTIME
            | rpm.RPMVERIFY_LINKTO)
# rpm's letters, and what they stand for.
_LETTERS = (
    ("S", rpm.RPMVERIFY_FILESIZE, "size"),
    ("M", rpm.RPMVERIFY_MODE, "mode"),
    ("5", rpm.RPMVERIFY_FILEDIGEST, "content"),
    ("D", rpm.RPMVERIFY_RDEV, "device number"),
    ("L", rpm.RPMVERIFY_LINKTO, "link target"),
    ("U", rpm.RPMVERIFY_USER, "owner"),
    ("G", rpm.RPMVERIFY_GROUP, "group"),
    ("T", rpm.RPMVERIFY_MTIME, "time of change"),
    ("P", rpm.RPMVERIFY_CAPS, "capabilities"),
)


@dataclass(frozen=True)
class Accounts:
    """The users and groups that the checked machine knows, by number.

    ``privileged`` is false where files belong to the node's owner whatever their package says.
    """

    users: Mapping[int, str]
    groups: Mapping[int, str]
    privileged: bool


def read_accounts(roots: Sequence[str], *, privileged: bool) -> Accounts:
    """Of the topmost of ``roots`` that has passwd and group; real paths of their etc."""
    return Accounts(_read_names(roots, "passwd"), _read_names(roots, "group"), privileged)


def _read_names(roots: Sequence[str], name: str) -> dict[int, str]:
    for root in roots:
        known = _parse_names(f"{root.rstrip('/')}/etc/{name}")
        if known is not None:
            return known
    return {0: "root"}


@functools.cache  # a tree's nodes share their ancestors' files
def _parse_names(path: str) -> dict[int, str] | None:
    if os.path.islink(path) or os.path.islink(os.path.dirname(path)):
        return None  # in an image it may lead out of it
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            rows = (line.split(":") for line in lines)
            return {int(row[2]): row[0] for row in rows if len(row) > 2 and row[2].isdigit()}
    except OSError:
        return None


def compare(file: OwnedFile, path: str, info: os.stat_result, accounts: Accounts) -> int:
    """What differs (RPMVERIFY_*) between ``file`` and what is at ``path``. Raises OSError, also for
    a digest of an unknown kind."""
    wanted = file.verify & ~_MEANINGLESS.get(stat.S_IFMT(info.st_mode), _OF_DEVICES)
    if file.is_ghost:
        wanted &= ~_OF_GHOSTS
    if not accounts.privileged:
        wanted &= ~_OF_ROOT
    if stat.S_IFMT(info.st_mode) != stat.S_IFMT(file.mode):
        # An ordinary user cannot make devices; for others nothing else can be compared.
        return 0 if file.is_ghost else rpm.RPMVERIFY_MODE
    found = _compare_status(file, info, wanted, accounts)
    if wanted & rpm.RPMVERIFY_LINKTO and os.readlink(path) != file.link:
        found |= rpm.RPMVERIFY_LINKTO
    if wanted & rpm.RPMVERIFY_CAPS and not _has_capabilities(path, file.capabilities):
        found |= rpm.RPMVERIFY_CAPS
    if wanted & rpm.RPMVERIFY_FILEDIGEST and (
            found & rpm.RPMVERIFY_FILESIZE or _digest(path, file.algorithm) != file.digest):
        found |= rpm.RPMVERIFY_FILEDIGEST
    return found


def _compare_status(
    file: OwnedFile, info: os.stat_result, wanted: int, accounts: Accounts
) -> int:
    found = 0
    if wanted & rpm.RPMVERIFY_MODE:
        ignored = 0 if accounts.privileged else _SET_IDS
        if (info.st_mode ^ file.mode) & ~ignored & 0o7777:
            found |= rpm.RPMVERIFY_MODE
    if wanted & rpm.RPMVERIFY_FILESIZE and info.st_size != file.size:
        found |= rpm.RPMVERIFY_FILESIZE
    if wanted & rpm.RPMVERIFY_MTIME and info.st_mtime_ns // 10**9 != file.mtime:
        found |= rpm.RPMVERIFY_MTIME
    if wanted & rpm.RPMVERIFY_USER and accounts.users.get(info.st_uid) != file.user:
        found |= rpm.RPMVERIFY_USER
    if wanted & rpm.RPMVERIFY_GROUP and accounts.groups.get(info.st_gid) != file.group:
        found |= rpm.RPMVERIFY_GROUP
    is_device = stat.S_ISCHR(file.mode) or stat.S_ISBLK(file.mode)
    if is_device and wanted & rpm.RPMVERIFY_RDEV and info.st_rdev & 0xffff != file.device:
        found |= rpm.RPMVERIFY_RDEV
    return found


def _digest(path: str, algorithm: str) -> str:
    if not algorithm:
        raise OSError(errno.EOPNOTSUPP, "its package has a digest of an unknown kind")
    # O_NOFOLLOW and O_NONBLOCK: the file may have been exchanged since it was looked at.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
        return digest.hexdigest()
    finally:
        os.close(descriptor)


def _has_capabilities(path: str, wanted: str) -> bool:
    """Whether the file has the capabilities that its package gives it, in the form of
    cap_to_text(3); linux/capability.h, struct vfs_cap_data."""
    try:
        data = os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        data = b""
    if not wanted or not data:
        return bool(wanted) == bool(data)
    magic, permitted, inheritable, permitted_high, inheritable_high = (
        *struct.unpack_from("<III", data), *(struct.unpack_from("<II", data, 12)
                                             if len(data) >= 20 else (0, 0)))
    has = (permitted | permitted_high << 32, inheritable | inheritable_high << 32, magic & 1)
    return has == parse_capabilities(wanted)


def parse_capabilities(text: str) -> tuple[int, int, int]:
    """The permitted and inheritable sets of a text such as "cap_net_raw=ep", and 1 when they are
    effective."""
    permitted = inheritable = effective = 0
    for clause in text.split():
        found = re.fullmatch(r"([a-z0-9_,]*)([=+])([eip]*)", clause.lower())
        if found is None:
            continue
        names = found[1].split(",")
        bits = sum(1 << CAPABILITIES.index(name.upper()) for name in names
                   if name.upper() in CAPABILITIES)
        if names in ([""], ["all"]):
            bits = (1 << len(CAPABILITIES)) - 1
        permitted |= bits if "p" in found[3] else 0
        inheritable |= bits if "i" in found[3] else 0
        effective |= int("e" in found[3] and bool(bits))
    return permitted, inheritable, effective


def describe(difference: int) -> str:
    """A difference as rpm writes it, and in words: "S.5....T. (size, content, time of change)"."""
    letters = "".join(letter if difference & flag else "." for letter, flag, _ in _LETTERS)
    words = ", ".join(word for _, flag, word in _LETTERS if difference & flag)
    return f"{letters} ({words})"


def is_content_only(difference: int) -> bool:
    """Whether only that differs which an administrator may change in a configuration file."""
    return not difference & ~_CONTENT
