# SPDX-License-Identifier: Apache-2.0
"""Who the application runs as: the tags set-user and set-group, --user and --group."""

from __future__ import annotations

import grp
import os
import pwd

from redpak.effective import EffectiveConfig
from redpak.errors import TYPE_CHECKING
from redpak.values import dataclass
from redwrap.errors import LaunchError
from redwrap.operations import RunAs

if TYPE_CHECKING:
    from typing import Optional

_MOST = 2**32 - 2  # the greatest uid and gid: -1 is none


@dataclass(frozen=True)
class Identity:
    """The ids of the application; `changes` when they were asked for."""

    uid: int
    gid: int
    changes: bool = False


def find_identity(config: EffectiveConfig, *, user: Optional[str],
                  group: Optional[str]) -> Identity:
    """The options win over the tags. Raises LaunchError for an unknown name."""
    user_text, group_text = user or config.tags.set_user, group or config.tags.set_group
    if not user_text and not group_text:
        return Identity(os.getuid(), os.getgid())
    uid, gid = os.getuid(), os.getgid()
    if user_text:
        uid, gid = _find_user(user_text, _where(config, "set-user", given=user is not None))
    if group_text:
        gid = _find_group(group_text, _where(config, "set-group", given=group is not None))
    return Identity(uid, gid, changes=(uid, gid) != (os.getuid(), os.getgid()))


def _where(config: EffectiveConfig, key: str, *, given: bool) -> str:
    known = config.provenance.get(key)
    option = key.replace("set-", "--")
    return option if given or known is None else f"{known.origin}: config.{key}"


def _find_user(text: str, where: str) -> tuple[int, int]:
    number = _number(text, where)
    try:
        entry = pwd.getpwnam(text) if number is None else pwd.getpwuid(number)
    except KeyError:
        if number is not None:
            return number, number
        raise LaunchError(f"{where}: there is no user {text}",
                          hint="write a name of this system, or a number") from None
    return entry.pw_uid, entry.pw_gid


def _find_group(text: str, where: str) -> int:
    number = _number(text, where)
    if number is not None:
        return number
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise LaunchError(f"{where}: there is no group {text}",
                          hint="write a name of this system, or a number") from None


def _number(text: str, where: str) -> Optional[int]:
    """The number that `text` is; None for a name. One more than there are would be another's."""
    if not (text.isascii() and text.isdigit()):
        return None
    if int(text) > _MOST:
        raise LaunchError(f"{where}: {text} is not the number of a user or group",
                          hint=f"write a number up to {_MOST}")
    return int(text)


def list_groups(step: RunAs) -> list[int]:
    """The groups of the user that root becomes."""
    try:
        return os.getgrouplist(pwd.getpwuid(step.uid).pw_name, step.gid)
    except KeyError:
        return [step.gid]
