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
from functools import cached_property
from typing import Optional

from redpak.errors import RedpakError
from redpak.values import dataclass, field
from redrpm.contents import VOLATILE_TOPS
from redrpm.journal import Metadata, Step, StepKind
from redrpm.stage import Stage

_OVERLAY_ATTRIBUTES = ("user.overlay.", "trusted.overlay.")
# What a transaction must never write: redpak's own files (design section 4).
_PROTECTED = re.compile(r"(\.rednode\.yaml|\.redpak|private|etc/redpac?k.*\.yaml)(/.*)?", re.DOTALL)
_WILDCARD = re.compile(r"[*?[]")


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
    path; ``as_root`` is false for an ordinary user, who owns all and whose setuid bits are dropped.
    ``state`` maps directories of the stage that the view shows apart from the overlay (rpmdb, dnf
    state) to their places in the node.
    """

    state: Mapping[str, str]
    children: Sequence[str]
    derived: Sequence[str]
    is_owned: Callable[[str], bool]
    as_root: bool

    def is_derived(self, path: str) -> bool:
        """Whether the absolute ``path`` fits a pattern of ``derived``."""
        return path in self._names or self._pattern.match(path) is not None

    @cached_property
    def _names(self) -> frozenset[str]:
        """The patterns that are plain names: most are, and expressions are slow to compile."""
        return frozenset(pattern for pattern in self.derived if not _WILDCARD.search(pattern))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """One expression for all the others; it matches nothing when there are none."""
        others = [pattern for pattern in self.derived if pattern not in self._names]
        return re.compile("|".join(map(fnmatch.translate, others)) or r"(?!)")


def read_delta(node: str, stage: Stage, rules: DeltaRules) -> Delta:
    """Plan the commit of ``stage`` to the directory ``node``.

    Raises RedpakError when the transaction wrote what it must not, OSError.
    """
    reader = _DeltaReader(node, stage, rules)
    with os.scandir(stage.delta) as entries:
        tops = sorted(entries, key=lambda entry: entry.name)
    for entry in tops:
        if entry.name in VOLATILE_TOPS or _is_root_symlink(entry) or _is_unused(entry):
            continue
        reader.read_entry(entry, entry.name, seen=True)
    for source, path in rules.state.items():
        reader.read_state(source, path)
    return reader.delta


class _DeltaReader:
    """Compares a stage with the node, from the top down.

    ``seen`` tells whether what the node has at a path still counts: below a symlink, or below what
    the plan replaces, nothing does.
    """

    def __init__(self, node: str, stage: Stage, rules: DeltaRules) -> None:
        self._node = node
        self._stage = stage
        self._rules = rules
        self.delta = Delta()

    def read_entry(
        self, entry: os.DirEntry[str], path: str, *, seen: bool, opaque: bool = False
    ) -> None:
        """Plan for one entry of the stage; ``opaque``: it is below an opaque directory."""
        info = entry.stat(follow_symlinks=False)
        if _is_whiteout(entry.path, info):
            _check_allowed(path, self._rules)
            self._remove(path, seen=seen)
        elif stat.S_ISDIR(info.st_mode):
            self._read_directory(entry, path, info, seen=seen, opaque=opaque)
        else:
            self._read_file(entry.path, path, info, seen=seen)

    def read_state(self, source: str, path: str) -> None:
        """Put every file of ``source`` that differs; what is gone there is removed."""
        fresh = set(_files_below(source))
        for name in sorted(fresh):
            if not _same_file(f"{source}/{name}", f"{self._node}/{path}/{name}"):
                self._plan_parents(f"{path}/{name}")
                self._put(f"{source}/{name}", f"{path}/{name}")
        for name in sorted(set(_files_below(f"{self._node}/{path}")) - fresh):
            self._add(StepKind.REMOVE_FILE, f"{path}/{name}")

    def _read_directory(
        self,
        entry: os.DirEntry[str],
        path: str,
        info: os.stat_result,
        *,
        seen: bool,
        opaque: bool,
    ) -> None:
        # A package may ship a directory that its owner cannot read; ``info`` keeps the mode.
        os.chmod(entry.path, stat.S_IMODE(info.st_mode) | 0o700)
        opaque = _take_overlay_attributes(entry.path) or opaque
        _check_allowed(path, self._rules, directory=True)
        with os.scandir(entry.path) as entries:
            children = sorted(entries, key=lambda child: child.name)
        present = self._look(path, seen=seen)
        exists = present is not None and stat.S_ISDIR(present.st_mode)
        if exists and opaque:
            # Nothing below shows through. What the stage has too is replaced, never removed first:
            # taken again after an interruption, the removal would hit the new file.
            kept = {child.name for child in children}
            for name in _list_names(f"{self._node}/{path}"):
                if name not in kept:
                    self._remove(f"{path}/{name}", seen=True)
        elif not exists:
            if present is not None:
                self._add(StepKind.REMOVE_FILE, path)
            self._add(StepKind.MAKE_DIRECTORY, path)
        for child in children:
            self.read_entry(child, f"{path}/{child.name}", seen=exists, opaque=opaque)
        # Last: the entries change the directory's time.
        place = f"{self._node}/{path}"
        before = self._metadata(place) if exists else None
        metadata = self._metadata(entry.path, info)
        self.delta.steps.append(
            Step(StepKind.SET_METADATA, path, metadata=metadata, before=before)
        )

    def _read_file(self, source: str, path: str, info: os.stat_result, *, seen: bool) -> None:
        if _is_derived(path, self._rules):
            return
        _check_allowed(path, self._rules)
        _take_overlay_attributes(source)
        is_file = stat.S_ISREG(info.st_mode)
        if is_file and info.st_mode & 0o6000 and not self._rules.as_root:
            os.chmod(source, stat.S_IMODE(info.st_mode) & 0o1777)
            self.delta.notes.append(
                f"{path}: set-user-ID and set-group-ID bits dropped, root is needed"
            )
        present = self._look(path, seen=seen)
        if present is not None and stat.S_ISDIR(present.st_mode):
            self._remove(path, seen=seen)
        self._put(source, path)

    def _look(self, path: str, *, seen: bool) -> Optional[os.stat_result]:
        """What the node has at ``path``, if that still counts."""
        if not seen:
            return None
        try:
            return os.lstat(f"{self._node}/{path}")
        except FileNotFoundError:
            return None

    def _remove(self, path: str, *, seen: bool) -> None:
        """Plan to remove ``path`` from the node; nothing if only an ancestor has it."""
        present = self._look(path, seen=seen)
        if present is None:
            return
        _check_allowed(path, self._rules)
        if not stat.S_ISDIR(present.st_mode):
            self._add(StepKind.REMOVE_FILE, path)
            return
        place = f"{self._node}/{path}"
        before = self._metadata(place)
        for name in _list_names(place):
            self._remove(f"{path}/{name}", seen=True)
        self.delta.steps.append(Step(StepKind.REMOVE_DIRECTORY, path, before=before))

    def _plan_parents(self, path: str) -> None:
        """Make the directories that lead to ``path`` where the node has none.

        Raises RedpakError when one of them is something else.
        """
        planned = {s.path for s in self.delta.steps if s.kind is StepKind.MAKE_DIRECTORY}
        parts = path.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            parent = "/".join(parts[:end])
            present = self._look(parent, seen=True)
            if present is not None and not stat.S_ISDIR(present.st_mode):
                raise RedpakError(
                    f"{self._node}/{parent}: is no directory, and the node's own state goes there",
                    hint="put the directory back",
                )
            if present is None and parent not in planned:
                fresh = Metadata(-1, -1, 0o755, time.time_ns())
                self._add(StepKind.MAKE_DIRECTORY, parent)
                self.delta.steps.append(Step(StepKind.SET_METADATA, parent, metadata=fresh))

    def _metadata(self, path: str, info: Optional[os.stat_result] = None) -> Metadata:
        return Metadata.of(path, info, owner=self._rules.as_root)

    def _put(self, source: str, path: str) -> None:
        relative = source[len(self._stage.path) + 1 :]
        self.delta.steps.append(Step(StepKind.PUT_FILE, path, relative))

    def _add(self, kind: StepKind, path: str) -> None:
        self.delta.steps.append(Step(kind, path))


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
    return rules.is_derived(absolute) and not rules.is_owned(absolute)


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
    """The names in a directory of the node; none when its owner may not read it, as rpm, which
    removed what it knows of, cannot have meant the rest."""
    try:
        return sorted(os.listdir(directory))
    except PermissionError:
        return []


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
