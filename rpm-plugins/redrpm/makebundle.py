# SPDX-License-Identifier: Apache-2.0
"""Making bundles: from the difference between two states of a node, or from a list of packages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence

import rpm

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.values import dataclass
from redrpm.bundle import MANIFEST, PACKAGES, SIGNATURE, BundlePackage, Manifest, write_manifest
from redrpm.contents import read_headers
from redrpm.journal import generations, previous_path
from redrpm.packageset import PackageSet, identify, package_set, state_digest
from redrpm.rollback import read_previous_rpmdb
from redrpm.rpmdb import (
    Member,
    build_family_rpmdb,
    copy_member,
    family_members,
    load_header,
    open_rpmdb,
)
from redrpm.rpmtransaction import RpmTransaction
from redrpm.scratch import ScratchDirectory
from redrpm.signature import sign_file


@dataclass(frozen=True)
class Change:
    """From one state of a node to another; ``install`` are package files."""

    before: PackageSet
    after: PackageSet
    install: Sequence[str]

    @property
    def erase(self) -> list[str]:
        """NEVRAs of packages that go."""
        return sorted(self.before.keys() - self.after.keys())


def change_by_packages(family: Family, paths: Sequence[str]) -> Change:
    """What installing the package files would make of the leaf as it is. Raises RedpakError."""
    with ScratchDirectory() as work:
        rpmdb = build_family_rpmdb(family_members(family), f"{work}/root/var/lib/rpm")
        leaf = family.leaf.path
        own = {n for n, package in rpmdb.packages.items() if package.owner == leaf}
        try:
            transaction = RpmTransaction(
                f"{work}/root", upgrades=paths, privileged=False, signed=False
            )
            removed = set(transaction.check())
        finally:
            rpm.delMacro("_dbpath")
        foreign = removed - own
        with open_rpmdb(rpmdb.directory) as ts:
            if foreign:
                (label, _digest) = identify(load_header(ts, min(foreign)))
                raise RedpakError(f"{label} belongs to an ancestor of {leaf}: it cannot be replaced"
                                  " by a bundle of this node")
            before = package_set(load_header(ts, number) for number in own)
            kept = package_set(load_header(ts, number) for number in own - removed)
        after = {**kept, **package_set(read_headers(paths))}
    return Change(before, after, list(paths))


def describe_node(family: Family) -> dict[str, str]:
    """What a bundle may insist on of its node."""
    leaf = family.leaf
    return {"alias": leaf.alias, "name": leaf.name, "path": leaf.path}


def read_state(family: Family, since: str) -> tuple[PackageSet, dict[str, str]]:
    """The state that --since names, and whose it is: "previous" is the generation before the leaf's
    last commit, else a file that `red-rpm --ota-state` wrote on the device. Raises RedpakError."""
    if since == "previous":
        with ScratchDirectory() as work:
            return _read_previous(family, work), describe_node(family)
    try:
        with open(since, "rb") as stream:
            data = json.load(stream)
        packages = {str(name): str(digest) for name, digest in data["packages"].items()}
        return packages, {key: str(data["node"][key]) for key in describe_node(family)}
    except OSError as err:
        raise RedpakError(f"{since}: {err.strerror}", hint="write it with red-rpm --ota-state, or"
                          " say --since=previous") from err
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise RedpakError(f"{since}: no state of a node: {err}",
                          hint="write it with red-rpm --ota-state") from err


def _read_previous(family: Family, work: str) -> PackageSet:
    node = family.leaf
    found = generations(node.state_dir)
    if not found:
        raise RedpakError(f"node {node.alias} ({node.path}): has no previous generation")
    copy_member(family_members(family)[-1], f"{work}/rpmdb")
    read_previous_rpmdb(node, previous_path(node.state_dir, found[-1]), f"{work}/rpmdb")
    with open_rpmdb(f"{work}/rpmdb") as ts:
        return package_set(ts.dbMatch())


def missing_packages(before: PackageSet, after: PackageSet, paths: Iterable[str]) -> list[str]:
    """NEVRAs of packages that are new in ``after`` and that none of the files ``paths`` is."""
    given = package_set(read_headers(paths))
    new = {name for name, digest in after.items() if before.get(name) != digest}
    wrong = sorted(name for name in new & given.keys() if given[name] != after[name])
    if wrong:
        raise RedpakError(f"{wrong[0]}: the file is another build than the one in the node")
    return sorted(new - given.keys())


def change_by_states(before: PackageSet, after: PackageSet, paths: Sequence[str]) -> Change:
    """From state ``before`` to ``after``, whose new packages are among the files ``paths``.

    Raises RedpakError.
    """
    missing = missing_packages(before, after, paths)
    if missing:
        raise RedpakError(f"{missing[0]}: no file of this package was given or found")
    wanted = after.keys() - before.keys() | {n for n in after if before.get(n) != after[n]}
    chosen = [path for path, header in zip(paths, read_headers(paths))
              if identify(header)[0] in wanted]
    return Change(before, after, chosen)


def current_packages(family: Family) -> PackageSet:
    """The leaf's packages. Raises RedpakError."""
    with ScratchDirectory() as work:
        member = family_members(family)[-1]
        own = copy_member(Member(member.owner, member.directory), f"{work}/own")
        with open_rpmdb(own.directory) as ts:
            return package_set(ts.dbMatch())


