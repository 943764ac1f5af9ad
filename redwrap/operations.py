# SPDX-License-Identifier: Apache-2.0
"""The steps of a launch, as values.

A launch plan is a list of these. Each knows the bwrap options it stands for, prints itself as one
line, and remembers the line of configuration that asked for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from redpak.errors import TYPE_CHECKING
from redpak.findings import Origin
from redpak.values import dataclass, field

if TYPE_CHECKING:
    from typing import Optional


@dataclass(frozen=True)
class Command:
    """A shell command of the configuration (Execfd): the single place where a shell is run."""

    text: str
    names: Mapping[str, str] = field(hash=False)  # what $NODE_PATH ... mean, as environment
    origin: Origin
    what: str  # "mount /etc/passwd" or "variable TOKEN", for messages

    def describe(self) -> str:
        """The command in a line."""
        text = " ".join(self.text.split())
        return f"output of: {text if len(text) <= 48 else text[:45] + '...'}"


@dataclass(frozen=True)
class Operation:
    """One step; `origin` is None for what red-wrap itself adds."""

    origin: Optional[Origin]

    def arguments(self) -> tuple[str, ...]:
        """The bwrap options of this step; none for what red-wrap does before bwrap starts."""
        return ()

    def describe(self) -> str:
        """What the step does, for people; a mount does not repeat its mount point."""
        return str(self)

    def __str__(self) -> str:
        return " ".join(shlex.quote(word) for word in self.arguments())


@dataclass(frozen=True)
class Flag(Operation):
    """A bwrap option without a mount: --unshare-net, --hostname NAME, --cap-add CAP ..."""

    words: tuple[str, ...]

    def arguments(self) -> tuple[str, ...]:
        return self.words


@dataclass(frozen=True)
class SetVariable(Operation):
    """Set a variable; a `command` gives the value at launch instead of `value`."""

    key: str
    value: str
    command: Optional[Command] = None

    def arguments(self) -> tuple[str, ...]:
        return ("--setenv", self.key, self.value)

    def describe(self) -> str:
        return self.value if self.command is None else self.command.describe()

    def __str__(self) -> str:
        if self.command is None:
            return super().__str__()
        return f'--setenv {shlex.quote(self.key)} "$({self.command.text})"'


@dataclass(frozen=True)
class UnsetVariable(Operation):
    """Remove a variable."""

    key: str

    def arguments(self) -> tuple[str, ...]:
        return ("--unsetenv", self.key)

    def describe(self) -> str:
        return "(removed)"


@dataclass(frozen=True)
class Mount(Operation):
    """Something at `mount` in the namespace."""

    mount: str


@dataclass(frozen=True)
class Bind(Mount):
    """A file or directory of the host. `base` is the node directory that the source must not
    leave through a symlink; "" for a source of the core OS."""

    source: str
    writable: bool
    file_only: bool = False
    optional: bool = False
    base: str = ""

    def arguments(self) -> tuple[str, ...]:
        return ("--bind" if self.writable else "--ro-bind", self.source, self.mount)

    def describe(self) -> str:
        return f"{self.source} ({'writable' if self.writable else 'read-only'})"


@dataclass(frozen=True)
class Data(Mount):
    """A read-only file whose content comes from descriptor `fd`: the output of `command`, or what
    the caller handed over (Internal) when there is none."""

    fd: int
    command: Optional[Command]

    def arguments(self) -> tuple[str, ...]:
        # bwrap makes such files 0600 unless told otherwise; /etc/passwd is for everybody.
        return ("--perms", "0444", "--ro-bind-data", str(self.fd), self.mount)

    def describe(self) -> str:
        return f"descriptor {self.fd}" if self.command is None else (
            self.command.describe())

    def __str__(self) -> str:
        line = super().__str__()
        return line if self.command is None else f"{line} {self.fd}< <({self.command.text})"


@dataclass(frozen=True)
class Symlink(Mount):
    """A symbolic link."""

    target: str

    def arguments(self) -> tuple[str, ...]:
        return ("--symlink", self.target, self.mount)

    def describe(self) -> str:
        return f"-> {self.target}"


@dataclass(frozen=True)
class FileSystem(Mount):
    """A file system of the namespace's own: option is "--tmpfs", "--proc", "--dev", "--mqueue"."""

    option: str

    def arguments(self) -> tuple[str, ...]:
        return (self.option, self.mount)

    def describe(self) -> str:
        return f"{self.option[2:]}, of this namespace alone"


