# SPDX-License-Identifier: Apache-2.0
"""What would stop a commit half-way, looked for before it begins: nothing has changed then."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from redpak.errors import RedpakError
from redrpm.journal import Step, StepKind
from redsys.mounts import read_mounts

_RENAMES = (StepKind.PUT_FILE, StepKind.REMOVE_FILE)


def check_obstacles(node: str, stage: str, steps: Sequence[Step], *, as_root: bool) -> None:
    """Raise RedpakError when ``steps``, from ``stage``, cannot all be taken in ``node``.

    ``as_root`` is false for an ordinary user, in a user namespace or not. A file that is made
    immutable is not foreseen. Raises OSError.
    """
    _check_mounts(node, stage, steps)
    if not as_root:
        _check_owners(node, steps)


def _check_mounts(node: str, stage: str, steps: Sequence[Step]) -> None:
    """A step renames: nothing can be renamed into another mount, nor can a mount point."""
    points = {point for point, _kind in read_mounts() if point.startswith(f"{node}/")}
    for point in points:
        if f"{stage}/".startswith(f"{point}/"):
            raise _crossed(point)
        for step in steps:
            place = f"{node}/{step.path}"
            is_below = step.kind in _RENAMES and place.startswith(f"{point}/")
            is_it = place == point and step.kind in (*_RENAMES, StepKind.REMOVE_DIRECTORY)
            if is_below or is_it:
                raise _crossed(point)


def _crossed(point: str) -> RedpakError:
    return RedpakError(
        f"{point}: something is mounted there, and the transaction changes what is below",
        hint="unmount it: a node is one file system, so that a commit is atomic",
    )


def _check_owners(node: str, steps: Sequence[Step]) -> None:
    """An ordinary user can change entries only where he may write, and modes of what is his."""
    places = {os.path.dirname(f"{node}/{step.path}") for step in steps}
    own = {f"{node}/{step.path}" for step in steps if step.kind is StepKind.SET_METADATA}
    for place in sorted(places | own):
        try:
            info = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            continue  # an earlier step makes it
        if not stat.S_ISDIR(info.st_mode) or info.st_uid == os.geteuid():
            continue
        if place in own or not os.access(place, os.W_OK | os.X_OK):
            raise RedpakError(
                f"{place}: belongs to another user, and the transaction changes it",
                hint="give it to the owner of the node",
            )
