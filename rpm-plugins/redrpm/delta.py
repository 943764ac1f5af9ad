# SPDX-License-Identifier: Apache-2.0
"""Reading a stage: from what overlayfs left in the upper layers to the steps of a commit.

Pure planning: the stage loses overlayfs's private attributes and its setuid bits, the node is not
touched. Kernel: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from redpak.errors import RedpakError
from redrpm.contents import VOLATILE_TOPS
from redrpm.journal import Metadata, Step, StepKind
from redrpm.stage import Stage

_OVERLAY_ATTRIBUTES = ("user.overlay.", "trusted.overlay.")
# What a transaction must never write: redpak's own files (design section 4).
_PROTECTED = re.compile(r"(\.rednode\.yaml|\.redpak|private|etc/redpac?k.*\.yaml)(/.*)?", re.DOTALL)


@dataclass
class Delta:
    """What a stage changes in the node: ``steps`` in order, ``notes`` for the user."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DeltaRules:
    """What the family says about a commit.

    ``children`` are the paths of child nodes, relative to the node; ``derived`` the patterns of
    files that only cache what others hold; ``is_owned`` tells whether a package owns an absolute
    path; ``keep_setuid`` is false for an ordinary user. ``state`` maps directories of the stage
    that the view shows apart from the overlay (rpmdb, dnf state) to their places in the node.
    """

    state: Mapping[str, str]
    children: Sequence[str]
    derived: Sequence[str]
    is_owned: Callable[[str], bool]
    keep_setuid: bool

    @cached_property
    def derived_pattern(self) -> re.Pattern[str]:
        """One expression for all of ``derived``; it matches nothing when there are none."""
        return re.compile("|".join(map(fnmatch.translate, self.derived)) or r"(?!)")


def read_delta(node: str, stage: Stage, rules: DeltaRules) -> Delta:
    """Plan the commit of ``stage`` to the directory ``node``.

    Raises RedpakError when the transaction wrote what it must not, OSError.
    """
    delta = Delta()
    with os.scandir(stage.delta) as entries:
        tops = sorted(entries, key=lambda entry: entry.name)
    for entry in tops:
        if entry.name in VOLATILE_TOPS or _is_root_symlink(entry) or _is_unused(entry):
            continue
        _read_entry(node, stage, entry, entry.name, rules, delta)
    for source, path in rules.state.items():
        _read_state(node, stage, source, path, delta)
    return delta


def _read_state(node: str, stage: Stage, source: str, path: str, delta: Delta) -> None:
    """Put every file of ``source`` that differs; what is gone there is removed."""
    fresh = set(_files_below(source))
    for name in sorted(fresh):
        if not _same_file(f"{source}/{name}", f"{node}/{path}/{name}"):
            _plan_parents(node, f"{path}/{name}", delta)
            full = os.path.relpath(f"{source}/{name}", stage.path)
            delta.steps.append(Step(StepKind.PUT_FILE, f"{path}/{name}", full))
    for name in sorted(set(_files_below(f"{node}/{path}")) - fresh):
        delta.steps.append(Step(StepKind.REMOVE_FILE, f"{path}/{name}"))


def _read_entry(
    node: str,
    stage: Stage,
    entry: os.DirEntry[str],
    path: str,
    rules: DeltaRules,
    delta: Delta,
) -> None:
    info = entry.stat(follow_symlinks=False)
    if _is_whiteout(entry.path, info):
        _check_allowed(path, rules)
        delta.steps += _removal(node, path, rules)
        return
    if not stat.S_ISDIR(info.st_mode):
        _read_file(node, stage, entry.path, path, info, rules, delta)
        return
    # A package may ship a directory that its owner cannot read; ``info`` keeps the mode.
    os.chmod(entry.path, stat.S_IMODE(info.st_mode) | 0o700)
    opaque = _take_overlay_attributes(entry.path)
    _check_allowed(path, rules, directory=True)
    _plan_directory(node, path, delta)
    with os.scandir(entry.path) as entries:
        children = sorted(entries, key=lambda child: child.name)
    if opaque:
        kept = {child.name for child in children}
        for name in _list_names(f"{node}/{path}"):
            if name not in kept:
                delta.steps += _removal(node, f"{path}/{name}", rules)
    for child in children:
        _read_entry(node, stage, child, f"{path}/{child.name}", rules, delta)
    delta.steps.append(_metadata_step(node, path, info))


def _read_file(
    node: str,
    stage: Stage,
    source: str,
    path: str,
    info: os.stat_result,
    rules: DeltaRules,
    delta: Delta,
) -> None:
    if _is_derived(path, rules):
        return
    _check_allowed(path, rules)
    _take_overlay_attributes(source)
    if stat.S_ISREG(info.st_mode) and info.st_mode & 0o6000 and not rules.keep_setuid:
        os.chmod(source, stat.S_IMODE(info.st_mode) & 0o1777)
        delta.notes.append(f"{path}: set-user-ID and set-group-ID bits dropped, root is needed")
    if os.path.isdir(f"{node}/{path}") and not os.path.islink(f"{node}/{path}"):
        delta.steps += _removal(node, path, rules)
    relative = source[len(stage.path) + 1 :]
    delta.steps.append(Step(StepKind.PUT_FILE, path, relative))


