# SPDX-License-Identifier: Apache-2.0
"""The compiled launch plan: a shell script that the warm path (red-wrap) checks and runs.

A plan stands for one caller, one command line and one state of every file it came from. It holds

- plan_key: who asks, with which options (made by red-wrap itself),
- plan_unchanged: the environment and the paths it depends on are as they were,
- plan_stamps, plan_expected: device, inode, size, mtime and ctime of every file it came from,
- plan_host, plan_search: where a command of the namespace is on the host,
- plan_run: the Execfd commands, then bwrap with its arguments.

Form by measurement: on the reference machine python3 needs 7 ms before its first line, a shell
with one stat(1) 2 ms.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from redpak.effective import EffectiveConfig
from redpak.errors import RedpakError
from redpak.family import Family
from redpak.files import write_file_atomic
from redpak.node import CONFIG_FILES, STATUS_FILE
from redpak.schema import EnvironMode
from redwrap.execfd import SHELL, find_runner
from redwrap.mounts import SplitPlan, split_plan, wants_mounter
from redwrap.operations import Bind, Command, Data, Operation, SetVariable, Symlink, Umask
from redwrap.plan import FIRST_FD, RESTORE_SIGNALS, LaunchPlan
from redwrap.sources import is_below, links_to_check

MAGIC = "#redpak-launch-plan 1"
PLAN_FILE = "launch"
_STAT = "/usr/bin/stat"
_FORMAT = "%d:%i:%s:%.9Y:%.9Z %N"
# A POSIX shell redirects descriptors of one digit only; 9 it needs itself.
_LAST_FD = 8
_PYTHON = "/usr/bin/python3"
# As a module, not as a script: only a module's compiled form is kept.
_MOUNTER = (f"import sys; sys.path.append({os.path.dirname(os.path.abspath(__file__))!r}); "
            "import mounter; mounter.main(sys.argv[1:])")
# Bytes of a command's output that the shell handles: they fit into a pipe (pipe(7)), and reading
# them byte by byte costs less than another process. redwrap_read has the same limit.
_LONGEST_OUTPUT = 8000
# A file changed this shortly before (ns) may change again without a new time stamp.
_RACY_NS = 50_000_000
# Names whose value is another at each launch.
_VOLATILE = frozenset(("PID", "UUID", "TODAY"))
# Names that have a value whatever the environment says: redpak.expand.family_names, own_names.
_FIXED_NAMES = frozenset((
    "NODE_ALIAS", "NODE_NAME", "NODE_PATH", "NODE_INFO", "LEAF_ALIAS", "LEAF_NAME", "LEAF_PATH",
    "LEAF_INFO", "FAMILY_ALIASES", "UID", "GID", "PID", "USER", "LOGNAME", "HOSTNAME", "TODAY",
    "UUID", "redpak_MAIN"))
# What the environment of an Execfd command has and no file of the family gives.
_COMMAND_NAMES = frozenset(("HOSTNAME", "USER", "REDPESK_VERSION", "redpak_TMPL"))
# Variables that a shell sets itself.
_SHELL_NAMES = frozenset(("PWD", "OLDPWD", "IFS", "OPTIND", "OPTARG", "PPID", "PS1", "PS2", "PS4",
                          "LINENO", "SHLVL", "_", "MAIL", "MAILPATH", "MAILCHECK"))


@dataclass(frozen=True)
class Context:
    """What a plan depends on beside the plan itself."""

    key: str
    redpath: str  # as the caller wrote it
    family: Family
    config: EffectiveConfig
    environ: Mapping[str, str]
    outputs: Sequence[bytes]  # of the plan's commands, this time
    bwrap_named: bool  # by --bwrap, not found along PATH
    started: int  # ns since 1970, before the first file was read


def quote(text: str) -> str:
    """`text` as one word of a shell, whatever is in it."""
    return shlex.quote(text)


def compile_plan(plan: LaunchPlan, context: Context) -> Optional[str]:
    """The script, or None for a plan that only Python can launch or that changes each time."""
    if not _is_compilable(plan, context):
        return None
    files = list(_files(plan, context))
    stamps = [_stamp(path, context.started) for path in files]
    if None in stamps:
        return None
    expected = "".join(f"{stamp}\n" for stamp in stamps)
    parts = [
        MAGIC,
        f"plan_key={quote(context.key)}",
        _function("plan_unchanged", [" &&\n    ".join(_conditions(plan, context))]),
        _function("plan_stamps", [
            f"LC_ALL=C QUOTING_STYLE=literal exec {_STAT} -c {quote(_FORMAT)} -- "
            + " ".join(map(quote, files)) + ' "$redwrap_host"']),
        f"plan_expected={quote(expected)}",
        _function("plan_host", list(_host_lines(plan))),
        _function("plan_search", list(_search_lines(plan))),
        _function("plan_run", list(_run_lines(plan, context))),
    ]
    return "\n".join(parts) + "\n"


def _function(name: str, lines: Sequence[str]) -> str:
    # Not indented: a here-document ends at the start of a line.
    return f"{name}() {{\n" + "".join(f"{line}\n" for line in lines) + "}"


def _is_compilable(plan: LaunchPlan, context: Context) -> bool:
    used = context.config.used_names
    if used & (_VOLATILE | _SHELL_NAMES) or plan.needs_python or plan.is_passing:
        return False
    tags = context.config.tags
    if tags.maxage is not None or tags.verbose:
        return False
    commands = plan.commands
    # Whether they may run at all has been checked: a change of owner or mode changes the ctime.
    if any(find_runner(command, unsafe=True) is not None for command in commands):
        return False
    if len(commands) > _LAST_FD - FIRST_FD + 1 or any("TODAY" in each.text for each in commands):
        return False
    if any(len(output) > _LONGEST_OUTPUT or b"\0" in output for output in context.outputs):
        return False
    files = [step for step in plan.operations if isinstance(step, Data)]
    return all(step.command is not None and step.fd <= _LAST_FD for step in files)


# -- is everything as it was? -----------------------------------------------------------------


def _files(plan: LaunchPlan, context: Context) -> Iterator[str]:
    """Every file that the plan came from; a link and what it leads to."""
    family, used = context.family, _used_names(plan, context)
    found = [family.main.file, plan.bwrap, os.path.abspath(__file__)]
    for node in family.nodes:
        found += [node.status_file, node.config_file]
    found += [context.redpath + "/.rednode.yaml", *plan.depends_on]
    if used & {"USER", "LOGNAME"}:
        found += [path for path in ("/etc/passwd", "/etc/nsswitch.conf") if os.path.exists(path)]
    if "REDPESK_VERSION" in used:
        found += [path for path in ("/etc/os-release", "/usr/lib/os-release")
                  if os.path.exists(path)]
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


def _stamp(path: str, started: int) -> Optional[str]:
    """What stat(1) prints for `path`; None when it is gone or was changed just now."""
    try:
        status = os.lstat(path)
        target = f" -> {os.readlink(path)}" if os.path.islink(path) else ""
    except OSError:
        return None
    if status.st_ctime_ns > started - _RACY_NS or "\n" in target:
        return None
    return (f"{status.st_dev}:{status.st_ino}:{status.st_size}:{_seconds(status.st_mtime_ns)}:"
            f"{_seconds(status.st_ctime_ns)} {path}{target}")


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def _conditions(plan: LaunchPlan, context: Context) -> Iterator[str]:
    """Tests of the shell, all without starting a process."""
    used = _used_names(plan, context)
    for name in sorted(used - _FIXED_NAMES):
        if name in context.environ:
            yield f'[ "${{{name}+x${name}}}" = {quote("x" + context.environ[name])} ]'
        else:
            yield f'[ -z "${{{name}+x}}" ]'
    if "HOSTNAME" in used:
        yield "read -r redwrap_name </proc/sys/kernel/hostname"
        yield f'[ "$redwrap_name" = {quote(os.uname().nodename)} ]'
    if not context.bwrap_named:
        for directory in _searched_before(plan.bwrap, context.environ.get("PATH", os.defpath)):
            yield f"[ ! -x {quote(directory)}/bwrap ]"
    for path in _absent_files(context.family):
        yield f"[ ! -e {quote(path)} ] && [ ! -L {quote(path)} ]"
    # redwrap.mounter finds out itself, when it opens the sources.
    for path in () if wants_mounter(plan) else links_to_check(plan.mounts):
        yield f"[ ! -L {quote(path)} ]"
    for mount in plan.mounts:
        if isinstance(mount, Bind) and (mount.optional or not wants_mounter(plan)):
            yield f"[ -{'f' if mount.file_only else 'e'} {quote(mount.source)} ]"
    for bind in plan.left_out:
        yield f"[ ! -e {quote(bind.source)} ]"
    for path, found in plan.looked_at.items():
        there, kind = f"[ -e {quote(path)} ]", f"[ -d {quote(path)} ] && [ ! -L {quote(path)} ]"
        yield {"nothing": f"! {there}", "directory": kind, "other": f"! {{ {kind}; }}"}[found]


def _searched_before(found: str, search: str) -> Iterator[str]:
    """The directories of PATH that come before the one of `found`."""
    for directory in search.split(":"):
        if os.path.join(directory, "bwrap") == found:
            return
        if directory:
            yield directory


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


# -- where is the command? --------------------------------------------------------------------


def _host_lines(plan: LaunchPlan) -> Iterator[str]:
    """Cases from the deepest mount up: the first that fits is the one the kernel would take."""
    yield "case $1 in"
    yield "*/../* | */./* | *//*) redwrap_host= ;;"
    for mount in sorted(plan.mounts, key=lambda mount: -mount.mount.count("/")):
        inside = quote(mount.mount)
        host = _host_directory(plan, mount.mount)
        if host is None:
            yield f"{inside} | {inside}/*) redwrap_host= ;;"
        else:
            yield f"{inside} | {inside}/*) redwrap_host={quote(host)}${{1#{inside}}} ;;"
    yield "*) redwrap_host= ;;"
    yield "esac"


def _search_lines(plan: LaunchPlan) -> Iterator[str]:
    # What is not the host's (a tmpfs) is empty when the application starts.
    hosts = [_host_directory(plan, entry) for entry in plan.search.split(":")]
    words = " ".join(quote(host) for host in hosts if host)
    yield f"for redwrap_host in {words}; do"
    yield "    redwrap_host=$redwrap_host/$1"
    yield '    [ -f "$redwrap_host" ] && [ -x "$redwrap_host" ] && return'
    yield "done"
    yield "redwrap_host="


def _host_directory(plan: LaunchPlan, path: str, *, depth: int = 0) -> Optional[str]:
    """The directory of the host behind `path` by the text of the mounts alone: it may not exist
    yet. None for what is not the host's."""
    inside = [mount for mount in plan.mounts if is_below(path, mount.mount)]
    if not inside or depth > 8:
        return None
    mount = max(inside, key=lambda found: len(found.mount))
    rest = path[len(mount.mount):]
    if isinstance(mount, Bind):
        return mount.source + rest
    if isinstance(mount, Symlink):
        target = os.path.join(os.path.dirname(mount.mount), mount.target)
        return _host_directory(plan, os.path.normpath(target) + rest, depth=depth + 1)
    return None


