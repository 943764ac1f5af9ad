# SPDX-License-Identifier: Apache-2.0
"""The kept launch plan: what the launcher carries out again as long as nothing has changed.

A plan stands for one caller, one command line and one state of every file it came from. Beside what
is to be done (redwrap.encode) it has the conditions under which that is still right, which the
launcher checks (launcher/check.c): the key of who asks, device, inode, size, mtime and ctime of
every file it came from, the variables and names it depends on, the paths that must not exist.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence

from redpak.effective import EffectiveConfig
from redpak.errors import TYPE_CHECKING
from redpak.family import Family
from redpak.node import CONFIG_FILES, STATUS_FILE
from redpak.osrelease import OS_RELEASE_FILES
from redpak.schema import EnvironMode
from redpak.values import dataclass
from redwrap.encode import Record, write_records
from redwrap.operations import Bind, ControlGroups, Data, Overlay, Seccomp, SmackLabel
from redwrap.plan import LaunchPlan
from redwrap.sources import links_to_check

if TYPE_CHECKING:
    from typing import Optional

PLAN_FILE = "launch"
# A file changed this shortly before (ns) may change again without a new time stamp; the second is
# for file systems without parts of a second in theirs, vfat's are of two.
_RACY_NS, _COARSE_RACY_NS = 50_000_000, 2_050_000_000
# Names whose value is another at each launch; commands get them from the launcher.
VOLATILE = frozenset(("PID", "UUID", "TODAY"))
# Names that have a value whatever the environment says: redpak.expand.family_names, own_names.
_FIXED_NAMES = frozenset((
    "NODE_ALIAS", "NODE_NAME", "NODE_PATH", "NODE_INFO", "LEAF_ALIAS", "LEAF_NAME", "LEAF_PATH",
    "LEAF_INFO", "FAMILY_ALIASES", "UID", "GID", "PID", "USER", "LOGNAME", "HOSTNAME", "TODAY",
    "UUID", "redpak_MAIN"))
# What the environment of an Execfd command has and no file of the family gives.
_COMMAND_NAMES = frozenset(("HOSTNAME", "USER", "REDPESK_VERSION", "redpak_TMPL", "NODE_PREFIX",
                            "CGROUPS_MOUNT_POINT"))
_ACCOUNTS = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")


@dataclass(frozen=True)
class Context:
    """What a plan depends on beside the plan itself."""

    key: str
    launcher: str
    redpath: str  # as the caller wrote it
    family: Family
    config: EffectiveConfig
    environ: Mapping[str, str]
    messages: Sequence[str]  # what is said at each launch
    bwrap_named: bool  # by --bwrap, not found along PATH
    started: int  # ns since 1970, before the first file was read


def inherited_names(environ: Mapping[str, str]) -> frozenset[str]:
    """The names that mean what the caller's environment says, whatever the family."""
    return frozenset(name for name in environ if name not in _FIXED_NAMES | _COMMAND_NAMES
                     and not name.startswith("REDNODE_"))


def is_lasting(plan: LaunchPlan, config: EffectiveConfig) -> bool:
    """Whether the next launch could use the plan: it does not change each time, and the launcher
    can do all of it."""
    return not config.used_names & VOLATILE and not plan.is_passing and not any(
        isinstance(step, (ControlGroups, SmackLabel)) or
        # What no export asked for is from a file that only this launch has.
        (isinstance(step, Data) and step.origin is None) for step in plan.operations)


def list_conditions(plan: LaunchPlan, context: Context) -> Optional[list[Record]]:
    """What must hold for the plan; None when a file of it was changed just now."""
    states = [_state(path, context.started) for path in _files(plan, context)]
    found = [state for state in states if state is not None]
    if len(found) < len(states):
        return None
    return [("key", context.key), *(("say", text) for text in context.messages), *found,
            *_conditions(plan, context), *_paths(plan, context)]


def _files(plan: LaunchPlan, context: Context) -> Iterator[str]:
    """Every file that the plan came from, or would if it were there; a link and what it leads to.
    """
    family, tags, used = context.family, context.config.tags, _used_names(plan, context)
    found = [family.main.file, plan.bwrap, context.launcher, os.path.abspath(__file__)]
    for node in family.nodes:
        found += [node.status_file, node.config_file]
    found += [context.redpath + "/.rednode.yaml", *plan.depends_on]
    found += [step.profile for step in plan.operations
              if isinstance(step, Seccomp) and step.profile.startswith("/")]
    if used & {"USER", "LOGNAME"} or tags.set_user or tags.set_group:
        found += _ACCOUNTS
    if "REDPESK_VERSION" in used:
        found += OS_RELEASE_FILES
    for path in dict.fromkeys(found):
        yield path
        if os.path.realpath(path) != path:
            yield os.path.realpath(path)


