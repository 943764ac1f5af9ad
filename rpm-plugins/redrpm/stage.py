# SPDX-License-Identifier: Apache-2.0
"""The stage: every write of a transaction, until it is committed or thrown away."""

from __future__ import annotations

import errno
import os
import shutil

from redpak.errors import RedpakError
from redpak.values import dataclass
from redsys.trees import remove_tree


@dataclass(frozen=True)
class Stage:
    """A directory tree below ``path``, on the node's file system (a commit renames).

    root    installroot of dnf and rpm: at first only the family rpmdb and the node's dnf state;
            the view is mounted over it
    delta   the upper layers: what scriptlets and rpm wrote
    work    overlayfs's own scratch space, one directory a layer
    mounts  mount point of the layers' short names
    rpmdb   the node's new rpmdb, derived after the transaction
    dnf     the node's new dnf state, copied from root after the transaction
    """

    path: str

    @property
    def root(self) -> str:
        return f"{self.path}/root"

    @property
    def delta(self) -> str:
        return f"{self.path}/delta"

    @property
    def work(self) -> str:
        return f"{self.path}/work"

    @property
    def mounts(self) -> str:
        return f"{self.path}/mounts"

    @property
    def rpmdb(self) -> str:
        return f"{self.path}/rpmdb"

    @property
    def dnf_state(self) -> str:
        return f"{self.path}/dnf"

    def create(self) -> None:
        """Make the empty stage. Raises RedpakError when the node cannot be written."""
        try:
            os.makedirs(f"{self.root}/var/lib")
            for path in (self.delta, self.work, self.mounts):
                os.mkdir(path)
                os.chmod(path, 0o755)
        except OSError as err:
            owner = "the node's owner, or root, must run this command"
            raise RedpakError(
                f"{self.path}: cannot create the stage: {err.strerror}",
                hint=owner if err.errno in (errno.EACCES, errno.EPERM) else "",
            ) from err

    def mark(self, generation: int) -> None:
        """Note which commit the stage is for. Raises OSError."""
        with open(f"{self.path}/generation", "w", encoding="ascii") as stream:
            stream.write(str(generation))

    @property
    def generation(self) -> int:
        """The commit that the stage is for; 0 when none has begun."""
        try:
            with open(f"{self.path}/generation", encoding="ascii") as stream:
                return int(stream.read())
        except (OSError, ValueError):
            return 0

    @property
    def discarded(self) -> str:
        """Where the stage is while it is being removed."""
        return f"{self.path}.discarded"

    def discard(self) -> None:
        """Remove the stage, if there is one. Raises OSError.

        Renamed first, a half removed stage is never taken for that of an unfinished transaction.
        """
        remove_tree(self.discarded)
        if os.path.isdir(self.path):
            os.rename(self.path, self.discarded)
            remove_tree(self.discarded)


def copy_tree(source: str, target: str) -> None:
    """Copy a directory of dnf's state, but for its lock files. Raises RedpakError, OSError."""
    locks = shutil.ignore_patterns("*.pid", "*.lock")
    try:
        shutil.copytree(source, target, symlinks=True, ignore=locks)
    except shutil.Error as err:
        # It gathers what went wrong: (source, target, reason), ...
        raise RedpakError(f"{source}: cannot copy: {err.args[0][0][2]}") from err
