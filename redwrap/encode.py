# SPDX-License-Identifier: Apache-2.0
"""A launch plan as the launcher (redwrap/launcher) reads it: a list of records.

A record is a verb and its fields, all text; launcher/plan.c has the list. The mounts are made by
the launcher itself, below one directory that bwrap binds to its root, but /proc and the like, which
belong to namespaces that only bwrap makes. On a kernel without the calls for that (before 5.12),
bwrap makes them all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence

from redpak.errors import TYPE_CHECKING
from redpak.findings import Origin
from redwrap.execfd import find_runner
from redwrap.operations import (
    Bind,
    Command,
    Data,
    FileSystem,
    Join,
    JoinByFd,
    Lock,
    Mount,
    NewTime,
    Operation,
    Overlay,
    RunAs,
    Running,
    Seccomp,
    SetVariable,
    SmackLabel,
    Symlink,
    Umask,
)
from redwrap.plan import LaunchPlan
from redwrap.sources import is_below

if TYPE_CHECKING:
    from typing import Optional

MAGIC = "#redpak-launch-plan 2"
# The directory that the mounts are made below, in a mount namespace of their own: it must exist
# and not hold bwrap itself. What is really in it can be mounted all the same.
_BASES = ("/tmp", "/run", "/var/tmp", "/mnt")

Record = tuple[str, ...]


def write_records(records: Sequence[Record]) -> bytes:
    """The bytes of a plan."""
    lines = [MAGIC, *("\t".join(map(_escape, record)) for record in records),
             f"end\t{len(records)}\n"]
    return os.fsencode("\n".join(lines))


def _escape(text: str) -> str:
    if "\\" in text or "\n" in text or "\t" in text:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return text


class Encoder:
    """Turns a checked plan into records. Of the names that commands get, `inherited` come from the
    caller's environment each time, and `hidden` from the launcher (PID, UUID, TODAY)."""

    def __init__(self, plan: LaunchPlan, *, own_mounts: bool, unsafe: bool,
                 hidden: Collection[str] = (), inherited: Collection[str] = ()) -> None:
        self._plan, self._unsafe = plan, unsafe
        # Who has entered a user namespace for mounts cannot join another: bwrap makes them then.
        self._own_mounts = own_mounts and (os.geteuid() == 0 or not any(
            isinstance(step, JoinByFd) and step.namespace == "user" for step in plan.operations))
        self._left_out = frozenset((*hidden, *inherited))
        self._slots = 0
        self._names: Optional[Mapping[str, str]] = None

    def encode(self) -> list[Record]:
        """The records. Raises RedpakError when a command may not be run."""
        plan = self._plan
        records: list[Record] = [("bwrap", plan.bwrap), ("search", plan.search)]
        if plan.directory:
            records.append(("directory", plan.directory))
        left = _left_for_bwrap(plan.mounts)
        if self._own_mounts:
            base = next(base for base in _BASES if not is_below(plan.bwrap, base))
            records.append(("base", base))
        bound = False
        for step in plan.operations:
            if isinstance(step, Mount):
                if self._own_mounts and not bound:
                    # --dev-bind: every mount but the devices has "nodev" already.
                    records.append(("words", "--dev-bind", base, "/"))
                    bound = True
                records += self._mount(step, step in left)
            else:
                records += self._step(step)
        return records

    def _step(self, step: Operation) -> Iterator[Record]:
        """What is no mount."""
        if isinstance(step, SetVariable) and step.command is not None:
            slot, *records = self._command(step.command)
            yield from records
            yield ("variable", step.key, slot[0], _where_command(step.command))
        elif isinstance(step, Umask):
            yield ("umask", f"{step.mask:o}")
        elif isinstance(step, Running):
            yield ("running", step.state_dir, step.base, *step.journals)
        elif isinstance(step, NewTime):
            yield ("new-time", *_told(step.origin, "config.share_time: no time namespace",
                                      "say share_time: enabled on this kernel"))
        elif isinstance(step, Join):
            yield ("join", step.path, *_told(
                step.origin, f"config.share_{step.namespace}: cannot join {step.path}",
                f"only root can join a namespace of this kind ({step.namespace})"))
        elif isinstance(step, RunAs):
            from redwrap.identity import list_groups  # root's launches only
            yield ("run-as", str(step.uid), str(step.gid), *map(str, list_groups(step)), *_told(
                step.origin, f"config.set-user: cannot become uid {step.uid}",
                "run red-wrap as root"))
        elif isinstance(step, SmackLabel):
            from redwrap.smack import label_file
            yield ("write", label_file(step), step.label, *_told(
                step.origin, f"config.smack: cannot set the label {step.label}",
                "it takes CAP_MAC_ADMIN or a rule for it"))
        else:
            yield from self._handed(step)

    def _handed(self, step: Operation) -> Iterator[Record]:
        """bwrap options, perhaps with a descriptor."""
        if isinstance(step, Seccomp):
            from redwrap.seccomp import load_profile
            yield ("content", str(step.fd), load_profile(step.profile, step.origin).hex())
        elif isinstance(step, JoinByFd):
            yield ("namespace", str(step.fd), step.path, *_told(
                step.origin, f"config.share_{step.namespace}: cannot open the namespace "
                f"{step.path}", "check that its process still runs and is yours"))
        words = step.arguments()
        if words:
            yield ("words", *words)

    def _command(self, command: Command) -> Iterator[Record]:
        """First the number of the command, then its records."""
        yield (str(self._slots),)
        self._slots += 1
        if command.names is not self._names:
            self._names = command.names
            yield ("names", *(f"{name}={value}" for name, value in command.names.items()
                              if name not in self._left_out))
        runner = find_runner(command, unsafe=self._unsafe) or ("", "")
        yield ("command", _where_command(command), *map(str, runner), command.text)

    def _mount(self, mount: Mount, left: bool) -> Iterator[Record]:
        origin = mount.origin
        where = f"{origin} (node {origin.node})" if origin is not None else "red-wrap"
        start = (mount.mount, where)
        if left:
            if isinstance(mount, FileSystem):
                yield ("left", *start)
        elif isinstance(mount, Bind):
            yield ("bind", *start, "rw" if mount.writable else "ro", mount.source, mount.base)
        elif isinstance(mount, Symlink):
            yield ("symlink", *start, mount.target)
        elif isinstance(mount, Data) and mount.command is None:
            yield ("handed", *start, str(mount.fd))
        elif isinstance(mount, Data) and mount.command is not None:
            slot, *records = self._command(mount.command)
            yield from records
            yield ("output", *start, slot[0], str(mount.fd))
        elif isinstance(mount, Overlay):
            yield ("overlay", *start, *_stack(mount))
        elif isinstance(mount, FileSystem):
            yield ("dev" if mount.option == "--dev" else "tmpfs", *start)
        if left or not self._own_mounts:
            yield ("words", *mount.arguments())