def _used_names(plan: LaunchPlan, context: Context) -> frozenset[str]:
    """The names that the plan's values depend on; a command may look at any."""
    used = context.config.used_names
    inherited = {variable.key for variable in context.config.environ
                 if variable.mode is EnvironMode.INHERIT}
    return used | inherited | (_COMMAND_NAMES if plan.commands else frozenset())


def _state(path: str, started: int) -> Optional[Record]:
    """What must be so of `path`; None when it was changed just now, or cannot be looked at."""
    try:
        status = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    except (FileNotFoundError, NotADirectoryError):
        return ("absent", path)
    except OSError:
        return None
    racy = _RACY_NS if status.st_ctime_ns % 10**9 else _COARSE_RACY_NS
    if status.st_ctime_ns > started - racy:
        return None
    return ("stamp", f"{status.st_dev}:{status.st_ino}:{status.st_size}:"
            f"{_seconds(status.st_mtime_ns)}:{_seconds(status.st_ctime_ns)}", path, target)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def _conditions(plan: LaunchPlan, context: Context) -> Iterator[Record]:
    """Names, and what has a state of its own."""
    used, config = _used_names(plan, context), context.config
    for name in sorted(used - _FIXED_NAMES):
        if name in context.environ:
            yield ("set", name, context.environ[name])
        else:
            yield ("unset", name)
    if "HOSTNAME" in used:
        yield ("hostname", os.uname().nodename)
    if config.tags.maxage is not None:
        oldest = min(node.status.timestamp for node in context.family.nodes)
        yield ("until", str(oldest // 1000 + config.tags.maxage * 86_400))


def _paths(plan: LaunchPlan, context: Context) -> Iterator[Record]:
    """What must be there, and what must not."""
    if not context.bwrap_named:
        for path in bwraps_along(context.environ):
            if os.path.abspath(path) == plan.bwrap:
                break
            yield ("no-tool", path)
    for path in _absent_files(context.family):
        yield ("absent", path)
    for bind in plan.left_out:
        yield ("missing", bind.source)
    for path, found in plan.looked_at.items():
        yield ("looked", path, found)
    for path, may in plan.writable.items():
        yield ("writable", path, "yes" if may else "no")
    for mount in plan.mounts:
        if isinstance(mount, Bind) and (mount.file_only or mount.optional):
            yield ("present", mount.source, "file" if mount.file_only else "any")
        elif isinstance(mount, Overlay) and mount.writes:
            yield ("present", f"{mount.writes}/upper", "any")
            yield ("writable", mount.writes, "yes")
    for path in links_to_check(plan.mounts):
        yield ("no-link", path)


def bwraps_along(environ: Mapping[str, str]) -> list[str]:
    """Where the absolute directories of PATH would have bwrap."""
    return [os.path.join(directory, "bwrap") for directory in environ.get(
        "PATH", os.defpath).split(":") if directory.startswith("/")]


def _absent_files(family: Family) -> Iterator[str]:
    """Files that would change the family if they appeared."""
    nodes = {node.path for node in family.nodes}
    directory = os.path.dirname(family.leaf.path)
    while directory != "/":
        if directory not in nodes:
            yield f"{directory}/{STATUS_FILE}"
        directory = os.path.dirname(directory)
    for node in family.nodes:
        for name in CONFIG_FILES:
            path = f"{node.path}/{name}"
            if path == node.config_file:
                break
            yield path
        yield f"{node.state_dir}/journal"


def store_plan(records: Sequence[Record], context: Context) -> None:
    """Keep the plan: in the node when it is the caller's own, else in the caller's cache.

    Its commands will be run, so it must lie where nobody but the caller can write. That it cannot
    be kept is no error: the next launch is a slow one.
    """
    cached = cache_directory(context.redpath, context.environ)
    data = write_records(records)
    for directory in (f"{context.redpath}/.redpak", cached):
        if not directory or not is_own_directory(directory, create=directory == cached):
            continue
        try:
            _replace(f"{directory}/{PLAN_FILE}", data)
        except OSError:
            continue
        return


def _replace(path: str, data: bytes) -> None:
    """Not synced to the disk: a plan that a power failure tears has no proper end and is not used,
    and waiting for the disk would cost more than the plan saves."""
    temporary = f"{path}.{os.getpid()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        try:
            os.write(fd, data)
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def cache_directory(path: str, environ: Mapping[str, str]) -> str:
    """Where the caller keeps what belongs to somebody else's node at `path` (as launcher.c has it);
    "" when he has no home."""
    if environ.get("XDG_CACHE_HOME", "").startswith("/"):
        return f"{environ['XDG_CACHE_HOME']}/redpak{path}"
    if environ.get("HOME", "").startswith("/"):
        return f"{environ['HOME']}/.cache/redpak{path}"
    return ""


def is_own_directory(directory: str, *, create: bool = False) -> bool:
    """Whether nobody but the caller can write in a directory."""
    try:
        if create:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.stat(directory)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022