# -- the launch -------------------------------------------------------------------------------


def _slots(plan: LaunchPlan) -> dict[int, tuple[Operation, Command]]:
    """The commands to run, by the descriptor that their output is read from."""
    slots: dict[int, tuple[Operation, Command]] = {}
    for step in plan.operations:
        if isinstance(step, Data) and step.command is not None:
            slots[step.fd] = (step, step.command)
    spare = iter(fd for fd in range(FIRST_FD, _LAST_FD + 1) if fd not in set(slots))
    for step in plan.operations:
        if isinstance(step, SetVariable) and step.command is not None:
            slots[next(spare)] = (step, step.command)
    return slots


def _run_lines(plan: LaunchPlan, context: Context) -> Iterator[str]:
    """Run the commands at the same time, then become bwrap."""
    slots = _slots(plan)
    for finding in context.config.warnings:
        yield f"echo {quote(f'red-wrap: warning: {finding}')} >&2"
    yield from _command_lines(slots, context)
    for fd, (step, _) in slots.items():
        yield f"redwrap_read <&{fd} || return"
        if isinstance(step, SetVariable):
            yield "redwrap_value=${redwrap_value%\"$redwrap_newline\"}"
            yield f"redwrap_value{fd}=$redwrap_value"
            yield f"exec {fd}<&-"
        else:
            yield f"command exec {fd}<<REDWRAP || return"
            yield "REDWRAP"
            yield f'printf %s "$redwrap_value" >/proc/self/fd/{fd} || return'
    if slots:
        yield " && ".join(f'wait "$redwrap_pid{fd}"' for fd in slots) + " || return"
    split = split_plan(plan) if wants_mounter(plan) else None
    value_fds = {id(step): fd for fd, (step, _) in slots.items()}
    words: list[str] = []
    for step in (plan if split is None else split).operations:
        if isinstance(step, Umask):
            yield f"umask {step.mask:04o}"
        if isinstance(step, SetVariable) and step.command is not None:
            words += ["--setenv", quote(step.key), f'"$redwrap_value{value_fds[id(step)]}"']
        else:
            words += map(quote, step.arguments())
    if plan.signal_tool:
        yield 'if redwrap_leave_signals "$1"; then'
        yield f'set -- {" ".join(map(quote, (plan.signal_tool, *RESTORE_SIGNALS)))} "$@"'
        yield "fi"
    launcher = ""
    if split is not None:
        yield f'command exec 9<"$redwrap_dir/{mounts_file(split)}" || return'
        launcher = f"{_PYTHON} -I -S -c {quote(_MOUNTER)} 9 {quote(split.base)} "
    yield f'exec {launcher}{quote(plan.bwrap)} {" ".join(words)} -- "$@"'


