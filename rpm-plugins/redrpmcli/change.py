# SPDX-License-Identifier: Apache-2.0
"""Changes by the rpm command line: stock rpm, at work in the view, and one commit at its end."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import rpm

from redpak.errors import RedpakError
from redpak.expand import Caller
from redpak.family import Family
from redpak.merge import merge_family
from redrpm import sysusers
from redrpm.contents import list_scriptlets, lost_capabilities, read_contents, read_headers
from redrpm.delta import DeltaRules, read_delta
from redrpm.hold import NodeHold
from redrpm.ownership import Ownership
from redrpm.plan import describe_plan
from redrpm.rpmdb import (
    FamilyRpmdb,
    Member,
    build_family_rpmdb,
    copy_member,
    create_rpmdb,
    family_members,
    load_header,
    make_readable,
    names_of_member,
    nevra,
    open_rpmdb,
    read_names,
    read_triggers,
)
from redrpm.transaction import ContainedTransaction, NodeTransaction
from redrpmcli.dispatch import end_contained, tell
from redrpmcli.options import ERASE, INSTALL, KEYS, RESTORE, RpmArguments
from redrpmcli.packages import find_files, find_package_files, is_address
from redrpmcli.toolroot import STOCK_RPM, run_on_view
from redrpmcli.verify import select_labels
from redsys.run import run

_UNCHECKED = ("--nosignature", "--nodigest", "--noverify")


def change(family: Family, arguments: RpmArguments) -> NoReturn:
    """Carry out -i, -U, -F, -e, --import, --restore and their like. Ends the process, or raises
    RedpakError with the node as it was."""
    transaction = _prepare(family, arguments)
    contained = transaction.fork()
    end_contained(lambda: RpmChange(contained, arguments).run(), family.leaf.path)


def _prepare(family: Family, arguments: RpmArguments) -> NodeTransaction:
    forced: set[str] = set()
    if "--forcenode" in arguments.own and arguments.mode == INSTALL:
        remote = [word for word in arguments.words if is_address(word)]
        if remote:
            raise RedpakError(f"{remote[0]}: --forcenode takes files", hint="fetch it first")
        paths = find_package_files(arguments.words, "")
        names = {header[rpm.RPMTAG_NAME] for header in read_headers(paths)}
        held = (names_of_member(member) for member in family_members(family)[:-1])
        forced = names & set().union(*held)
    return NodeTransaction(
        family, notify=tell, force="--node-force" in arguments.own, forced=forced
    )


class RpmChange:
    """One change, in the contained child of a NodeTransaction."""

    def __init__(self, contained: ContainedTransaction, arguments: RpmArguments) -> None:
        self._contained = contained
        self._arguments = arguments
        self._family = contained.family
        self._rpmdb = contained.family_rpmdb
        self._ownership = Ownership(contained.family, contained.family_rpmdb)
        self._stage = os.path.dirname(contained.root)
        self._files: list[str] = []  # of the host, that rpm has to see

    def run(self) -> int:
        """Do it; the exit status. Raises RedpakError, OSError."""
        signed = checks_signatures(self._family)
        if signed and self._arguments.mode == INSTALL and self._arguments.has(*_UNCHECKED):
            raise RedpakError(
                f"node {self._family.leaf.alias}: its family insists on signatures (gpgcheck)",
                hint=f"leave out {', '.join(_UNCHECKED)}",
            )
        asked = bool(self._arguments.words)
        incoming = self._read_incoming()
        if asked and not self._arguments.words:
            # The node has none of what was to be freshened.
            return 0
        outgoing = self._find_outgoing()
        with open_rpmdb(self._rpmdb.directory) as ts:
            triggers = read_triggers(ts)
        scriptlets = list_scriptlets(incoming, outgoing)
        for note in () if self._contained.privileged else lost_capabilities(incoming):
            tell(note)
        self._contained.assemble(
            read_contents(incoming),
            scriptlets=triggers or bool(scriptlets) or self._replaces_scripted(incoming),
            in_process=False,
        )
        options = self._tuning() if self._arguments.mode in (INSTALL, ERASE) else []
        if signed and self._arguments.mode == INSTALL:
            options += ["--define", "_pkgverify_level all"]
        helper = self._contained.make_sysusers_helper()
        if helper:
            self._files = [*self._files, helper, sysusers.__file__]
            options += ["--define", f"__systemd_sysusers {helper}"]
        status = self._run_rpm(options)
        if status != 0:
            tell(f"nothing was changed in node {self._family.leaf.alias}")
            return status
        return self._conclude(options, scriptlets)

    def _conclude(self, options: Sequence[str], scriptlets: Sequence[str]) -> int:
        family = self._family
        if self._arguments.has("--test"):
            # What rpm does not test: the family's rules, on the rpmdb as it would be.
            if self._run_rpm([*options, "--justdb", "--noscripts", "--notriggers"], test=False):
                return 1
            self._contained.plan()
        elif "--plan" in self._arguments.own:
            print(describe_plan(family, self._contained.plan(), scriptlets))
        elif self._has_changed():
            for note in self._contained.commit():
                tell(f"Node {family.leaf.alias}: {note}")
        return 0

    def _has_changed(self) -> bool:
        """Whether there is anything to commit: the rpmdb tells, but for changes to files alone."""
        if self._arguments.mode == RESTORE:
            return True
        return read_names(self._rpmdb.directory).keys() != self._rpmdb.packages.keys()

    def _run_rpm(self, options: Sequence[str], *, test: bool = True) -> int:
        words = [word for option in self._arguments.options for word in option]
        if not test:
            words = [word for word in words if word != "--test"]
        argv = [*STOCK_RPM, *words, *options]
        return run_on_view(
            self._contained.root,
            [*argv, *self._arguments.positional],
            ground=f"{self._stage}/mounts",
            files=self._files,
            quiet=not test,
        )

    def _tuning(self) -> list[str]:
        """Without root, rpm's security plugins are off, as for dnf (design section 3.5)."""
        if self._contained.privileged:
            return []
        return ["--noplugins", "--nocaps", "--nocontexts"] if self._arguments.mode == INSTALL else (
            ["--noplugins"])

    def _read_incoming(self) -> list[Any]:
        """Headers of the packages to install; the words become the files themselves."""
        arguments = self._arguments
        downloads = f"{self._stage}/downloads"
        if arguments.mode == KEYS:
            arguments.words = find_files(arguments.words, downloads)
            self._files = arguments.words
        if arguments.mode != INSTALL:
            return []
        paths = find_package_files(arguments.words, downloads)
        pairs = list(zip(paths, read_headers(paths)))
        names = {header[rpm.RPMTAG_NAME] for _path, header in pairs}
        ancestors = find_ancestor_packages(self._rpmdb, self._ownership, names)
        if arguments.has("F", "--freshen"):
            # Only what the node itself has is freshened.
            pairs = [pair for pair in pairs if pair[1][rpm.RPMTAG_NAME] not in ancestors]
        for _path, header in pairs:
            self._check_incoming(header, ancestors)
        self._files = arguments.words = [path for path, _header in pairs]
        return [header for _path, header in pairs]

    def _check_incoming(self, header: Any, ancestors: dict[str, tuple[str, str]]) -> None:
        label, owner = ancestors.get(header[rpm.RPMTAG_NAME], ("", ""))
        # Of the very same build rpm says that it is installed.
        again = self._arguments.has("--replacepkgs", "--force", "--reinstall")
        if label and (label != nevra(header) or again):
            raise RedpakError(f"cannot install {nevra(header)}: "
                              f"{self._ownership.advice(label, owner)}")

    def _find_outgoing(self) -> list[Any]:
        """Headers of the packages to erase, which must be the leaf's."""
        if self._arguments.mode == RESTORE:
            self._choose_restored()
        if self._arguments.mode != ERASE:
            return []
        with open_rpmdb(self._rpmdb.directory) as ts:
            headers = [
                header
                for word in self._arguments.words
                for header in ts.dbMatch(rpm.RPMDBI_LABEL, word)
            ]
        for header in headers:
            number = header[rpm.RPMTAG_DBINSTANCE]
            if not self._ownership.is_own(number):
                raise self._ownership.refusal(nevra(header), self._ownership.owner(number))
        return headers

    def _choose_restored(self) -> None:
        """--restore names packages as a query does: the words become those of the leaf."""
        own = copy_member(family_members(self._family)[-1], f"{self._stage}/own")
        _status, labels = select_labels(own.directory, self._arguments)
        modes = [
            word for option in self._arguments.options for word in option
            if word in ("--restore", "--setperms", "--setugids", "--setcaps")
        ]
        self._arguments.options = [(word,) for word in modes]
        self._arguments.words = labels

    def _replaces_scripted(self, incoming: Sequence[Any]) -> bool:
        """Whether the leaf has packages that incoming ones may replace, with scriptlets."""
        if not incoming:
            return False
        with open_rpmdb(self._rpmdb.directory) as ts:
            return any(
                list_scriptlets((), [load_header(ts, number)])
                for number in self._rpmdb.packages
                if self._ownership.is_own(number)
            )