def _plan_parents(node: str, path: str, delta: Delta) -> None:
    """Make the directories that lead to ``path`` where the node has none."""
    planned = {step.path for step in delta.steps if step.kind is StepKind.MAKE_DIRECTORY}
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        parent = "/".join(parts[:end])
        if parent not in planned and not os.path.isdir(f"{node}/{parent}"):
            now = time.time_ns()
            fresh = Metadata(os.geteuid(), os.getegid(), 0o755, now)
            delta.steps.append(Step(StepKind.MAKE_DIRECTORY, parent))
            delta.steps.append(Step(StepKind.SET_METADATA, parent, metadata=fresh))


def _plan_directory(node: str, path: str, delta: Delta) -> None:
    place = f"{node}/{path}"
    if os.path.isdir(place) and not os.path.islink(place):
        return
    if os.path.lexists(place):
        delta.steps.append(Step(StepKind.REMOVE_FILE, path))
    delta.steps.append(Step(StepKind.MAKE_DIRECTORY, path))


def _metadata_step(node: str, path: str, info: os.stat_result) -> Step:
    """Set after the directory's entries are in place: they change its time."""
    place = f"{node}/{path}"
    before = None
    if os.path.isdir(place) and not os.path.islink(place):
        before = Metadata.of(os.lstat(place))
    return Step(StepKind.SET_METADATA, path, metadata=Metadata.of(info), before=before)


def _removal(node: str, path: str, rules: DeltaRules) -> list[Step]:
    """The steps that remove ``path`` from the node; none if only an ancestor has it."""
    place = f"{node}/{path}"
    if not os.path.lexists(place):
        return []
    _check_allowed(path, rules)
    if not os.path.isdir(place) or os.path.islink(place):
        return [Step(StepKind.REMOVE_FILE, path)]
    steps: list[Step] = []
    for name in _list_names(place):
        steps += _removal(node, f"{path}/{name}", rules)
    before = Metadata.of(os.lstat(place))
    return [*steps, Step(StepKind.REMOVE_DIRECTORY, path, before=before)]


def _check_allowed(path: str, rules: DeltaRules, *, directory: bool = False) -> None:
    for child in rules.children:
        # A directory that leads to a child node may be there; whatever else is in its way.
        if path == child or path.startswith(f"{child}/"):
            raise RedpakError(f"/{path}: the transaction writes into child node {child}")
        if child.startswith(f"{path}/") and not directory:
            raise RedpakError(f"/{path}: the transaction replaces what holds child node {child}")
    if _PROTECTED.fullmatch(path):
        raise RedpakError(
            f"/{path}: the transaction writes a file of redpak itself",
            hint="change it with red-manager, not with a package",
        )


def _is_derived(path: str, rules: DeltaRules) -> bool:
    """Whether a file is only a cache of what others hold: it would freeze the parent's state."""
    absolute = f"/{path}"
    return rules.derived_pattern.match(absolute) is not None and not rules.is_owned(absolute)


def _is_root_symlink(entry: os.DirEntry[str]) -> bool:
    """bin -> usr/bin and its like, which the view has from the core OS."""
    name = f"/{entry.name}"
    return (
        entry.is_symlink() and os.path.islink(name) and os.readlink(entry.path) == os.readlink(name)
    )


def _is_unused(entry: os.DirEntry[str]) -> bool:
    """An upper directory made for the view, in which nothing was written."""
    return (
        entry.is_dir(follow_symlinks=False)
        and os.path.isdir(f"/{entry.name}")
        and not os.listdir(entry.path)
        and not _has_overlay_attribute(entry.path, "opaque")
    )


def _is_whiteout(path: str, info: os.stat_result) -> bool:
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
        return True
    return stat.S_ISREG(info.st_mode) and info.st_size == 0 and _has_overlay_attribute(
        path, "whiteout"
    )


def _has_overlay_attribute(path: str, name: str) -> bool:
    attributes = os.listxattr(path, follow_symlinks=False)
    return any(f"{prefix}{name}" in attributes for prefix in _OVERLAY_ATTRIBUTES)


def _take_overlay_attributes(path: str) -> bool:
    """Remove overlayfs's attributes of a staged file; whether it was an opaque directory."""
    names = [
        name
        for name in os.listxattr(path, follow_symlinks=False)
        if name.startswith(_OVERLAY_ATTRIBUTES)
    ]
    if not names:
        return False
    opaque = any(
        name.endswith(".opaque") and os.getxattr(path, name, follow_symlinks=False) == b"y"
        for name in names
    )
    # Attributes of the user class are a file's content: xattr(7) asks for the write bit.
    with _mode_added(path, 0o200):
        for name in names:
            os.removexattr(path, name, follow_symlinks=False)
    return opaque


@contextmanager
def _mode_added(path: str, bits: int) -> Iterator[None]:
    """Give the owner permission ``bits`` for a while, where they are missing."""
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    if os.path.islink(path) or mode & bits == bits:
        yield
        return
    os.chmod(path, mode | bits)
    try:
        yield
    finally:
        os.chmod(path, mode)


def _list_names(directory: str) -> list[str]:
    if not os.path.isdir(directory) or os.path.islink(directory):
        return []
    with _mode_added(directory, 0o500):
        return sorted(os.listdir(directory))


def _files_below(directory: str) -> Iterator[str]:
    for parent, names, files in os.walk(directory):
        names.sort()
        for name in sorted(files):
            yield os.path.relpath(os.path.join(parent, name), directory)


def _same_file(one: str, other: str) -> bool:
    """Whether two files have the same bytes."""
    try:
        if os.stat(one).st_size != os.stat(other).st_size:
            return False
        with open(one, "rb") as first, open(other, "rb") as second:
            while True:
                block = first.read(1 << 20)
                if block != second.read(1 << 20):
                    return False
                if not block:
                    return True
    except FileNotFoundError:
        return False