def _command_lines(slots: Mapping[int, tuple[Operation, Command]],
                   context: Context) -> Iterator[str]:
    """Start each command with a pipe as its output; descriptor N is the end to read.

    An empty here-document is a pipe, and opening it through /proc gives its other end: no file has
    to be made and unlinked, which costs 1 ms for three.
    """
    if any("UUID" in command.text for _, command in slots.values()):
        yield "read -r redwrap_uuid </proc/sys/kernel/random/uuid"
    opened = ""
    for fd, (_, command) in slots.items():
        # A command that kept a reading end would never learn that nobody reads any more.
        opened += f" {fd}<&-"
        yield f"command exec {fd}<<REDWRAP && [ -p /proc/self/fd/{fd} ] || return"
        yield "REDWRAP"
        yield f"command exec 9>/proc/self/fd/{fd} || return"
        yield (f"(cd / && {_assignments(command, context)} exec {SHELL} -c "
               f"{quote(command.text)}) </dev/null >&9 9>&-{opened} &")
        yield f"redwrap_pid{fd}=$!"
        yield "exec 9>&-"


def _assignments(command: Command, context: Context) -> str:
    """The names of the configuration as the command's environment; the rest is inherited."""
    words = ["PID=$$"] + (["UUID=$redwrap_uuid"] if "UUID" in command.text else [])
    words += [f"{name}={quote(value)}" for name, value in sorted(command.names.items())
              if name not in _VOLATILE and context.environ.get(name) != value]
    return " ".join(words)