@dataclass(frozen=True)
class Overlay(Mount):
    """Directories stacked: pairs of directory and base (see Bind), topmost first; `writes` is where
    the application's changes go, "" for none, in the node `writes_base`."""

    layers: tuple[tuple[str, str], ...]
    writes: str
    writes_base: str = ""
    optional: tuple[str, ...] = ()  # layers that may be missing

    def arguments(self) -> tuple[str, ...]:
        words: list[str] = []
        for directory, _ in reversed(self.layers):
            words += ("--overlay-src", directory)
        if self.writes:
            return (*words, "--overlay", f"{self.writes}/upper", f"{self.writes}/work.0",
                    self.mount)
        return (*words, "--ro-overlay", self.mount)

    def describe(self) -> str:
        stack = ", ".join(directory for directory, _ in self.layers)
        return f"{stack} ({'changes in ' + self.writes if self.writes else 'read-only'})"


@dataclass(frozen=True)
class Running(Operation):
    """A mark, kept in the leaf's `state_dir`, that an application runs on the layers of overlays:
    commits leave it the directories it began with. `base` is the leaf; while one of `journals`
    exists, a commit is at work."""

    state_dir: str
    base: str
    journals: tuple[str, ...]

    def __str__(self) -> str:
        return f"# running mark in {self.state_dir}"


@dataclass(frozen=True)
class Lock(Mount):
    """A lock on the file at `mount`, held while the application runs."""

    def arguments(self) -> tuple[str, ...]:
        return ("--lock-file", self.mount)

    def describe(self) -> str:
        return "locked while the application runs"


@dataclass(frozen=True)
class Umask(Operation):
    """The file mode creation mask, set before bwrap starts: bwrap hands it on."""

    mask: int

    def __str__(self) -> str:
        return f"# umask {self.mask:04o}"


@dataclass(frozen=True)
class Join(Operation):
    """Enter an existing namespace, net, ipc, cgroup or time, before bwrap starts."""

    namespace: str
    path: str

    def __str__(self) -> str:
        return f"# join {self.namespace} namespace {self.path}"


@dataclass(frozen=True)
class JoinByFd(Operation):
    """Enter an existing user or pid namespace: bwrap does it, from descriptor `fd`."""

    namespace: str
    path: str
    fd: int

    def arguments(self) -> tuple[str, ...]:
        return (f"--{self.namespace}ns", str(self.fd))

    def __str__(self) -> str:
        return f"{super().__str__()} {self.fd}<{self.path}"


@dataclass(frozen=True)
class NewTime(Operation):
    """A time namespace of its own: bwrap has no option for it."""

    def __str__(self) -> str:
        return "# unshare time namespace"


@dataclass(frozen=True)
class RunAs(Operation):
    """Become another user, for good, before bwrap starts; only root can."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"# run as uid {self.uid} gid {self.gid}"


@dataclass(frozen=True)
class SmackLabel(Operation):
    """The SMACK label of the application."""

    label: str

    def __str__(self) -> str:
        return f"# smack label {self.label}"


@dataclass(frozen=True)
class Seccomp(Operation):
    """A system call filter, loaded by bwrap from descriptor `fd`: "default" or a file."""

    profile: str
    fd: int

    def arguments(self) -> tuple[str, ...]:
        return ("--seccomp", str(self.fd))

    def __str__(self) -> str:
        return f"{super().__str__()} {self.fd}<{self.profile}"


@dataclass(frozen=True)
class ControlGroups(Operation):
    """The control groups of the family and the application: values by node, oldest first."""

    root: str
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    def __str__(self) -> str:
        lines = [f"# control group {self.root}"]
        for name, values in self.groups:
            lines += [f"# control group {name}: {file} = {value}" for file, value in values]
        return "\n".join(lines)
