# SPDX-License-Identifier: Apache-2.0
"""The launch plan: what the effective configuration of a family means for bwrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby

from redpak.effective import EffectiveConfig, EffectiveExport, EffectiveVariable
from redpak.errors import TYPE_CHECKING
from redpak.family import Family
from redpak.findings import Origin
from redpak.kinds import Share, ShareState
from redpak.load import REDMAIN
from redpak.schema import NAMESPACES, CapabilityAction, EnvironMode, ExportMode
from redpak.values import dataclass, field
from redwrap.cgroups import plan_control_groups
from redwrap.errors import LaunchError
from redwrap.identity import Identity
from redwrap.operations import (
    Bind,
    Command,
    Data,
    FileSystem,
    Flag,
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
    UnsetVariable,
)
from redwrap.sources import check_own_files, is_below

if TYPE_CHECKING:
    from typing import Optional

MOST_HOSTNAME = 64  # bytes: sethostname(2)
FIRST_FD = 3  # of the files whose content comes through a descriptor


@dataclass(frozen=True)
class LaunchPlan:
    """The steps of a launch, in the order they are handed to bwrap."""

    bwrap: str
    operations: tuple[Operation, ...]
    search: str  # PATH in the namespace
    directory: str  # where the application starts; "" is the caller's directory
    left_out: tuple[Bind, ...] = ()  # optional mounts whose source does not exist
    looked_at: Mapping[str, str] = field(default_factory=dict)  # paths, and what is there
    writable: Mapping[str, bool] = field(default_factory=dict)  # whether the caller may write there
    depends_on: tuple[str, ...] = ()  # files and directories whose change makes it another plan
    is_passing: bool = False  # whether it is good for this launch only

    @property
    def mounts(self) -> list[Mount]:
        """The steps that put something at a path."""
        return [step for step in self.operations if isinstance(step, Mount)]

    @property
    def has_overlays(self) -> bool:
        """Whether directories are stacked: then much more can go wrong."""
        return any(isinstance(step, Overlay) for step in self.operations)

    @property
    def commands(self) -> list[Command]:
        """The shell commands to run before the start."""
        return [step.command for step in self.operations
                if isinstance(step, (Data, SetVariable)) and step.command is not None]


_FILE_SYSTEMS = {
    # A tmpfs, not a plain directory: below a bind a directory would be made on the host, and
    # other applications would see it.
    ExportMode.ANONYMOUS: "--tmpfs",
    ExportMode.TMPFS: "--tmpfs",
    ExportMode.PROCFS: "--proc",
    ExportMode.DEVFS: "--dev",
    ExportMode.MQUEUE: "--mqueue",
}
DEFAULT_PATH = "/usr/sbin:/usr/bin"


class PlanBuilder:
    """Builds the plan of one launch; pure: it reads no file."""

    def __init__(self, family: Family, config: EffectiveConfig, environ: Mapping[str, str], *,
                 uid: int, user: Identity) -> None:
        self._family = family
        self._uid = uid
        self._user = user
        self._config = config
        self._tags = config.tags
        self._environ = environ
        self._names = config.names
        # Longest first: the node that a source lies in, not the ancestor above it.
        self._nodes = sorted((node.path for node in family.nodes), key=len, reverse=True)
        taken = {export.path for export in config.exports if export.mode is ExportMode.INTERNAL}
        self._fds = (fd for fd in count(FIRST_FD) if str(fd) not in taken)

    def build(self, bwrap: str) -> LaunchPlan:
        """The whole plan. Raises LaunchError."""
        mounts = [self._mount(*stack) for _, stack in groupby(
            self._config.exports, key=lambda export: export.mount)]
        check_own_files(mounts, self._nodes)
        variables = list(self._variables())
        search = next((step.value for step in reversed(variables)
                       if isinstance(step, SetVariable) and step.key == "PATH"), DEFAULT_PATH)
        operations = (
            *self._confinement(), *self._namespaces(), *self._identity(), *self._process(),
            *variables, *self._mark(mounts), *mounts, *self._placing())
        return LaunchPlan(bwrap, operations, search, self._tags.chdir or "")

    def _origin(self, key: str) -> Optional[Origin]:
        known = self._config.provenance.get(key)
        return known.origin if known is not None else None

    def _wrong(self, key: str, message: str, hint: str) -> LaunchError:
        origin = self._origin(key)
        node = f" (node {origin.node})" if origin is not None else ""
        return LaunchError(f"{origin}: config.{key}: {message}{node}", hint=hint)

    def _share(self, namespace: str) -> Share:
        share: Optional[Share] = getattr(self._tags, f"share_{namespace}") or self._tags.share_all
        return share or Share(ShareState.DISABLED)

    def _namespaces(self) -> Iterator[Operation]:
        for namespace in NAMESPACES:
            yield from self._namespace(namespace, self._share(namespace))
        hostname = self._tags.hostname
        # There is no tag for the uts namespace: it is shared when everything else is.
        if hostname or self._share("all").state is not ShareState.ENABLED:
            yield Flag(None, ("--unshare-uts",))
        if hostname:
            if len(hostname.encode()) > MOST_HOSTNAME:
                raise self._wrong("hostname", f"{hostname} is too long a name",
                                  f"write at most {MOST_HOSTNAME} bytes")
            yield Flag(self._origin("hostname"), ("--hostname", hostname))

    def _namespace(self, namespace: str, share: Share) -> Iterator[Operation]:
        origin = self._origin(f"share_{namespace}")
        if share.state is ShareState.JOIN:
            if namespace == "pid":
                self._check_pid(share, origin)
            if namespace in ("user", "pid"):
                yield JoinByFd(origin, namespace, share.path, next(self._fds))
            else:
                yield Join(origin, namespace, share.path)
        elif namespace == "user":
            if share.state is ShareState.DISABLED or self._needs_user_namespace():
                yield Flag(origin, ("--unshare-user",))
        elif share.state is ShareState.DISABLED:
            if namespace != "time":
                yield Flag(origin, (f"--unshare-{namespace}",))
            elif "share_time" in self._config.provenance:
                yield NewTime(origin)

    def _check_pid(self, share: Share, origin: Optional[Origin]) -> None:
        """setns(2) asks for rights over the user namespace that the pid namespace was made in; who
        is in a new one has none outside."""
        user = self._share("user").state
        if user is ShareState.JOIN or (
                user is ShareState.ENABLED and not self._needs_user_namespace()):
            return
        why, hint = "from a new user namespace", "say share_user: enabled without map-root-user, or"
        if self._uid != 0:
            why, hint = "by an ordinary user alone", "run red-wrap as root, or say"
        raise LaunchError(
            f"{origin}: config.share_pid: {share.path} cannot be joined {why} "
            f"(node {origin and origin.node})",
            hint=f"{hint} share_user: the user namespace that it was made in, as /proc/PID/ns/user")

    def _needs_user_namespace(self) -> bool:
        """An ordinary user gets nothing without one; --uid and --gid need one of their own."""
        return self._uid != 0 or bool(self._tags.map_root_user)

    def _identity(self) -> Iterator[Operation]:
        """Who the application is: root becomes another user for good, others only look like it."""
        uid, gid = self._user.uid, self._user.gid
        origin = self._origin("set-user") or self._origin("set-group")
        if self._tags.map_root_user:
            yield Flag(self._origin("map-root-user"), ("--uid", "0", "--gid", "0"))
        elif self._user.changes and self._uid != 0:
            yield Flag(origin, ("--uid", str(uid), "--gid", str(gid)))
        if self._user.changes and self._uid == 0:
            yield RunAs(origin, uid, gid)

    def _process(self) -> Iterator[Operation]:
        if self._tags.die_with_parent:
            yield Flag(self._origin("die-with-parent"), ("--die-with-parent",))
        if self._tags.new_session:
            yield Flag(self._origin("new-session"), ("--new-session",))
        # bwrap lets root keep every capability, with which it could remount what is read-only.
        yield Flag(None, ("--cap-drop", "ALL"))
        for capability in self._config.capabilities:
            option = "--cap-add" if capability.action is CapabilityAction.ADD else "--cap-drop"
            yield Flag(capability.origin, (option, capability.cap.upper()))

    def _variables(self) -> Iterator[Operation]:
        if self._tags.inherit_env is False:
            yield Flag(self._origin("inherit-env"), ("--clearenv",))
        lists = {"PATH": self._tags.path, "LD_LIBRARY_PATH": self._tags.ldpath}
        for variable in self._config.environ:
            # The tags path and ldpath own these two.
            if lists.get(variable.key):
                continue
            step = self._variable(variable)
            if step is not None:
                yield step
        for key, directories in lists.items():
            if directories:
                tag = "path" if key == "PATH" else "ldpath"
                yield SetVariable(self._origin(tag), key, ":".join(directories))

    def _variable(self, variable: EffectiveVariable) -> Optional[Operation]:
        mode, origin, key = variable.mode, variable.origin, variable.key
        if mode is EnvironMode.REMOVE:
            return UnsetVariable(origin, key)
        if mode is EnvironMode.INHERIT:
            if key not in self._environ:
                return None
            return SetVariable(origin, key, self._environ[key])
        if mode is EnvironMode.EXECFD:
            command = Command(variable.value, self._names[variable.node], origin, f"variable {key}")
            return SetVariable(origin, key, "", command)
        return SetVariable(origin, key, variable.value)

    def _mark(self, mounts: Sequence[Mount]) -> Iterator[Operation]:
        if any(isinstance(mount, Overlay) for mount in mounts):
            leaf = self._family.leaf
            yield Running(None, leaf.state_dir, leaf.path, tuple(
                f"{node.state_dir}/journal" for node in self._family.nodes))

    def _mount(self, *stack: EffectiveExport) -> Mount:
        """The mount of one export, or of the layers of an overlay, the bottom one first."""
        export = stack[-1]
        mode, origin, mount = export.mode, export.origin, export.mount
        if mode in _FILE_SYSTEMS:
            return FileSystem(origin, mount, _FILE_SYSTEMS[mode])
        if mode is ExportMode.SYMLINK:
            return Symlink(origin, mount, export.path)
        if mode is ExportMode.LOCK:
            return Lock(origin, mount)
        if mode is ExportMode.INTERNAL:
            return Data(origin, mount, self._internal(export), None)
        if mode is ExportMode.EXECFD:
            command = Command(export.path, self._names[export.node], origin, f"mount {mount}")
            return Data(origin, mount, next(self._fds), command)
        if mode.is_overlay:
            layers = tuple((layer.path, self._base(layer.path)) for layer in reversed(stack))
            writes = ""
            if mode is ExportMode.OVERLAY_PRIVATE:
                # "/" cannot be part of a name; "%" keeps /a/b and /a%b apart.
                name = mount.strip("/").replace("%", "%%").replace("/", "%")
                writes = f"{self._family.leaf.private_dir}/overlay/{name}"
            optional = tuple(layer.path for layer in stack if layer.optional)
            return Overlay(origin, mount, layers, writes, self._family.leaf.path, optional)
        return Bind(origin, mount, export.path, writable=not mode.is_read_only,
                    file_only=mode.is_file, optional=export.optional,
                    base=self._base(export.path))

    def _base(self, source: str) -> str:
        return next((node for node in self._nodes if is_below(source, node)), "")

    def _internal(self, export: EffectiveExport) -> int:
        if not (export.path.isascii() and export.path.isdigit()):
            raise LaunchError(f"{export.origin}: mount {export.mount}: {export.path} is not the "
                              f"number of a file descriptor (node {export.origin.node})",
                              hint="write path: N, and start red-wrap with N open")
        return int(export.path)

    def _placing(self) -> Iterator[Operation]:
        if self._tags.chdir:
            if not self._tags.chdir.startswith("/"):
                raise self._wrong("chdir", f"{self._tags.chdir} is not absolute",
                                  "write a path of the namespace, from /")
            yield Flag(self._origin("chdir"), ("--chdir", self._tags.chdir))
        if self._tags.umask is not None:
            yield Umask(self._origin("umask"), self._tags.umask)

    def _confinement(self) -> Iterator[Operation]:
        """What red-wrap does in its own process, in the order in which the rights for it last."""
        mount_point = self._names[REDMAIN]["CGROUPS_MOUNT_POINT"]
        groups = plan_control_groups(self._family, self._config, mount_point)
        if groups is not None:
            yield groups
        if self._tags.smack:
            yield SmackLabel(self._origin("smack"), self._tags.smack)
        if self._tags.seccomp and self._tags.seccomp != "none":
            yield Seccomp(self._origin("seccomp"), self._tags.seccomp, next(self._fds))
