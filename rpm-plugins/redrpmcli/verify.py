# SPDX-License-Identifier: Apache-2.0
"""Verification: `rpm -V` in a view of the family that nobody writes to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from redpak.errors import RedpakError
from redpak.family import Family, find_descendants
from redrpm.contents import TransactionContents
from redrpm.locking import lock_family
from redrpm.rpmdb import build_family_rpmdb, copy_member, family_members
from redrpm.scratch import ScratchDirectory
from redrpm.stage import Stage
from redrpm.transaction import trim_environment
from redrpm.view import FamilyView
from redrpmcli.dispatch import end_contained, tell
from redrpmcli.options import RpmArguments
from redrpmcli.paths import Places
from redrpmcli.toolroot import VIEW, run_on_view
from redsys import seccomp
from redsys.namespace import fork_contained, in_user_namespace, wait_status

_SCRATCH = "/var/tmp"


def verify(family: Family, arguments: RpmArguments) -> int:
    """Verify packages of the leaf, or of the family; rpm's exit status. Raises RedpakError."""
    locks = lock_family(family, notify=tell, exclusive=False)
    try:
        with ScratchDirectory(_SCRATCH) as work:
            stage = Stage(f"{work}/stage")
            stage.create()
            os.makedirs(f"{stage.root}/var/lib/dnf")
            build_family_rpmdb(family_members(family), f"{stage.root}/var/lib/rpm")
            status, words = _choose(family, arguments, work)
            if not words:
                return status
            pid = fork_contained(user_namespace=os.geteuid() != 0)
            if pid == 0:
                end_contained(lambda: _verify_in_view(family, stage, words), family.leaf.path)
            return wait_status(pid) or status
    except OSError as err:
        raise RedpakError(f"{family.leaf.path}: cannot verify: {err}") from err
    finally:
        for lock in locks:
            lock.release()


def _choose(family: Family, arguments: RpmArguments, work: str) -> tuple[int, list[str]]:
    """rpm's words for what is to be verified; and the exit status for what there is not."""
    if arguments.names_packages_by_path:
        places = Places([node.path for node in reversed(family.nodes)])
        arguments.words = [places.map(word)[1] for word in arguments.words]
    if "--family" in arguments.own or arguments.names_package_files:
        return 0, arguments.for_rpm
    own = copy_member(family_members(family)[-1], f"{work}/own")
    status, labels = select_labels(own.directory, arguments)
    return status, ["-V", *arguments.showing(), *labels] if labels else []


def select_labels(rpmdb: str, arguments: RpmArguments) -> tuple[int, list[str]]:
    """The packages in ``rpmdb`` that ``arguments`` mean; what is said of others is passed on."""
    argv = ["rpm", "--dbpath", rpmdb, "-q", *arguments.selecting(), "--qf", "\x01%{NEVRA}\\n"]
    done = subprocess.run([*argv, *arguments.positional], stdout=subprocess.PIPE, check=False)
    labels = []
    for line in os.fsdecode(done.stdout).splitlines():
        if line.startswith("\x01"):
            labels.append(line[1:])
        else:
            print(line)
    # Keys have no files, and no architecture that a label could name.
    return done.returncode, [label for label in labels if not label.startswith("gpg-pubkey-")]


def _verify_in_view(family: Family, stage: Stage, words: Sequence[str]) -> int:
    """The contained child."""
    privileged = os.geteuid() == 0 and not in_user_namespace()
    nodes = [node.path for node in reversed(family.nodes)]
    tree = find_descendants(family.nodes[0].path, lenient=True)
    view = FamilyView(stage, nodes, privileged=privileged, descendants=tree)
    view.assemble(TransactionContents(), scriptlets=False)
    trim_environment()
    if not privileged:
        seccomp.install_transaction_filter()
    rpm = ["rpm", f"--root={VIEW}", "--dbpath=/var/lib/rpm"]
    if not privileged:
        rpm.append("--noplugins")
    if os.geteuid() != family.leaf.owner_uid:
        # Another user's verify scripts are not for us to run, and his files look like nobody's.
        rpm += ["--noscripts", "--nouser", "--nogroup"]
    files = [word for word in words if os.path.isfile(word)]
    return run_on_view(stage.root, [*rpm, *words], ground=stage.mounts, files=files)