# -- where it is kept -------------------------------------------------------------------------


def mounts_file(split: SplitPlan) -> str:
    """The name of the file with the steps of redwrap.mounter: made from its content, so a plan
    always finds the steps that belong to it."""
    import hashlib  # only plans with many mounts need these two

    from redwrap.mounter import encode_steps
    return f"mounts-{hashlib.sha256(encode_steps(split.steps)).hexdigest()[:32]}"


def store_plan(text: str, plan: LaunchPlan, context: Context) -> None:
    """Keep the plan: in the node when it is the caller's own, else in the caller's cache.

    A plan is a script that red-wrap runs, so it must lie where nobody but the caller can write.
    That it cannot be kept is no error: the next launch is a slow one.
    """
    environ, cached = context.environ, ""
    if environ.get("XDG_CACHE_HOME", "").startswith("/"):
        cached = f"{environ['XDG_CACHE_HOME']}/redpak{context.redpath}"
    elif environ.get("HOME", "").startswith("/"):
        cached = f"{environ['HOME']}/.cache/redpak{context.redpath}"
    for directory in (f"{context.redpath}/.redpak", cached):
        if not directory or not _is_own_directory(directory, create=directory == cached):
            continue
        try:
            if wants_mounter(plan):
                from redwrap.mounter import encode_steps
                split = split_plan(plan)
                _replace_mounts(directory, mounts_file(split), encode_steps(split.steps))
            write_file_atomic(f"{directory}/{PLAN_FILE}", text.encode("utf-8", "surrogateescape"),
                              0o600)
        except (OSError, RedpakError):
            continue
        return


def _replace_mounts(directory: str, name: str, data: bytes) -> None:
    write_file_atomic(f"{directory}/{name}", data, 0o600)
    for other in os.listdir(directory):
        if other.startswith("mounts-") and other != name:
            os.unlink(f"{directory}/{other}")


def _is_own_directory(directory: str, *, create: bool) -> bool:
    try:
        if create:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.stat(directory)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022
