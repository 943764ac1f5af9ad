# SPDX-License-Identifier: Apache-2.0
"""red-rpm in the namespace of a node: what of the family can be seen from there."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from typing import Any

import rpm

from redpak.errors import RedpakError
from redrpm.ownership import CORE_ALIAS
from redrpm.rpmdb import (
    Member,
    build_family_rpmdb,
    copy_member,
    header_stream,
    import_headers,
    nevra,
    open_rpmdb,
    read_names,
)
from redrpm.scratch import ScratchDirectory
from redrpmcli.options import CHANGES, CHECKSIG, VERIFY, RpmArguments
from redrpmcli.paths import INSIDE, Places
from redrpmcli.query import FamilyQuery, map_paths
from redrpmcli.verify import select_labels
from redsys.run import pass_through

# Where main.yaml and the templates show rpmdbs: the leaf's at rpm's own place.
_RPMDB = "var/lib/rpm"


def run_inside(arguments: RpmArguments, places: Places) -> int:
    """Query or verify in the namespace of ``places``; rpm's exit status. Raises RedpakError."""
    if arguments.mode in CHANGES or any(name.startswith("--ota") for name in arguments.own):
        outside = os.environ.get("LEAF_PATH", "DIR")
        raise RedpakError(
            "a namespace only shows the node, it cannot be changed from there",
            hint=f"run red-rpm --redpath={outside} outside of it",
        )
    with ScratchDirectory() as work:
        members = _find_members(places)
        if arguments.mode == VERIFY:
            return _verify(members, places, arguments, work)
        owners = {places.leaf}
        if arguments.names_packages_by_path:
            owners = map_paths(arguments, places)
        if "--family" not in arguments.own and arguments.mode != CHECKSIG and len(owners) == 1:
            members = [member for member in members if member.owner in owners]
        rpmdb = build_family_rpmdb(members, f"{work}/rpmdb")

        def find_node(number: int) -> tuple[str, str]:
            owner = rpmdb.packages[number].owner
            return (os.path.basename(owner), owner) if owner != "/" else (CORE_ALIAS, owner)

        if "--family" in arguments.own:
            return FamilyQuery(rpmdb.directory, find_node, arguments).run()
        return pass_through(["rpm", "--dbpath", rpmdb.directory, *arguments.for_rpm])


def _find_members(places: Places) -> list[Member]:
    """The rpmdbs that the namespace shows, oldest first. Raises RedpakError without the leaf's."""
    members = [Member("/", f"{INSIDE}/{CORE_ALIAS}/{_RPMDB}")]
    members += [Member(node, f"{node}/{_RPMDB}") for node in reversed(places.nodes[1:])]
    members.append(Member(places.leaf, f"/{_RPMDB}"))
    found = [member for member in members if os.access(member.directory, os.R_OK | os.X_OK)]
    if not found or found[-1].owner != places.leaf:
        raise RedpakError(f"/{_RPMDB}: the rpmdb of the node is not in this namespace",
                          hint="export it, as the default template does")
    return found


def _verify(
    members: Sequence[Member], places: Places, arguments: RpmArguments, work: str
) -> int:
    """rpm -V of the leaf's packages, which lie below /nodes here."""
    if "--family" in arguments.own:
        raise RedpakError("--family goes with -q here", hint="verify the family outside")
    if arguments.names_packages_by_path:
        arguments.words = [places.map(word)[1] for word in arguments.words]
    own = copy_member(members[-1], f"{work}/own")
    status, labels = select_labels(own.directory, arguments)
    if not labels:
        return status
    rpmdb = build_family_rpmdb(members, f"{work}/family")
    with open_rpmdb(own.directory) as ts:
        chosen = [h for h in ts.dbMatch() if nevra(h) in set(labels)]
        stream = header_stream(_relocate(header, places.leaf) for header in chosen)
    # The family's own headers stay: they are what dependencies are checked against.
    import_headers(rpmdb.directory, stream)
    numbers = sorted(read_names(rpmdb.directory).keys() - rpmdb.packages.keys())
    rpm_ = ["rpm", "--dbpath", rpmdb.directory, "-V", "--noscripts", *arguments.showing()]
    return pass_through([*rpm_, "--querybynumber", *map(str, numbers)]) or status


def _relocate(header: Any, node: str) -> Any:
    """``header`` with its files where this namespace shows them, and whose they are."""
    names = header[rpm.RPMTAG_BASENAMES]
    if not names:
        return header
    changes = {rpm.RPMTAG_DIRNAMES: [f"{node}{name}" for name in header[rpm.RPMTAG_DIRNAMES]]}
    owner = os.stat(f"{node}/usr")
    if owner.st_uid != 0:
        # All files of an ordinary user's node are his.
        user, group = pwd.getpwuid(owner.st_uid).pw_name, grp.getgrgid(owner.st_gid).gr_name
        changes[rpm.RPMTAG_FILEUSERNAME] = [user] * len(names)
        changes[rpm.RPMTAG_FILEGROUPNAME] = [group] * len(names)
    for tag, values in changes.items():
        del header[tag]
        header[tag] = values
    return header
