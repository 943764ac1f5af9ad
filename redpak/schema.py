# SPDX-License-Identifier: Apache-2.0

"""What a configuration can say. Every key of the format is declared here, once.

A field made with `tag` carries its key, kind, merge rule, default and help; loader, merge, JSON
Schema, documentation and completion derive from these tables.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from redpak import constraints, kinds
from redpak.errors import TYPE_CHECKING
from redpak.findings import Origin as Origin
from redpak.kinds import Kind, Share
from redpak.kinds import ShareState as ShareState
from redpak.values import dataclass, field, fields

if TYPE_CHECKING:
    from typing import Any


class ExportMode(enum.Enum):
    """How an export appears in the namespace (design, "Export modes")."""

    PUBLIC = "Public"
    PUBLIC_FILE = "PublicFile"
    RESTRICTED = "Restricted"
    RESTRICTED_FILE = "RestrictedFile"
    PRIVATE = "Private"
    PRIVATE_FILE = "PrivateFile"
    PRIVATE_RESTRICTED = "PrivateRestricted"
    ANONYMOUS = "Anonymous"
    SYMLINK = "Symlink"
    EXECFD = "Execfd"
    INTERNAL = "Internal"
    OVERLAY = "Overlay"
    OVERLAY_PRIVATE = "OverlayPrivate"
    TMPFS = "Tmpfs"
    PROCFS = "Procfs"
    DEVFS = "Devfs"
    MQUEUE = "Mqueue"
    LOCK = "Lock"

    @property
    def is_private(self) -> bool:
        """Whether children never see it: such an entry counts only when its node is the leaf."""
        return self in _PRIVATE

    @property
    def is_bind(self) -> bool:
        """Whether `path` is a file or directory of the host that gets bound."""
        return self in _BINDS

    @property
    def is_file(self) -> bool:
        """Whether the source must be a file."""
        return self in _FILES

    @property
    def is_read_only(self) -> bool:
        """Whether a bind of this mode is read-only."""
        return self in _READ_ONLY

    @property
    def is_overlay(self) -> bool:
        """Whether entries of one mount stack instead of competing."""
        return self in (ExportMode.OVERLAY, ExportMode.OVERLAY_PRIVATE)

    @property
    def has_path(self) -> bool:
        """Whether `path` means anything: the others need nothing but a mount point."""
        return self not in _PATHLESS

    @property
    def needs_path(self) -> bool:
        """Whether `path` must be written: it is no file name that could default to the mount."""
        return self in _NEED_PATH


_PRIVATE = frozenset((ExportMode.PRIVATE, ExportMode.PRIVATE_FILE, ExportMode.PRIVATE_RESTRICTED))
_READ_ONLY = frozenset((ExportMode.RESTRICTED, ExportMode.RESTRICTED_FILE,
                        ExportMode.PRIVATE_RESTRICTED))
_FILES = frozenset((ExportMode.PUBLIC_FILE, ExportMode.RESTRICTED_FILE, ExportMode.PRIVATE_FILE))
_BINDS = _PRIVATE | _READ_ONLY | _FILES | {ExportMode.PUBLIC}
_PATHLESS = frozenset((ExportMode.ANONYMOUS, ExportMode.TMPFS, ExportMode.PROCFS,
                       ExportMode.DEVFS, ExportMode.MQUEUE, ExportMode.LOCK))
_NEED_PATH = frozenset((ExportMode.SYMLINK, ExportMode.EXECFD, ExportMode.INTERNAL))


class EnvironMode(enum.Enum):
    """Where the value of a variable comes from (design, "Environ modes")."""

    DEFAULT = "Default"
    STATIC = "Static"
    EXECFD = "Execfd"
    REMOVE = "Remove"
    INHERIT = "Inherit"

    @property
    def has_value(self) -> bool:
        """Whether an entry of this mode carries a value."""
        return self not in (EnvironMode.REMOVE, EnvironMode.INHERIT)


class CapabilityAction(enum.Enum):
    """What an entry of `capabilities` does; in the file it is the boolean `add`."""

    ADD = "add"
    DROP = "drop"


class Rule(enum.Enum):
    """How the values of a family become one (design, "Merge")."""

    OLDEST = "the oldest node that sets it wins; redmain gives the default"
    TIGHTEN = "a descendant may tighten it, never loosen it; redmain gives the default"
    CUMULATE = "all nodes cumulate, leaf first, redmain last; duplicates are dropped"
    OWN = "each node has its own"


@dataclass(frozen=True)
class Export:
    """One entry of `exports`. `path` is as written: empty when it is missing."""

    mode: ExportMode
    mount: str
    path: str
    info: str
    warn: str
    origin: Origin
    optional: bool = False  # left out silently where the source does not exist


@dataclass(frozen=True)
class Variable:
    """One entry of `environ`. `value` is as written."""

    key: str
    value: str
    mode: EnvironMode
    info: str
    warn: str
    origin: Origin


@dataclass(frozen=True)
class Capability:
    """One entry of `capabilities`: `cap` is a name such as CAP_NET_ADMIN, or "all"."""

    cap: str
    action: CapabilityAction
    info: str
    warn: str
    origin: Origin


@dataclass(frozen=True)
class Headers:
    """Who a node is."""

    alias: str = ""
    name: str = ""
    info: str = ""


@dataclass(frozen=True)
class Tag:
    """One key of `config`: `key` is dotted below `cgroups`, `default` None is "not set"."""

    key: str
    attribute: str
    kind: Kind
    rule: Rule
    help: str
    default: Any
    is_list: bool
    tighten: constraints.Tighten | None
    expands: bool  # whether $NAME in it is expanded

    @property
    def group(self) -> tuple[str, ...]:
        """The names of the mappings the key stands in."""
        return tuple(self.key.split(".")[:-1])


def tag(key: str, kind: Kind, help_text: str, *, rule: Rule = Rule.OLDEST, default: Any = None,
        tighten: constraints.Tighten | None = None, is_list: bool = False,
        expands: bool = False) -> Any:
    """Declare a configuration key; the result is a dataclass field that is None (or empty)."""
    if tighten is not None:
        rule = Rule.TIGHTEN
    return field(default=() if is_list else None, metadata={"tag": {
        "key": key, "kind": kind, "rule": rule, "help": help_text, "default": default,
        "is_list": is_list, "tighten": tighten, "expands": expands}})


def _share(what: str) -> Any:
    return tag(f"share_{what}", kinds.SHARE,
               f"Whether the caller's {what} namespace is shared, or the one to join.",
               tighten=constraints.less_sharing, expands=True)


@dataclass(frozen=True)
class Tags:
    """The values of `config` (and `enforce`). None, or an empty list, is "not set"."""

    rpmdir: str | None = tag(
        "rpmdir", kinds.PATH, "Where the rpmdb is; relative to the node, in main.yaml to the "
        "directory of that file.", rule=Rule.OWN, expands=True)
    persistdir: str | None = tag(
        "persistdir", kinds.PATH, "Where dnf keeps its state, relative to the node.",
        rule=Rule.OWN, expands=True)
    cachedir: str | None = tag(
        "cachedir", kinds.PATH, "Where dnf keeps its caches, relative to the node.",
        rule=Rule.OWN, expands=True)
    path: tuple[str, ...] = tag(
        "path", kinds.PATH, "Directories of PATH.", rule=Rule.CUMULATE, is_list=True,
        expands=True)
    ldpath: tuple[str, ...] = tag(
        "ldpath", kinds.PATH, "Directories of LD_LIBRARY_PATH.", rule=Rule.CUMULATE,
        is_list=True, expands=True)
    derived_files: tuple[str, ...] = tag(
        "derived-files", kinds.PATH, "Shell patterns (* matches / too) of files that triggers "
        "derive from others: a transaction keeps no copy of them that no package owns.",
        rule=Rule.CUMULATE, is_list=True)
    umask: int | None = tag("umask", kinds.UMASK, "The file mode creation mask, in octal.")
    hostname: str | None = tag(
        "hostname", kinds.LINE, "The host name in the namespace.", expands=True)
    chdir: str | None = tag(
        "chdir", kinds.PATH, "The directory the application starts in.", expands=True)
    verbose: bool | None = tag("verbose", kinds.BOOL, "Say what is done.", default=False)
    maxage: int | None = tag(
        "maxage", kinds.integer(0, 36500, "a number of days"), "Days since the node was last "
        "proven coherent, after which it no longer starts.", tighten=constraints.lower_number)
    inherit: bool | None = tag(
        "inherit", kinds.BOOL, "false drops what the node would get from its ancestors' exports; "
        "redmain's stay.", rule=Rule.OWN, default=True)
    gpgcheck: bool | None = tag(
        "gpgcheck", kinds.BOOL, "Packages must be signed by a key the family trusts.",
        tighten=constraints.stay_true)
    unsafe: bool | None = tag(
        "unsafe", kinds.BOOL, "Run what the safety checks would refuse.",
        tighten=constraints.stay_false, default=False)
    inherit_env: bool | None = tag(
        "inherit-env", kinds.BOOL, "The caller's environment is inherited.", default=True)
    map_root_user: bool | None = tag(
        "map-root-user", kinds.BOOL, "The application sees itself as root.", default=False)
    die_with_parent: bool | None = tag(
        "die-with-parent", kinds.BOOL, "The application is killed when its caller dies.",
        default=False)
    new_session: bool | None = tag(
        "new-session", kinds.BOOL, "The application gets a terminal session of its own.",
        default=False)
    set_user: str | None = tag(
        "set-user", kinds.LINE, "The user, name or number, the application runs as.",
        expands=True)
    set_group: str | None = tag(
        "set-group", kinds.LINE, "The group, name or number, the application runs as.",
        expands=True)
    smack: str | None = tag(
        "smack", kinds.LINE, "The SMACK label of the application.", expands=True)
    seccomp: str | None = tag(
        "seccomp", kinds.SECCOMP, "default, none, or the file of a compiled system call filter.",
        tighten=constraints.keep_filter, expands=True)
    share_all: Share | None = tag(
        "share_all", kinds.SHARE, "What holds for each namespace the same file does not name.",
        tighten=constraints.less_sharing, expands=True)
    share_user: Share | None = _share("user")
    share_cgroup: Share | None = _share("cgroup")
    share_net: Share | None = _share("net")
    share_pid: Share | None = _share("pid")
    share_ipc: Share | None = _share("ipc")
    share_time: Share | None = _share("time")
    cgrouproot: str | None = tag(
        "cgrouproot", kinds.PATH, "The control group below which the family's are made.",
        expands=True)
    cpuset_cpus: str | None = tag(
        "cgroups.cpuset.cpus", kinds.CPUS, "Processors the node may use.",
        tighten=constraints.fewer_cpus)
    cpuset_mems: str | None = tag(
        "cgroups.cpuset.mems", kinds.CPUS, "Memory nodes the node may use.",
        tighten=constraints.fewer_cpus)
    cpuset_partition: kinds.Partition | None = tag(
        "cgroups.cpuset.cpus_partition", kinds.PARTITION, "The kind of cpuset partition.")
    mem_max: str | None = tag(
        "cgroups.mem.max", kinds.SIZE, "Hard limit of memory.", tighten=constraints.lower_limit)
    mem_high: str | None = tag(
        "cgroups.mem.high", kinds.SIZE, "Memory above which the node is slowed down.",
        tighten=constraints.lower_limit)
    mem_min: str | None = tag("cgroups.mem.min", kinds.SIZE, "Memory that is never reclaimed.")
    mem_low: str | None = tag("cgroups.mem.low", kinds.SIZE, "Memory that is reclaimed last.")
    mem_oom_group: bool | None = tag(
        "cgroups.mem.oom_group", kinds.BOOL, "Out of memory kills all of the node's processes.")
    mem_swap_high: str | None = tag(
        "cgroups.mem.swap_high", kinds.SIZE, "Swap above which the node is slowed down.",
        tighten=constraints.lower_limit)
    mem_swap_max: str | None = tag(
        "cgroups.mem.swap_max", kinds.SIZE, "Hard limit of swap.",
        tighten=constraints.lower_limit)
    cpu_weight: int | None = tag(
        "cgroups.cpu.weight", kinds.integer(1, 10000), "Share of processor time under load.")
    cpu_weight_nice: int | None = tag(
        "cgroups.cpu.weight_nice", kinds.integer(-20, 19), "The same, as a nice value.")
    cpu_max: str | None = tag(
        "cgroups.cpu.max", kinds.CPU_MAX, "Microseconds of processor time in each period.",
        tighten=constraints.less_cpu_time)
    io_cost_qos: tuple[str, ...] = tag(
        "cgroups.io.cost_qos", kinds.LINE, "Quality of service of a device (io.cost.qos).",
        is_list=True)
    io_cost_model: tuple[str, ...] = tag(
        "cgroups.io.cost_model", kinds.LINE, "Cost model of a device (io.cost.model).",
        is_list=True)
    io_weight: tuple[str, ...] = tag(
        "cgroups.io.weight", kinds.IO_WEIGHT, "Share of io under load, default or by device.",
        is_list=True)
    io_max: tuple[str, ...] = tag(
        "cgroups.io.max", kinds.IO_MAX, "Limits of a device, such as 8:16 rbps=2097152.",
        is_list=True, tighten=constraints.lower_io)
    pids_max: str | None = tag(
        "cgroups.pids.max", kinds.COUNT_MAX, "Most processes at one time.",
        tighten=constraints.lower_limit)


def _declared() -> tuple[Tag, ...]:
    return tuple(Tag(attribute=member.name, **member.metadata["tag"]) for member in fields(Tags))


TAGS: tuple[Tag, ...] = _declared()
TAG_OF_KEY: Mapping[str, Tag] = {declared.key: declared for declared in TAGS}
NAMESPACES = ("user", "cgroup", "net", "pid", "ipc", "time")


@dataclass(frozen=True)
class Settings:
    """A `config` or `enforce` section: values, where each was written, and capabilities.

    `origins` has, by key, the place of what is set; of a list, the place of each element.
    """

    tags: Tags = field(default_factory=Tags)
    origins: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    capabilities: tuple[Capability, ...] = ()


@dataclass(frozen=True)
class NodeConfig:
    """One configuration file. `file` is its path; `enforce` is empty except in main files."""

    file: str
    headers: Headers = field(default_factory=Headers)
    settings: Settings = field(default_factory=Settings)
    exports: tuple[Export, ...] = ()
    environ: tuple[Variable, ...] = ()
    enforce: Settings = field(default_factory=Settings)

    @property
    def tags(self) -> Tags:
        """The values of `config`."""
        return self.settings.tags


@dataclass(frozen=True)
class AdminConfig:
    """An administrative file, and who owns it: only root's may loosen constraints."""

    config: NodeConfig
    owner_uid: int

    @property
    def may_loosen(self) -> bool:
        """Whether it may set a constraint to a looser value than normal configuration does."""
        return self.owner_uid == 0