def find_ancestor_packages(
    rpmdb: FamilyRpmdb, ownership: Ownership, names: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Those packages of ``names`` that an ancestor has, but for keys: (NEVRA, owner) by name."""
    found = {}
    with open_rpmdb(rpmdb.directory) as ts:
        for number, package in rpmdb.packages.items():
            wanted = package.name in names and package.name != "gpg-pubkey"
            if wanted and not ownership.is_own(number):
                found[package.name] = (nevra(load_header(ts, number)), package.owner)
    return found


def checks_signatures(family: Family) -> bool:
    """gpgcheck is a constraint of the family (design section 5)."""
    effective = merge_family(family, environ=os.environ, caller=Caller.current())
    return bool(effective.tags.gpgcheck)


def change_database(family: Family, arguments: RpmArguments) -> int:
    """--initdb and --rebuilddb: of the leaf's rpmdb alone, in the stage. Raises RedpakError."""
    hold = NodeHold(family, notify=tell, force="--node-force" in arguments.own)
    try:
        node, fresh = hold.node, hold.stage.rpmdb
        if arguments.has("--initdb"):
            create_rpmdb(node.rpmdb_dir)
            return 0
        copy_member(family_members(family)[-1], fresh)
        run(["rpmdb", "--dbpath", fresh, "--rebuilddb"], package="rpm")
        make_readable(fresh)
        rules = DeltaRules(
            state={fresh: os.path.relpath(node.rpmdb_dir, node.path)},
            children=[],
            derived=[],
            is_owned=lambda _path: True,
            as_root=hold.as_root,
        )
        after = f"{hold.stage.path}/after"
        members = [*family_members(family)[:-1], Member(node.path, fresh)]
        build_family_rpmdb(members, after)
        hold.conclude(read_delta(node.path, hold.stage, rules).steps, after)
        return 0
    except OSError as err:
        raise RedpakError(f"{family.leaf.path}: cannot change the rpmdb: {err}") from err
    finally:
        hold.close()
