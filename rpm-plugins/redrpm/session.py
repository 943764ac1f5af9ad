# SPDX-License-Identifier: Apache-2.0
"""A dnf command's hold on a node: reading from a copy, or a transaction in the family view.

What the front ends of dnf4 and dnf5 share. They tell packages by the number of their header in the
rpmdb of ``root``, and package files by their paths.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

import rpm

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.node import Node
from redpak.osrelease import read_os_release
from redrpm.contents import (
    list_scriptlets,
    lost_capabilities,
    read_contents,
    read_header,
    read_headers,
)
from redrpm.locking import Notify, lock_family
from redrpm.ownership import Ownership
from redrpm.plan import describe_plan
from redrpm.rpmdb import (
    FamilyRpmdb,
    build_family_rpmdb,
    family_members,
    load_header,
    names_of_member,
    nevra,
    open_rpmdb,
    read_triggers,
)
from redrpm.scratch import ScratchDirectory
from redrpm.transaction import NodeTransaction, copy_dnf_state


class Session:
    """What a red- command needs of its node; ``root`` is the installroot to work on."""

    # Whether files can have any owner, capability and security context: real root only.
    privileged = True

    def __init__(self, family: Family, root: str, family_rpmdb: FamilyRpmdb) -> None:
        self.family = family
        self.root = root
        self.ownership = Ownership(family, family_rpmdb)
        self._family_rpmdb = family_rpmdb

    def is_inherited(self, name: str, number: int) -> bool:
        """Whether the package ``name``, header ``number``, is an ancestor's; keys are nobody's."""
        return name != "gpg-pubkey" and not self.ownership.is_own(number)

    def check_outgoing(self, packages: Iterable[tuple[object, int]]) -> None:
        """Refuse to remove or replace packages (label, number) of ancestors. Raises RedpakError."""
        for label, number in packages:
            if not self.ownership.is_own(number):
                raise self.ownership.refusal(label, self.ownership.owner(number))

    def assemble(self, files: Iterable[str], outgoing: Iterable[int]) -> None:
        """A reader has no transaction. Raises RedpakError."""
        raise RedpakError("this command does not change a node")

    def commit(self) -> bool:
        """A reader has nothing to commit. Raises RedpakError."""
        raise RedpakError("this command does not change a node")

    def close(self) -> None:
        """The command is done."""


class ReadSession(Session):
    """Queries: a private copy of the family rpmdb in a temporary directory, no namespaces."""

    def __init__(self, family: Family, *, notify: Notify, wait: bool) -> None:
        # Held to the end: dnf writes metadata into the cache that it shares with writers, and its
        # own locks do not see across pid namespaces.
        self._locks = lock_family(family, notify=notify, wait=wait, exclusive=False)
        # Removed at exit at the latest, also when dnf ends with an error.
        self._directory = ScratchDirectory()
        try:
            root = f"{self._directory.name}/root"
            os.makedirs(f"{root}/var/lib")
            family_rpmdb = build_family_rpmdb(
                family_members(family),
                f"{root}/var/lib/rpm",
                cache=f"{family.leaf.state_dir}/family-rpmdb",
            )
            copy_dnf_state(family.leaf, root)
        except BaseException:
            self.close()
            raise
        super().__init__(family, root, family_rpmdb)

    def close(self) -> None:
        self._directory.cleanup()
        for lock in self._locks:
            lock.release()


class WriteSession(Session):
    """Transactions: this process is the contained child, its parent commits."""

    def __init__(
        self,
        family: Family,
        *,
        notify: Notify,
        wait: bool,
        force: bool,
        forced: Collection[str],
        plan: bool,
    ) -> None:
        self._contained = NodeTransaction(
            family, notify=notify, wait=wait, force=force, forced=forced
        ).fork()
        super().__init__(family, self._contained.root, self._contained.family_rpmdb)
        self.privileged = self._contained.privileged
        self.committed = False
        self._notify = notify
        self._plan = plan
        self._scriptlets: list[str] = []
        self._incoming: list[tuple[str, str]] = []  # name, nevra

    def assemble(self, files: Iterable[str], outgoing: Iterable[int]) -> None:
        """Mount the view for a transaction that installs ``files`` and removes ``outgoing``.

        Raises RedpakError.
        """
        incoming = read_headers(files)
        self._incoming = [(header[rpm.RPMTAG_NAME], nevra(header)) for header in incoming]
        if not self.privileged:
            for note in lost_capabilities(incoming):
                self._notify(note)
        with open_rpmdb(self._family_rpmdb.directory) as ts:
            leaving = [load_header(ts, number) for number in outgoing]
            triggers = read_triggers(ts)
        self._scriptlets = list_scriptlets(incoming, leaving)
        scriptlets = bool(self._scriptlets) or triggers
        self._contained.assemble(read_contents(incoming), scriptlets=scriptlets)

    def commit(self) -> bool:
        """Make the node what the view is; False when the plan was asked for, and shown instead.

        rpm leaves out a package whose scriptlet or payload fails, and goes on: such a transaction
        is refused as a whole. Raises RedpakError.
        """
        self.check_complete()
        if self._plan:
            print(describe_plan(self.family, self._contained.plan(), self._scriptlets))
            return False
        for note in self._contained.commit():
            self._notify(f"Node {self.family.leaf.alias}: {note}")
        self.committed = True
        return True

    def check_complete(self) -> None:
        """Refuse a transaction of which rpm left packages out. Raises RedpakError."""
        with open_rpmdb(self._family_rpmdb.directory) as ts:
            failed = [
                label
                for name, label in self._incoming
                if not any(nevra(header) == label for header in ts.dbMatch("name", name))
            ]
        if failed:
            self.refuse_failed(failed)

    def refuse_failed(self, packages: Iterable[str]) -> None:
        """Refuse to commit since ``packages`` failed. Raises RedpakError."""
        raise RedpakError(
            f"nothing was changed in node {self.family.leaf.alias}, these packages failed: "
            + ", ".join(sorted(packages))
        )


def find_forced(family: Family, specs: Iterable[str], files: Sequence[str]) -> set[str]:
    """Names of the ancestors' packages that ``specs`` name, or that package ``files`` bring.

    Raises RedpakError.
    """
    held = {
        name for member in family_members(family)[:-1] for name in names_of_member(member)
    }
    # "foo-devel" starts with "foo-" too: the longest name that fits is meant.
    meant = {max((n for n in held if _fits(spec, n)), key=len, default="") for spec in specs}
    return (meant | {read_header(path)[rpm.RPMTAG_NAME] for path in files}) & held


def _fits(spec: str, name: str) -> bool:
    return spec == name or spec.startswith((f"{name}-", f"{name}."))


def find_releasever(node: Node, detect: str) -> str:
    """The $releasever of a node (design section 3.5): its own variable, else what the family rpmdb
    says (``detect``), else VERSION_ID of the core OS."""
    try:
        with open(f"{node.vars_dir}/releasever", encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        return detect or read_os_release().get("VERSION_ID", "")


def use_family_rpmdb(root: str) -> None:
    """Have rpm find the family rpmdb in ``root``, whatever the distribution's own place is.

    Debian's rpm looks in the home directory, Fedora's in /usr/lib/sysimage. The macro serves this
    process; `rpmkeys --root`, with which dnf checks signatures, finds a symlink.
    """
    place = rpm.expandMacro("%{_dbpath}")
    link = os.path.normpath(f"{root}/{place}")
    if place.startswith("/") and not os.path.lexists(link):
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.relpath(f"{root}/var/lib/rpm", os.path.dirname(link)), link)
    rpm.addMacro("_dbpath", "/var/lib/rpm")