def write_bundle(
    family: Family, change: Change, target: str, *, node: Mapping[str, str], key: str, info: str
) -> Manifest:
    """Write and sign the bundle ``target``: a tar file if its name ends so, else a directory.

    ``node`` is what must be so of the node it is applied to. Raises RedpakError.
    """
    if change.before == change.after:
        raise RedpakError(f"node {family.leaf.alias}: nothing to put into a bundle, the states are"
                          " the same")
    if os.path.lexists(target):
        raise RedpakError(f"{target} exists", hint="name another file or directory")
    manifest = Manifest(
        "", info, node, state_digest(change.before), state_digest(change.after),
        tuple(_erased_alone(change)), tuple(_describe(change)),
    )
    text = write_manifest(manifest)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=os.path.dirname(target) or ".") as work:
        fresh = f"{work}/bundle"
        os.makedirs(f"{fresh}/{PACKAGES}")
        with open(f"{fresh}/{MANIFEST}", "wb") as stream:
            stream.write(text)
        sign_file(f"{fresh}/{MANIFEST}", f"{fresh}/{SIGNATURE}", key=key)
        for path in change.install:
            shutil.copyfile(path, f"{fresh}/{PACKAGES}/{os.path.basename(path)}")
        if target.endswith(".tar"):
            fresh = _pack(fresh, f"{work}/bundle.tar", change)
        os.rename(fresh, target)
    return manifest


def _pack(directory: str, path: str, change: Change) -> str:
    """A plain tar, its members in the order in which they are needed."""
    names = [f"{PACKAGES}/{name}" for name in sorted(map(os.path.basename, change.install))]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in (MANIFEST, SIGNATURE, *names):
            info = archive.gettarinfo(f"{directory}/{name}", name)
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mode = 0o644
            with open(f"{directory}/{name}", "rb") as stream:
                archive.addfile(info, stream)
    return path


def _describe(change: Change) -> list[BundlePackage]:
    kept = {_name(package) for package in change.before.keys() & change.after.keys()}
    packages = []
    for path, header in zip(change.install, read_headers(change.install)):
        label, _digest = identify(header)
        with open(path, "rb") as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
        # A kernel, or whatever else exists in several versions at a time.
        beside = _name(label) in kept or _count(change.after, _name(label)) > 1
        packages.append(BundlePackage(os.path.basename(path), label, digest,
                                      os.path.getsize(path), "install" if beside else "upgrade"))
    return packages


def _erased_alone(change: Change) -> list[str]:
    """What goes without an upgrade that takes it along."""
    upgraded = {_name(each.package) for each in _describe(change) if each.how == "upgrade"}
    return [label for label in change.erase if _name(label) not in upgraded]


def _name(label: str) -> str:
    return label.rsplit("-", 2)[0]


def _count(packages: Collection[str], name: str) -> int:
    return sum(_name(label) == name for label in packages)


def expand_directories(words: Iterable[str]) -> list[str]:
    """Package files; a directory stands for the packages in it. Raises RedpakError."""
    paths: list[str] = []
    for word in words:
        if os.path.isdir(word):
            found = sorted(
                entry.path for entry in os.scandir(word) if entry.name.endswith(".rpm")
            )
            if not found:
                raise RedpakError(f"{word}: a directory without packages")
            paths += found
        else:
            paths.append(word)
    return paths