@dataclass(frozen=True)
class Key:
    """One key of a mapping other than `config`: of a section's entries, of the headers."""

    name: str
    kind: Kind
    help: str
    mandatory: bool = False


MODE = kinds.choice(ExportMode, "an export mode")
ENVIRON_MODE = kinds.choice(EnvironMode, "an environ mode", expanded=EnvironMode.DEFAULT)

EXPORT_KEYS = (
    Key("mode", MODE, "How the export appears in the namespace.", mandatory=True),
    Key("mount", kinds.PATH, "Where it appears, an absolute path.", mandatory=True),
    Key("path", kinds.TEXT, "The source; missing means the same path as mount."),
    Key("info", kinds.TEXT, "What it is, for people."),
    Key("warn", kinds.TEXT, "A warning shown when it is used."),
    Key("optional", kinds.BOOL, "true leaves the entry out where its source does not exist."),
)
VARIABLE_KEYS = (
    Key("key", kinds.VARIABLE, "The name of the variable.", mandatory=True),
    Key("value", kinds.TEXT, "Its value, or the command that prints it."),
    Key("mode", ENVIRON_MODE, "Where the value comes from; Default when missing."),
    Key("info", kinds.TEXT, "What it is, for people."),
    Key("warn", kinds.TEXT, "A warning shown when it is used."),
)
CAPABILITY_KEYS = (
    Key("cap", kinds.CAPABILITY, "The capability, such as CAP_NET_ADMIN, or all.",
        mandatory=True),
    Key("add", kinds.BOOL, "true keeps the capability, false drops it.", mandatory=True),
    Key("info", kinds.TEXT, "What it is for, for people."),
    Key("warn", kinds.TEXT, "A warning shown when it is used."),
)
HEADER_KEYS = (
    Key("alias", kinds.ALIAS_KIND, "The short name, unique in the family.", mandatory=True),
    Key("name", kinds.LINE, "The globally unique name, a UUID."),
    Key("info", kinds.TEXT, "What the node is, for people."),
)
SECTIONS = {
    "headers": "Who the node is.",
    "config": "The tags: what the namespace is and which limits hold.",
    "exports": "What is mounted.",
    "environ": "Which variables are set.",
    "enforce": "In main.yaml only: the constraints of the whole machine, keys as in config.",
}
