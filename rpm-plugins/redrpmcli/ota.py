# SPDX-License-Identifier: Apache-2.0
"""Over-the-air updates: a bundle is applied as a whole, once, to the state it was made for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rpm

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.files import write_file_atomic
from redpak.findings import printable
from redrpm.bundle import Bundle, Manifest
from redrpm.contents import list_scriptlets, lost_capabilities, read_contents, read_headers
from redrpm.makebundle import current_packages, describe_node
from redrpm.ownership import Ownership
from redrpm.packageset import PackageSet, package_set, read_package_set, state_digest
from redrpm.plan import describe_plan
from redrpm.rollback import roll_back
from redrpm.rpmdb import (
    FamilyRpmdb,
    family_members,
    load_header,
    names_of_member,
    nevra,
    open_rpmdb,
    read_names,
)
from redrpm.rpmtransaction import RpmTransaction
from redrpm.signature import family_keys, verify_signature
from redrpm.transaction import ContainedTransaction, NodeTransaction
from redrpmcli.change import checks_signatures, find_ancestor_packages
from redrpmcli.dispatch import end_contained, tell
from redrpmcli.options import RpmArguments
from redsys.owner import become_owner
from redsys.trees import remove_tree

# What was applied is a file of the node: it is committed, and rolled back, with the packages.
RECORD = "var/lib/redpak/bundles.json"
_ACTIONS = ("--ota", "--ota-rollback", "--ota-list", "--ota-state")


def run_ota(family: Family, arguments: RpmArguments) -> int:
    """Apply a bundle, take it back, or tell of bundles; the exit status. Raises RedpakError."""
    own = arguments.own
    chosen = [name for name in _ACTIONS if name in own]
    # rpm has an option --json of its own, for queries.
    as_json = chosen == ["--ota-list"] and arguments.options == [("--json",)]
    if len(chosen) > 1 or (arguments.options and not as_json) or arguments.words:
        raise RedpakError(f"{chosen[0]} goes with nothing else", hint="see red-rpm --help")
    if chosen == ["--ota-list"]:
        list_bundles(read_record(family.leaf.path), as_json=as_json)
        return 0
    if chosen == ["--ota-state"]:
        print(json.dumps(describe_state(family), indent=1))
        return 0
    become_owner(family.leaf.path, family.leaf.owner_uid)
    force = "--node-force" in own
    if chosen == ["--ota-rollback"]:
        return roll_back_bundle(family, force=force)
    return apply_bundle(family, os.path.abspath(own["--ota"]), force=force,
                        forcenode="--forcenode" in own, plan="--plan" in own)


def list_bundles(record: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """Print the bundles that were applied, the last one last."""
    if as_json:
        print(json.dumps(record, indent=2))
        return
    for entry in record:
        print(printable(f"{entry['applied']} {entry['id'][:12]} {entry['info']}"))


def describe_state(family: Family) -> dict[str, Any]:
    """What red-manager --bundle --since needs to know of a node. Raises RedpakError."""
    packages = current_packages(family)
    return {
        "node": describe_node(family),
        "state": state_digest(packages),
        "packages": dict(sorted(packages.items())),
    }


def read_record(node: str) -> list[dict[str, str]]:
    """The bundles that were applied to ``node``, the last one last. Raises RedpakError."""
    path = f"{node}/{RECORD}"
    try:
        with open(path, "rb") as stream:
            entries = json.load(stream)
        return [{key: str(entry[key]) for key in ("id", "info", "from", "to", "applied")}
                for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RedpakError(f"{path}: damaged record of bundles: {err}",
                          hint="remove it to forget which bundles were applied") from err


def roll_back_bundle(family: Family, *, force: bool) -> int:
    """Return to what the leaf was before its last bundle. Raises RedpakError."""
    leaf = family.leaf
    record = read_record(leaf.path)
    if not record:
        raise RedpakError(f"node {leaf.alias} ({leaf.path}): no bundle was applied")
    last = record[-1]

    def check(before: str, after: str) -> None:
        if state_digest(read_package_set(before)) != last["to"]:
            raise RedpakError(f"node {leaf.alias} ({leaf.path}): was changed since its last bundle",
                              hint="take that back first: red-manager --rollback")
        if state_digest(read_package_set(after)) != last["from"]:
            raise RedpakError(f"node {leaf.alias} ({leaf.path}): its previous generation is not"
                              " what its last bundle was applied to")

    for note in roll_back(family, notify=tell, force=force, check=check):
        tell(note)
    print(f"Node {leaf.alias}: bundle {last['id'][:12]} was taken back.")
    return 0


def apply_bundle(
    family: Family, path: str, *, force: bool, forcenode: bool, plan: bool
) -> int:
    """Apply the bundle at ``path`` to the leaf; ends the process when there is something to do.

    Raises RedpakError, with the node as it was.
    """
    transaction = NodeTransaction(family, notify=tell, force=force)
    try:
        incoming = IncomingBundle(transaction, path)
        if not incoming.is_needed():
            transaction.close()
            return 0
        if forcenode:
            transaction = incoming.take_copies(transaction, force=force)
        incoming.unpack()
    except OSError as err:
        transaction.close()
        raise RedpakError(f"{path}: cannot unpack: {err}") from err
    except BaseException:
        transaction.close()
        raise
    contained = transaction.fork()
    end_contained(lambda: BundleChange(contained, incoming).run(plan=plan), family.leaf.path)


class IncomingBundle:
    """A bundle that was found to be good, for a node that is locked."""

    def __init__(self, transaction: NodeTransaction, path: str) -> None:
        """Raises RedpakError unless a key of the family signed it for this node."""
        self.family = transaction.family
        rpmdb = transaction.family_rpmdb.directory

        def check(manifest: bytes, signature: bytes) -> None:
            verify_signature(manifest, signature, family_keys(rpmdb))

        self._bundle = Bundle(path, check)
        self.manifest: Manifest = self._bundle.manifest
        self.manifest.check_node(self.family)
        self.state = state_digest(
            read_leaf_packages(self.family, transaction.family_rpmdb)
        )
        self.record = read_record(self.family.leaf.path)
        state_dir = self.family.leaf.state_dir
        self.directory = f"{state_dir}/bundle.{self.manifest.identity[:16]}"
        for name in os.listdir(state_dir):
            if name.startswith("bundle.") and name != os.path.basename(self.directory):
                remove_tree(f"{state_dir}/{name}")

    def is_needed(self) -> bool:
        """False when the node has it already. Raises RedpakError when it does not fit."""
        leaf, manifest = self.family.leaf, self.manifest
        applied = any(entry["id"] == manifest.identity for entry in self.record)
        if applied or self.state == manifest.after:
            since = "" if self.state == manifest.after else ", and the node was changed since"
            print(f"Node {leaf.alias}: bundle {manifest.identity[:12]} is already applied{since}.")
            remove_tree(self.directory)
            return False
        if self.state != manifest.before:
            raise RedpakError(
                f"{self._bundle.path}: made for another state of node {leaf.alias} ({leaf.path}):"
                f" {manifest.before[:19]}..., and it is {self.state[:19]}...",
                hint="apply the bundles that come before it",
            )
        return True

    def take_copies(self, transaction: NodeTransaction, *, force: bool) -> NodeTransaction:
        """Begin again without those packages of ancestors that the bundle brings too."""
        members = family_members(self.family)[:-1]
        held: set[str] = set().union(*(names_of_member(member) for member in members))
        forced = {
            name for package in self.manifest.install
            if (name := package.package.rsplit("-", 2)[0]) in held
        }
        transaction.close()
        return NodeTransaction(self.family, notify=tell, force=force, forced=forced)

    def unpack(self) -> None:
        """Put the packages into the node's state directory. Raises RedpakError, OSError."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        self._bundle.unpack(self.directory)

    def paths(self, how: str) -> list[str]:
        """The package files to install in this way."""
        return [f"{self.directory}/{package.file}" for package in self.manifest.install
                if package.how == how]


