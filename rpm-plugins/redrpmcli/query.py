# SPDX-License-Identifier: Apache-2.0
"""Queries that take more than the leaf's rpmdb: of the family, of another node's paths, of keys."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from itertools import groupby

from redpak.errors import RedpakError
from redpak.family import Family
from redrpm.locking import lock_family
from redrpm.ownership import Ownership
from redrpm.rpmdb import build_family_rpmdb, family_members
from redrpm.scratch import ScratchDirectory
from redrpmcli.dispatch import tell
from redrpmcli.options import CHECKSIG, RpmArguments
from redrpmcli.paths import Places
from redsys.run import pass_through

_MARK = "\x01"
# %{NODE}, with a width as any tag can have.
_NODE_TAG = re.compile(r"%(-?)(\d*)\{(NODE|NODE_PATH)\}", re.IGNORECASE)
_FORMATS = ("--qf", "--queryformat")
# Options by which rpm shows something else than the names of packages.
_OTHER_VIEWS = frozenset(
    "l c d s i L A R P --list --configfiles --docfiles --licensefiles --artifactfiles --state"
    " --dump --info --scripts --requires --provides --conflicts --obsoletes --recommends --suggests"
    " --supplements --enhances --changelog --changes --xml --triggerscripts --triggers"
    " --filetriggerscripts --filetriggers --last --dupes --filesbypkg --fileclass --filecolor"
    " --fileprovide --filerequire --filecaps --qf --queryformat".split()
)


def query(family: Family, arguments: RpmArguments) -> int:
    """Answer from a private copy of the rpmdbs; the exit status. Raises RedpakError."""
    locks = lock_family(family, notify=tell, exclusive=False)
    try:
        with ScratchDirectory() as work:
            members = family_members(family)
            places = Places([node.path for node in reversed(family.nodes)])
            if arguments.names_packages_by_path:
                owners = map_paths(arguments, places)
            else:
                owners = {family.leaf.path}
            # Signatures are checked with the keys of the whole family.
            whole = "--family" in arguments.own or len(owners) > 1 or arguments.mode == CHECKSIG
            if not whole:
                members = [member for member in members if member.owner in owners]
            rpmdb = build_family_rpmdb(members, f"{work}/rpmdb")
            if "--family" not in arguments.own:
                return pass_through(["rpm", "--dbpath", rpmdb.directory, *arguments.for_rpm])
            ownership = Ownership(family, rpmdb)

            def find_node(number: int) -> tuple[str, str]:
                owner = ownership.owner(number)
                return ownership.alias(owner), owner

            return FamilyQuery(rpmdb.directory, find_node, arguments).run()
    except OSError as err:
        raise RedpakError(f"cannot read the rpmdbs of the family: {err}") from err
    finally:
        for lock in locks:
            lock.release()


def map_paths(arguments: RpmArguments, places: Places) -> set[str]:
    """Replace the words, which are paths, by the packages' own; the nodes they lead to."""
    mapped = [places.map(word) for word in arguments.words]
    arguments.words = [path for _node, path in mapped]
    return {node for node, _path in mapped if node} or {places.leaf}


class FamilyQuery:
    """A query of a family rpmdb that says which node each package lives in."""

    def __init__(
        self, rpmdb: str, find_node: Callable[[int], tuple[str, str]], arguments: RpmArguments
    ) -> None:
        """``find_node`` gives alias and path of the node that owns a header, by its number."""
        self._arguments = arguments
        self._directory = rpmdb
        self._node = find_node

    def run(self) -> int:
        """Print the answer; rpm's exit status. Raises RedpakError."""
        rpm = ["rpm", "--dbpath", self._directory]
        if not self._shows_node():
            return pass_through([*rpm, *self._arguments.for_rpm])
        status, numbers = self._select(rpm)
        for (alias, path), group in groupby(numbers, key=self._node):
            chosen = map(str, group)
            status = pass_through([*rpm, *self._show(alias, path), *chosen]) or status
        return status

    def _shows_node(self) -> bool:
        """Whether the output names nodes: a plain list does, and information, and %{NODE}."""
        asked = any(
            _NODE_TAG.search(word) for option in self._arguments.options for word in option
        )
        plain = not self._arguments.has(*_OTHER_VIEWS)
        return asked or plain or self._arguments.has("i", "--info")

    def _select(self, rpm: Sequence[str]) -> tuple[int, list[int]]:
        """The numbers of the packages that are meant; what rpm has to say of the others is
        passed on."""
        format_ = f"{_MARK}%{{DBINSTANCE}}\\n"
        options = self._arguments.selecting()
        argv = [*rpm, *options, "--qf", format_, *self._arguments.positional]
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
        except OSError as err:
            raise RedpakError(f"rpm: {err.strerror}", hint="install rpm") from err
        numbers = []
        for line in os.fsdecode(done.stdout).splitlines():
            if line.startswith(_MARK):
                numbers.append(int(line[1:]))
            else:
                print(line)
        return done.returncode, numbers

    def _show(self, alias: str, path: str) -> list[str]:
        """The options that show packages of a node."""
        words = [_name_node(word, alias, path) for word in self._arguments.showing()]
        if self._arguments.has("i", "--info"):
            words += ["--qf", f"Node        : {alias}\\n"]
        return [*words, "-D", f"_query_all_fmt %%{{nvra}}  {alias}", "-q", "--querybynumber"]


def _name_node(word: str, alias: str, path: str) -> str:
    def replace(found: re.Match[str]) -> str:
        text = path if found[3].upper() == "NODE_PATH" else alias
        width = int(found[2] or 0)
        padded = text.ljust(width) if found[1] else text.rjust(width)
        return padded.replace("\\", "\\\\").replace("%", "%%")

    return _NODE_TAG.sub(replace, word)
