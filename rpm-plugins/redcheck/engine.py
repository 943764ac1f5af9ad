# SPDX-License-Identifier: Apache-2.0
"""The whole check: lock, look, and say what was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redcheck import configuration
from redcheck.cache import LayerCache
from redcheck.closure import Closure
from redcheck.configuration import FamilyMerge
from redcheck.findings import RULES, Finding, Severity
from redcheck.layers import LayerResult, LayerTask, check_layer
from redcheck.leftovers import find_leftovers, has_journal
from redcheck.mounts import HiddenFiles, mount_key
from redcheck.packages import Library, rpmdb_state
from redcheck.scope import Layer, Scope
from redcheck.signatures import requires_signatures
from redcheck.workers import Workers, count_processors
from redpak.create import prove_node
from redpak.effective import EffectiveConfig
from redpak.errors import RedpakError
from redsys.lock import NodeLock, lock_node
from redsys.owner import run_as_owner

GROUPS = tuple(sorted({rule.group for rule in RULES.values()}))
_CLOSURE_GROUPS = frozenset(("dependencies", "obsoleted", "duplicates", "files"))
_ORDER = {severity: number for number, severity in enumerate(Severity)}


@dataclass
class Report:
    """The answer. ``accepted`` are findings that a baseline knows; ``unchecked`` says what could
    not be looked at; ``stamped`` are the nodes that were noted as proven."""

    scope: Scope
    findings: list[Finding] = field(default_factory=list)
    accepted: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    stamped: list[str] = field(default_factory=list)
    packages: dict[str, int] = field(default_factory=dict)  # their number, by the layer's path

    @property
    def is_proven(self) -> bool:
        """Whether nothing is wrong, and everything was looked at."""
        return not self.unchecked and all(
            finding.severity is Severity.NOTE for finding in self.findings)

    @property
    def status(self) -> int:
        """The exit status: 0 proven, 1 findings, 2 something could not be checked."""
        if self.unchecked:
            return 2
        return 0 if self.is_proven else 1


@dataclass(frozen=True)
class Options:
    """How to check. ``groups`` limits what is looked for; None is everything."""

    groups: Collection[str] | None = None
    use_cache: bool = True
    jobs: int = 0  # processes, 0 is one for each processor

    def wants(self, *groups: str) -> bool:
        """Whether any of ``groups`` is looked for."""
        return self.groups is None or any(group in self.groups for group in groups)


@contextmanager
def locked(scope: Scope, notify: Callable[[str], None]) -> Iterator[None]:
    """No command changes a node meanwhile. Raises RedpakError."""
    locks: list[NodeLock] = []
    try:
        # Who commits holds a node and waits for its ancestors: the deepest first cannot deadlock.
        for layer in sorted(scope.layers, key=lambda each: -len(each.path)):
            if not layer.is_core:
                locks.append(lock_node(layer.path, shared=True, on_wait=lambda path: notify(
                    f"Waiting for another command on node {path} ...")))
        yield
    finally:
        for lock in locks:
            lock.release()


def check(scope: Scope, options: Options, environ: Mapping[str, str],
          tell: Callable[[int, int, str], None] = lambda done, total, what: None) -> Report:
    """Check everything in ``scope``, whose nodes are locked; ``tell`` hears how many of how many
    steps are done, and which is the next. Raises RedpakError."""
    return _Check(scope, options, environ, tell).run()


class _Check:
    def __init__(self, scope: Scope, options: Options, environ: Mapping[str, str],
                 tell: Callable[[int, int, str], None]) -> None:
        self.tell = tell
        self.scope = scope
        self.options = options
        self.environ = environ
        self.report = Report(scope)
        self.library = Library()
        self.caches: dict[str, LayerCache] = {}
        self.configs: dict[str, EffectiveConfig] = {}

    def run(self) -> Report:
        try:
            sound = [layer for layer in self.scope.checked if self._check_state(layer)]
            for layer in sound:
                self._check_configuration(layer)
            self._add(configuration.check_names(self.scope.layers), "configuration")
            self._check_packages(sound)
        finally:
            self.library.close()
        self._sort()
        return self.report

    def _add(self, findings: Any, *groups: str) -> None:
        if self.options.wants(*groups):
            self.report.findings += [
                finding for finding in findings if self.options.wants(finding.rule.group)]

    def _cache(self, layer: Layer) -> LayerCache:
        known = self.caches.get(layer.path)
        if known is None:
            known = self.caches[layer.path] = LayerCache(
                "family", layer, self.scope.root, self.environ, enabled=self.options.use_cache)
        return known

    # -- configuration ----------------------------------------------------------------------

    def _check_state(self, layer: Layer) -> bool:
        """Status and left-overs; whether there is more to be told of the layer."""
        if layer.is_core:
            return True
        if layer.node is not None:
            self._add(configuration.check_status(layer, layer.node), "status")
        self._add(configuration.check_files(layer), "configuration")
        try:
            self._add(find_leftovers(layer), "status")
        except OSError as err:
            self.report.unchecked.append(f"{err.filename}: {err.strerror}")
        return layer.node is not None and not has_journal(layer)

    def _check_configuration(self, layer: Layer) -> None:
        if layer.is_core or not layer.is_readable or layer.node is None:
            return
        self._add(configuration.check_family_names(layer), "configuration")
        aliases = [member.alias for member in layer.lineage]
        if len(set(aliases)) < len(aliases):
            return  # whatever a merge says of them would be about the wrong one
        if not self.scope.root.is_image:
            self._add(configuration.check_owner(layer), "configuration")
        merge = FamilyMerge(layer, self.scope, self.environ)
        self._add(merge.findings(), "configuration")
        if merge.config is not None:
            self.configs[layer.path] = merge.config
            if self.scope.root.is_image or not os.access(layer.path, os.W_OK):
                self._add(configuration.check_age(layer, layer.node, merge.config), "status")

    # -- packages ---------------------------------------------------------------------------

    def _check_packages(self, layers: Sequence[Layer]) -> None:
        tasks = [self._task(layer) for layer in layers]
        work = partial(_work, scope=self.scope, environ=self.environ,
                       use_cache=self.options.use_cache)
        jobs = self.options.jobs or count_processors()
        workers = Workers(tasks, work, jobs - 1)
        closure = Closure(self.library)
        hidden = HiddenFiles(lambda layer: closure.files_of(layer, self.library.of(layer)))
        steps = 2 * len(layers)
        for done, layer in enumerate(layers):
            self.tell(done, steps, f"packages of {layer.alias}")
            try:
                self._check_family(layer, closure, hidden)
            except RedpakError as err:
                self._add([layer.finding("rpmdb", err.message, remedy=err.hint)], "provides")
        results: list[LayerResult] = workers.results(lambda number: self.tell(
            len(layers) + number, steps, f"files of {layers[number].alias}"))
        for layer, result in zip(layers, results):
            self._add(result.findings, *GROUPS)
            self.report.packages[layer.inside] = result.packages
            self.report.unchecked += result.unchecked

    def _task(self, layer: Layer) -> LayerTask:
        signed = False
        keys: list[bytes] = []
        if self.options.wants("signatures") and layer.path in self.configs:
            tag = bool(self.configs[layer.path].tags.gpgcheck)
            signed = requires_signatures(layer, tag=tag)
        if signed:
            keys = [key for member in layer.lineage for key in self._keys(member)]
        return LayerTask(layer, keys, signed, self.options.wants("files"))

    def _keys(self, layer: Layer) -> list[bytes]:
        try:
            state = rpmdb_state(layer)
            cache = self._cache(layer)
            known = cache.get("keys", state)
            if known is None:
                known = [key.hex() for key in self.library.of(layer).keys]
                cache.put("keys", state, known)
            return [bytes.fromhex(key) for key in known]
        except RedpakError:
            return []  # told when the layer itself is checked

    def _check_family(self, layer: Layer, closure: Closure, hidden: HiddenFiles) -> None:
        states = [rpmdb_state(member) for member in layer.lineage]
        if self.options.wants(*_CLOSURE_GROUPS):
            self._add(self._remembered(layer, "closure", states, lambda: closure.check(layer)),
                      *_CLOSURE_GROUPS)
        config = self.configs.get(layer.path)
        if config is not None and self.options.wants("configuration"):
            key = [states, mount_key(config)]
            self._add(self._remembered(
                layer, "mounts", key, lambda: list(hidden.check(layer, config))), "configuration")
        self._cache(layer).save()

    def _remembered(self, layer: Layer, name: str, key: Any,
                    find: Callable[[], list[Finding]]) -> list[Finding]:
        known = self._cache(layer).get(name, key)
        if known is None:
            known = [finding.stored() for finding in find()]
            self._cache(layer).put(name, key, known)
        return [Finding.restore(row) for row in known]

    def _sort(self) -> None:
        inside = {layer.inside: number for number, layer in enumerate(self.scope.layers)}
        unique = dict.fromkeys(self.report.findings)
        self.report.findings = sorted(unique, key=lambda each: (
            inside.get(each.node, -1), _ORDER[each.severity], each.rule.name, each.package,
            each.path, each.message))
        self.report.unchecked = list(dict.fromkeys(self.report.unchecked))


def _work(task: LayerTask, *, scope: Scope, environ: Mapping[str, str],
          use_cache: bool) -> LayerResult:
    cache = LayerCache("files", task.layer, scope.root, environ, enabled=use_cache)
    return check_layer(task, scope, cache)


def accept(report: Report, known: Collection[str]) -> None:
    """Set the findings aside whose fingerprints a baseline knows."""
    report.accepted = [each for each in report.findings if each.fingerprint in known]
    report.findings = [each for each in report.findings if each.fingerprint not in known]


def stamp(report: Report, options: Options) -> None:
    """Note that the checked nodes are proven, when they are and everything was looked at."""
    if report.scope.root.is_image or options.groups is not None or not report.is_proven:
        return
    for layer in report.scope.checked:
        if layer.is_core:
            continue
        owner = os.lstat(layer.path).st_uid
        if os.geteuid() in (0, owner) and os.access(layer.path, os.W_OK):
            run_as_owner(owner, partial(prove_node, layer.path))
            report.stamped.append(layer.inside)
