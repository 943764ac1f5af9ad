# SPDX-License-Identifier: Apache-2.0
"""ld.so.cache for a plan with overlays: made by the core OS's ldconfig in that very namespace."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Optional

from redpak.family import Family
from redpak.linker import (
    CACHE_FILE,
    cache_name,
    configuration_files,
    find_cache,
    find_directories,
    store_cache,
)
from redpak.values import replace
from redsys.lock import NodeLock
from redwrap.compiled import cache_directory, is_own_directory
from redwrap.encode import Encoder, write_records
from redwrap.errors import LaunchError
from redwrap.lookup import NamespaceView
from redwrap.operations import Bind, Data, Mount, Overlay, Running
from redwrap.plan import LaunchPlan

LDCONFIG = ("/sbin/ldconfig", "/usr/sbin/ldconfig")
_WORK = "/.redpak-linker"  # in the namespace that ldconfig runs in
_SETTLE_NS = 50_000_000  # a directory changed this shortly before may change again unseen


class LinkerCache:
    """What a plan's ld.so.cache is made from, and where it is kept."""

    def __init__(self, plan: LaunchPlan, family: Family, environ: Mapping[str, str]) -> None:
        self._family = family
        self._kept = cache_directory(family.leaf.path, environ) or os.devnull + family.leaf.path
        view = NamespaceView(plan.mounts)
        etc = view.host_directories("/etc")
        self.directories = find_directories(etc, view.host_directories)
        places = {place for directory in self.directories for place in _above(directory.path)}
        self.depends_on = [
            *(source for place in sorted(places) for source in view.host_directories(place)),
            *(source for directory in self.directories for source in directory.sources),
            *configuration_files(etc), *configuration_files(["/etc"]),
            # A transaction may bring directories for /var too (redwrap.state).
            *(node.rpmdb_dir for node in family.nodes)]

    @property
    def is_needed(self) -> bool:
        """Whether a node has libraries that the core OS's own cache cannot know."""
        return any(directory.is_family for directory in self.directories)

    def find(self) -> Optional[str]:
        """The cache of this very state, if it is kept."""
        stores = [self._family.leaf.state_dir]
        if is_own_directory(self._kept):  # $HOME may be another's, who would choose our libraries
            stores.append(self._kept)
        return find_cache(cache_name(self.directories), stores)

    def place(self) -> str:
        """Where the cache is, or will be."""
        return self.find() or f"{self._stores()[0]}/{cache_name(self.directories)}"

    def _stores(self) -> list[str]:
        """Where the caller may keep it: in a node of his own, else in his cache."""
        if self._family.leaf.owner_uid == os.geteuid():
            return [self._family.leaf.state_dir, self._kept]
        return [self._kept]

    def make(self, plan: LaunchPlan) -> Mount:
        """Make the cache and keep it; how it is mounted. Raises LaunchError."""
        self._wait_until_settled()
        name = cache_name(self.directories)
        data = self._run_ldconfig(plan)
        if name == cache_name(self.directories):
            for store in self._stores():
                try:
                    if is_own_directory(store, create=True):
                        return _bind(store_cache(name, data, store))
                except OSError:
                    continue  # not ours to write, or full: the next one
        # It cannot be kept: this launch gets it through a descriptor.
        fd = os.memfd_create("ld.so.cache", 0)
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return Data(None, CACHE_FILE, fd, None)

    def _wait_until_settled(self) -> None:
        newest = max((os.stat(path).st_ctime_ns for path in self.depends_on
                      if os.path.exists(path)), default=0)
        wait = newest + _SETTLE_NS - time.time_ns()
        if 0 < wait <= _SETTLE_NS:
            time.sleep(wait / 1e9)

    def _run_ldconfig(self, plan: LaunchPlan) -> bytes:
        with tempfile.TemporaryDirectory(prefix="redpak-linker-") as work:
            tool = next(path for path in LDCONFIG if os.path.isfile(path))
            shutil.copy(tool, f"{work}/ldconfig")
            with open(f"{work}/conf", "wb"):
                pass
            _run_in(self._ldconfig_plan(plan, work), [
                f"{_WORK}/ldconfig", "-X", "-C", f"{_WORK}/cache", "-f", f"{_WORK}/conf",
                *(directory.path for directory in self.directories)])
            try:
                with open(f"{work}/cache", "rb") as stream:
                    return stream.read()
            except OSError as err:
                raise LaunchError(
                    f"{self._family.leaf.path}: ldconfig made no {CACHE_FILE} for the node",
                    hint="look at red-wrap --explain") from err

    @staticmethod
    def _ldconfig_plan(plan: LaunchPlan, work: str) -> LaunchPlan:
        """The mounts of the plan and nothing else of it."""
        mounts = [step for step in plan.operations if isinstance(step, (Mount, Running))
                  and not isinstance(step, Data)]
        return replace(plan, operations=(*mounts, Bind(None, _WORK, work, writable=True)))


def plan_with(plan: LaunchPlan, cache: Mount) -> LaunchPlan:
    """The plan with `cache` at its place, in path order."""
    kept = [step for step in plan.operations
            if not (isinstance(step, Mount) and step.mount == CACHE_FILE)]
    at = next((number for number, step in enumerate(kept) if isinstance(step, Mount)
               and step.mount.split("/") > CACHE_FILE.split("/")), len(kept))
    return replace(plan, operations=(*kept[:at], cache, *kept[at:]))


def _bind(path: str) -> Bind:
    return Bind(None, CACHE_FILE, path, writable=False, file_only=True)


def _above(path: str) -> list[str]:
    """The directories above one of the namespace, but for the root."""
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:end]) for end in range(1, len(parts))]


def has_ldconfig() -> bool:
    """Whether the core OS has a linker cache at all: musl, for one, has none."""
    return any(os.path.isfile(path) for path in LDCONFIG)


def _run_in(plan: LaunchPlan, command: Sequence[str]) -> None:
    """Run a command in a namespace, to its end. What it says is not for the user."""
    from redsys.run import run_silently  # subprocess takes 5 ms
    from redwrap.execute import execute
    records = write_records(Encoder(plan, own_mounts=True, unsafe=False).encode())
    run_silently(lambda: execute(
        plan, records, command, {"PATH": "/usr/sbin:/usr/bin"},
        lock=NodeLock("", os.open(os.devnull, os.O_RDONLY)), launcher=None))


def add_linker_cache(plan: LaunchPlan, family: Family, environ: Mapping[str, str], *,
                     make: bool) -> LaunchPlan:
    """The plan with the family's ld.so.cache, if it has overlays with libraries in them.

    Without `make` nothing is started: the plan then names the file that a launch would make.
    Raises LaunchError.
    """
    if not any(isinstance(mount, Overlay) for mount in plan.mounts) or not has_ldconfig():
        return plan
    cache = LinkerCache(plan, family, environ)
    plan = replace(plan, depends_on=(*plan.depends_on, *cache.depends_on))
    if not cache.is_needed:
        return plan
    found = cache.find()
    if found is None:
        return plan_with(plan, cache.make(plan) if make else _bind(cache.place()))
    return plan_with(plan, _bind(found))