def _left_for_bwrap(mounts: Sequence[Mount]) -> list[Mount]:
    """/proc and the like, what lies below them, and locks."""
    left: list[Mount] = [mount for mount in mounts if isinstance(mount, Lock) or (
        isinstance(mount, FileSystem) and mount.option not in ("--tmpfs", "--dev"))]
    points = [mount.mount for mount in left if not isinstance(mount, Lock)]
    return left + [mount for mount in mounts if mount not in left
                   and any(is_below(mount.mount, point) for point in points)]


def _stack(overlay: Overlay) -> Iterator[str]:
    """The mode, then pairs of directory and base: where writes go, then the layers from the top."""
    yield "rw" if overlay.writes else "ro"
    if overlay.writes:
        yield from (f"{overlay.writes}/upper", overlay.writes_base)
        yield from (overlay.writes, overlay.writes_base)
    for layer in overlay.layers:
        yield from layer


def _where_command(command: Command) -> str:
    return f"{command.origin}: {command.what} (node {command.origin.node})"


def _told(origin: Optional[Origin], message: str, hint: str) -> tuple[str, str]:
    """What the launcher says before and after the kernel's reason."""
    where = f"{origin}: " if origin is not None else ""
    node = f" (node {origin.node})" if origin is not None else ""
    return where + message, f"{node}; {hint}"
