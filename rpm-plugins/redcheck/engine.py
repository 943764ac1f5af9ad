# SPDX-License-Identifier: Apache-2.0
"""The whole check: lock, look, and say what was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

from redcheck import configuration
from redcheck.cache import LayerCache
from redcheck.configuration import Merger
from redcheck.findings import RULES, Finding, Severity
from redcheck.gpgcheck import requires_signatures
from redcheck.layers import check_files
from redcheck.leftovers import find_journal, find_leftovers, has_journal
from redcheck.library import Library, UnreadableError
from redcheck.mounts import HiddenFiles, mount_key
from redcheck.rootfs import FamilyPaths
from redcheck.scope import Layer, Request, Scope, read_scope
from redcheck.workers import Workers, count_processors
from redpak.effective import EffectiveConfig
from redpak.errors import TYPE_CHECKING, RedpakError
from redpak.node import prove_node
from redpak.values import dataclass, field
from redsys.lock import NodeLock, lock_node
from redsys.owner import run_as_owner

if TYPE_CHECKING:
    from typing import Any

    from redcheck.closure import Closure
    from redcheck.workers import Result

GROUPS = tuple(sorted({rule.group for rule in RULES.values()}))
_CLOSURE_GROUPS = frozenset(("dependencies", "obsoleted", "duplicates", "files"))
_STEPS = ("family", "packages", "files")
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


@dataclass(frozen=True)
class HeadersTask:
    """The headers of one layer. ``keys`` are those that its family trusts, hexadecimal; ``signed``
    is whether every package must be; on ``key`` the result depends."""

    layer: Layer
    keys: Sequence[str]
    signed: bool
    key: Sequence[Any]


@contextmanager
def locked_scope(request: Request, environ: Mapping[str, str],
                 notify: Callable[[str], None]) -> Iterator[Scope]:
    """What there is to check: as it is once no command works on its nodes, and stays until the end
    of the ``with`` statement. Raises RedpakError."""
    locks: list[NodeLock] = []

    def hold(paths: Iterable[str]) -> None:
        # Who commits holds a node and waits for its ancestors: the deepest first cannot deadlock.
        for path in sorted(paths, key=lambda each: -len(each)):
            locks.append(lock_node(path, shared=True, on_wait=lambda holder: notify(
                f"Waiting for another command on node {holder} ...")))

    try:
        yield read_scope(request, environ, hold)
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
        self.helpers = (options.jobs or count_processors()) - 1
        self.caches: dict[str, LayerCache] = {}
        self.configs: dict[str, EffectiveConfig] = {}
        self.merger = Merger(scope, environ)
        self.layers: list[Layer] = []  # those that there is more to be told of

    def run(self) -> Report:
        for layer in self.scope.layers:
            self._check_standing(layer)
        self.layers = [layer for layer in self.scope.checked if self._check_state(layer)]
        walked = self.layers if self.options.wants("files") else []
        walk = partial(check_files, scope=self.scope, environ=self.environ,
                       use_cache=self.options.use_cache)
        # The longest part, on which nothing depends: helpers begin with it.
        with Workers(walked, walk, self.helpers) as files:
            try:
                for layer in self.layers:
                    self._check_configuration(layer)
                self._add(configuration.check_names(self.scope.layers), "configuration")
                self._check_families()
                self._check_headers()
            finally:
                self.library.close()
            results = files.results(lambda number: self._tell(2, walked[number]))
        for layer, result in zip(walked, results):
            self._add_files(layer, result)
        for cache in self.caches.values():
            cache.save()
        self._sort()
        return self.report

    def _add(self, findings: Iterable[Finding], *groups: str) -> None:
        if self.options.wants(*groups):
            self.report.findings += [
                finding for finding in findings if self.options.wants(finding.rule.group)]

    def _add_obstacles(self, findings: Iterable[Finding], group: str) -> None:
        """Findings that keep us from looking at something else: where nobody asks for them, that
        could not be checked."""
        if self.options.wants(group):
            self._add(findings, group)
        else:
            self.report.unchecked += [f"{each.file or each.node}: {each.message};"
                                      f" {each.what_to_do}" for each in findings]

    def _fail(self, layer: Layer, error: RedpakError) -> None:
        """The rpmdb is damaged, or cannot be read."""
        if isinstance(error, UnreadableError):
            self.report.unchecked.append(str(error))
        else:
            self._add_obstacles([layer.finding("rpmdb", error.message, remedy=error.hint)],
                                "provides")

    def _cache(self, layer: Layer) -> LayerCache:
        known = self.caches.get(layer.path)
        if known is None:
            known = self.caches[layer.path] = LayerCache(
                "family", layer, self.scope.root, self.environ, enabled=self.options.use_cache)
        return known

    def _tell(self, step: int, layer: Layer) -> None:
        number = len(self.layers)
        self.tell(step * number + self.layers.index(layer), len(_STEPS) * number,
                  f"{_STEPS[step]} of {layer.alias}")

    # -- configuration ----------------------------------------------------------------------

    def _check_standing(self, layer: Layer) -> None:
        """What keeps every command from working on a node, and on those below it: they are no
        better proven than the ancestors that they stand on."""
        if layer.is_core:
            return
        if layer.node is not None:
            self._add(configuration.check_status(layer, layer.node), "status")
        self._add_obstacles(find_journal(layer), "status")
        self._add_obstacles((layer.config_finding("configuration", fault)
                             for fault in layer.faults), "configuration")
        self._add_obstacles(configuration.check_family_names(layer), "configuration")

    def _check_state(self, layer: Layer) -> bool:
        """Left-overs; whether there is more to be told of the layer."""
        if layer.is_core:
            return True
        self._add(configuration.check_admin_files(layer), "configuration")
        try:
            self._add(find_leftovers(layer), "status")
        except OSError as err:
            self.report.unchecked.append(f"{err.filename}: {err.strerror}")
        return layer.node is not None and not has_journal(layer)

    def _check_configuration(self, layer: Layer) -> None:
        if layer.is_core or not layer.is_readable or layer.node is None:
            return
        aliases = [member.alias for member in layer.lineage]
        if len(set(aliases)) < len(aliases):
            return  # whatever a merge says of them would be about the wrong one
        if not self.scope.root.is_image:
            self._add(configuration.check_owner(layer), "configuration")
        config, findings = self.merger.check(layer)
        if config is None:
            self._add_obstacles(findings, "configuration")
        else:
            self._add(findings, "configuration")
            self.configs[layer.path] = config
            if self.scope.root.is_image or not os.access(layer.path, os.W_OK):
                self._add(configuration.check_age(layer, layer.node, config), "status")

    # -- packages ---------------------------------------------------------------------------

    def _check_families(self) -> None:
        for layer in self.layers:
            self._tell(0, layer)
            try:
                self._check_family(layer)
            except RedpakError as err:
                self._fail(layer, err)

    def _check_family(self, layer: Layer) -> None:
        states = [self.library.state(member) for member in layer.lineage]
        if self.options.wants(*_CLOSURE_GROUPS):
            self._add(self._remembered(layer, "closure", states,
                                       lambda: self.closure.check(layer)), *_CLOSURE_GROUPS)
        config = self.configs.get(layer.path)
        if config is not None and self.options.wants("configuration"):
            key = [states, mount_key(config)]
            self._add(self._remembered(layer, "mounts", key,
                                       lambda: self.hidden.check(layer, config)), "configuration")

    @cached_property
    def closure(self) -> Closure:
        """What joins families; it loads librpm."""
        from redcheck.closure import Closure

        return Closure(self.library)

    @cached_property
    def hidden(self) -> HiddenFiles:
        """What looks for files below mounts."""
        return HiddenFiles(lambda layer: self.closure.files_of(layer, self.library.of(layer)))

    def _remembered(self, layer: Layer, name: str, key: Any,
                    find: Callable[[], Iterable[Finding]]) -> list[Finding]:
        paths = [self.library.paths(member) for member in layer.lineage]
        known = self._cache(layer).get(name, key)
        if known is None or not all(map(FamilyPaths.agree, paths, known["links"])):
            found = [finding.stored() for finding in find()]
            known = {"links": [each.links for each in paths], "findings": found}
            self._cache(layer).put(name, key, known)
        return [Finding.restore(row) for row in known["findings"]]

    def _check_headers(self) -> None:
        tasks: list[HeadersTask] = []
        for layer in self.layers:
            try:
                task = self._headers_task(layer)
                known = self._cache(layer).get("headers", task.key)
                if known is not None:
                    self._add_headers(layer, known)
                    continue
                self.library.of(layer)  # the helpers share it
                tasks.append(task)
            except RedpakError as err:
                self._fail(layer, err)
        if not tasks:
            return
        from redcheck.headers import check_headers  # loads librpm

        work = partial(check_headers, library=self.library)
        with Workers(tasks, work, self.helpers) as workers:
            results = workers.results(lambda number: self._tell(1, tasks[number].layer))
        for task, result in zip(tasks, results):
            self._cache(task.layer).put("headers", task.key, result)
            self._add_headers(task.layer, result)

    def _headers_task(self, layer: Layer) -> HeadersTask:
        signed = self.options.wants("signatures") and self._must_be_signed(layer)
        keys = [key for member in layer.lineage for key in self._keys(member)] if signed else []
        return HeadersTask(layer, keys, signed, [self.library.state(layer), signed, sorted(keys)])

    def _must_be_signed(self, layer: Layer) -> bool:
        config = self.configs.get(layer.path)
        try:
            return config is not None and requires_signatures(
                layer, tag=bool(config.tags.gpgcheck))
        except OSError as err:
            self.report.unchecked.append(f"{err.filename}: {err.strerror}")
            return False

    def _keys(self, layer: Layer) -> list[str]:
        try:
            state = self.library.state(layer)
            known = self._cache(layer).get("keys", state)
            if known is None:
                known = [key.hex() for key in self.library.of(layer).keys]
                self._cache(layer).put("keys", state, known)
            return list(known)
        except RedpakError:
            return []  # told when the layer itself is checked

    def _add_headers(self, layer: Layer, result: Result) -> None:
        self._add([Finding.restore(row) for row in result["findings"]], *GROUPS)
        self.report.packages[layer.inside] = result["packages"]

    def _add_files(self, layer: Layer, result: Result) -> None:
        if "error" in result:
            self._fail(layer, RedpakError(result["error"], hint=result["hint"]))
            return
        self._add([Finding.restore(row) for row in result["findings"]], *GROUPS)
        self.report.unchecked += result["unchecked"]

    def _sort(self) -> None:
        inside = {layer.inside: number for number, layer in enumerate(self.scope.layers)}
        unique = dict.fromkeys(self.report.findings)
        self.report.findings = sorted(unique, key=lambda each: (
            inside.get(each.node, -1), _ORDER[each.severity], each.rule.name, each.package,
            each.path, each.message))
        self.report.unchecked = list(dict.fromkeys(self.report.unchecked))


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