class BundleChange:
    """The transaction of a bundle, in the contained child of a NodeTransaction."""

    def __init__(self, contained: ContainedTransaction, incoming: IncomingBundle) -> None:
        self._contained = contained
        self._incoming = incoming
        self._family = contained.family
        self._rpmdb = contained.family_rpmdb
        self._ownership = Ownership(contained.family, contained.family_rpmdb)

    def run(self, *, plan: bool) -> int:
        """Do it; the exit status. Raises RedpakError, OSError, rpm.error."""
        manifest, leaf = self._incoming.manifest, self._family.leaf
        headers = self._read_headers()
        erased = self._find_erased()
        for note in () if self._contained.privileged else lost_capabilities(headers):
            tell(note)
        scriptlets = self._list_scriptlets(headers)
        self._contained.assemble(read_contents(headers), scriptlets=True)
        transaction = RpmTransaction(
            self._contained.root,
            upgrades=self._incoming.paths("upgrade"),
            installs=self._incoming.paths("install"),
            erased=erased,
            privileged=self._contained.privileged,
            # The manifest's signature covers the packages; the family may insist on their own.
            signed=checks_signatures(self._family),
        )
        transaction.check()
        transaction.run()
        found = state_digest(read_leaf_packages(self._family, self._rpmdb))
        if found != manifest.after:
            raise RedpakError(f"node {leaf.alias} ({leaf.path}): the bundle does not lead to the"
                              " state that it promises; nothing was changed")
        self._write_record()
        if plan:
            print(describe_plan(self._family, self._contained.plan(), scriptlets))
            return 0
        for note in self._contained.commit():
            tell(f"Node {leaf.alias}: {note}")
        remove_tree(self._incoming.directory)
        count = "1 package" if len(headers) == 1 else f"{len(headers)} packages"
        print(f"Node {leaf.alias}: bundle {manifest.identity[:12]} applied, {count} installed,"
              f" {len(erased)} erased.")
        return 0

    def _read_headers(self) -> list[Any]:
        manifest = self._incoming.manifest
        headers = read_headers(f"{self._incoming.directory}/{p.file}" for p in manifest.install)
        for header, package in zip(headers, manifest.install):
            if nevra(header) != package.package:
                raise RedpakError(f"{package.file}: holds {nevra(header)}, not {package.package}")
        names = {header[rpm.RPMTAG_NAME] for header in headers}
        for label, owner in find_ancestor_packages(self._rpmdb, self._ownership, names).values():
            raise RedpakError(self._ownership.advice(label, owner))
        return headers

    def _find_erased(self) -> list[int]:
        """The numbers of the leaf's packages that go, by their names."""
        wanted = set(self._incoming.manifest.erase)
        with open_rpmdb(self._rpmdb.directory) as ts:
            found = {
                nevra(load_header(ts, number)): number
                for number in self._rpmdb.packages
                if self._ownership.is_own(number)
            }
        missing = sorted(wanted - found.keys())
        if missing:
            raise RedpakError(f"{missing[0]}: to be erased, and not installed in the node")
        return [found[name] for name in sorted(wanted)]

    def _list_scriptlets(self, headers: Sequence[Any]) -> list[str]:
        gone = set(self._incoming.manifest.erase)
        with open_rpmdb(self._rpmdb.directory) as ts:
            leaving = [header for header in ts.dbMatch() if nevra(header) in gone]
            return list_scriptlets(headers, leaving)

    def _write_record(self) -> None:
        manifest = self._incoming.manifest
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {"id": manifest.identity, "info": manifest.info, "from": manifest.before,
                 "to": manifest.after, "applied": now}
        path = f"{self._contained.root}/{RECORD}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        entries = [each for each in self._incoming.record if each["id"] != manifest.identity]
        write_file_atomic(path, (json.dumps([*entries, entry], indent=1) + "\n").encode())


def read_leaf_packages(family: Family, rpmdb: FamilyRpmdb) -> PackageSet:
    """The leaf's packages in a family rpmdb as it is now: those it owned, and new ones."""
    leaf = family.leaf.path
    numbers = [
        number for number in read_names(rpmdb.directory)
        if number not in rpmdb.packages or rpmdb.packages[number].owner == leaf
    ]
    with open_rpmdb(rpmdb.directory) as ts:
        return package_set(load_header(ts, number) for number in numbers)
