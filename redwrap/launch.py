# SPDX-License-Identifier: Apache-2.0
"""From options to a running application: load, merge, plan, check, execute."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from redpak.effective import EffectiveConfig
from redpak.expand import Caller
from redpak.family import Family, load_family, load_main, resolve_redpath
from redpak.findings import Finding
from redpak.merge import merge_family
from redsys.lock import NodeLock, lock_node
from redwrap.cli import Options
from redwrap.errors import LaunchError
from redwrap.execfd import run_commands
from redwrap.execute import execute
from redwrap.identity import find_identity
from redwrap.layers import settle_overlays
from redwrap.linker import add_linker_cache
from redwrap.lookup import NamespaceView, find_command
from redwrap.operations import Bind
from redwrap.plan import RESTORE_SIGNALS, SIGNAL_TOOL, LaunchPlan, PlanBuilder
from redwrap.refusals import check_overlays, split_around_mounts
from redwrap.sources import check_mount_points, prepare_sources
from redwrap.state import make_state_directories

# ld.so(8): what steers the dynamic linker or makes libc load code, bwrap's included. It never
# crosses, whatever the configuration inherits; LD_LIBRARY_PATH is made from the tag ldpath.
LINKER_PREFIXES = ("LD_", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH", "MALLOC_")


def launch(options: Options, caller_environ: Mapping[str, str]) -> int:
    """Do what the command line asks for. Returns only after --dump-only. Raises RedpakError."""
    started = time.time_ns()
    environ = {key: value for key, value in caller_environ.items()
               if not key.startswith(LINKER_PREFIXES)}
    redpath = resolve_redpath(options.text("redpath"), environ)
    main = load_main(options.text("rmain"), environ, admin=options.has("admin"))
    family = load_family(redpath, main=main, admin=options.has("admin"), force=options.has("force"))
    lock = lock_family(family)
    config = merge_family(family, environ=environ, caller=Caller.current(),
                          strict=options.has("strict"))
    warn(config.warnings)
    identity = find_identity(config, user=options.text("user"), group=options.text("group"))
    builder = PlanBuilder(family, config, environ, uid=os.getuid(), user=identity)
    plan = builder.build(find_bwrap(options.text("bwrap"), environ))
    if options.has("dump_only") or options.has("json") or options.has("explain"):
        from redwrap.explain import explain_plan, plan_as_json, plan_as_text  # not for launches
        plan = add_linker_cache(settle_plan(plan), family, environ, make=False)
        print(plan_as_json(plan) if options.has("json") else
              explain_plan(plan, config) if options.has("explain") else plan_as_text(plan))
        return 0
    if options.has("verbose") or config.tags.verbose:
        inform(config)
    if not options.has("force"):
        check_age(family, config)
    plan = settle_plan(plan)
    check_plan(plan, create=options.has("force"))
    make_state_directories(plan, family)
    plan = add_linker_cache(plan, family, environ, make=True)
    if options.has("dump"):
        from redwrap.explain import plan_as_text
        print(plan_as_text(plan), file=sys.stderr)
    plan = find_signal_tool(plan, check_command(plan, options.command[0]))
    unsafe = options.has("unsafe") or bool(config.tags.unsafe)
    outputs = run_commands(plan.commands, environ, unsafe=unsafe)
    key = options.text("warm")
    if key:
        from redwrap.compiled import Context, compile_plan, store_plan
        context = Context(key, redpath, family, config, environ, outputs,
                          options.text("bwrap") is not None, started)
        text = compile_plan(plan, context)
        if text is not None:
            store_plan(text, plan, context)
    execute(plan, options.command, environ, lock, outputs)


def warn(findings: Sequence[Finding]) -> None:
    """Say what the merge dropped or ignored."""
    for finding in findings:
        print(f"red-wrap: warning: {finding}", file=sys.stderr)


def lock_family(family: Family) -> NodeLock:
    """Hold the leaf for reading until the application starts, so that no commit is half done.

    The descriptor is closed by exec: a later commit does not wait for applications that run. An
    ancestor is waited for only while a commit changes it. Raises LaunchError when a commit was cut
    short.
    """
    lock = _lock(family.leaf.path)
    for node in family.nodes:
        journal = f"{node.state_dir}/journal"
        if os.path.lexists(journal) and node is not family.leaf:
            _lock(node.path).release()
        if os.path.lexists(journal):
            raise LaunchError(
                f"node {node.alias} at {node.path} has an unfinished transaction",
                hint=f"finish it with dnf red-manager --redpath={node.path} --recover")
    return lock


def _lock(path: str) -> NodeLock:
    return lock_node(path, shared=True, on_wait=lambda path: print(
        f"red-wrap: waiting for a transaction on {path}", file=sys.stderr))


def find_bwrap(option: str | None, environ: Mapping[str, str]) -> str:
    """The bubblewrap to use: --bwrap, else from PATH. Raises LaunchError."""
    search = [""] if option else environ.get("PATH", os.defpath).split(":")
    found = next((path for path in (os.path.join(directory, option or "bwrap")
                                    for directory in search)
                  if os.path.isfile(path) and os.access(path, os.X_OK)), None)
    if found is None:
        raise LaunchError(f"{option or 'bwrap'}: bubblewrap not found",
                          hint="correct --bwrap" if option else "install bubblewrap, or name it "
                          "with --bwrap=PATH")
    return os.path.abspath(found)


def settle_plan(plan: LaunchPlan) -> LaunchPlan:
    """The plan without the optional mounts whose source does not exist, its overlays settled."""
    left_out = tuple(mount for mount in plan.mounts if isinstance(mount, Bind)
                     and mount.optional and not os.path.exists(mount.source))
    operations = tuple(step for step in plan.operations if step not in left_out)
    return split_around_mounts(settle_overlays(
        replace(plan, operations=operations, left_out=left_out)))


def check_age(family: Family, config: EffectiveConfig) -> None:
    """Raise LaunchError for a node that was not proven coherent within the tag maxage (days)."""
    if config.tags.maxage is None:
        return
    for node in family.nodes:
        days = (time.time() * 1000 - node.status.timestamp) / 86_400_000
        if days > config.tags.maxage:
            raise LaunchError(
                f"{config.provenance['maxage'].origin}: node {node.alias} at {node.path} was last "
                f"proven coherent {int(days)} days ago, config.maxage allows "
                f"{config.tags.maxage}", hint="check it with red-check, or say --force")


def inform(config: EffectiveConfig) -> None:
    """Print what the configuration tells people about its entries (info and warn)."""
    entries = [(entry.origin, entry.info, entry.warn) for entry in config.exports]
    entries += [(entry.origin, entry.info, entry.warn) for entry in config.environ]
    entries += [(entry.origin, entry.info, entry.warn) for entry in config.capabilities]
    for origin, info, warning in entries:
        if warning:
            print(f"red-wrap: warning: {origin}: {warning}", file=sys.stderr)
        if info:
            print(f"red-wrap: info: {origin}: {info}", file=sys.stderr)


def check_plan(plan: LaunchPlan, *, create: bool) -> None:
    """Check the plan against the file system: sources, mount points, links. Raises LaunchError."""
    prepare_sources(plan.mounts, create=create)
    check_mount_points(plan.mounts)
    check_overlays(plan)


def check_command(plan: LaunchPlan, command: str) -> NamespaceView:
    """Raise LaunchError (126, 127) unless `command` can be executed in the namespace."""
    view = NamespaceView(plan.mounts)
    find_command(view, command, plan.search, plan.directory or os.getcwd())
    return view


def find_signal_tool(plan: LaunchPlan, view: NamespaceView) -> LaunchPlan:
    """The plan with the env(1) of the namespace, if it is the host's and restores signals."""
    host = view.host_path(SIGNAL_TOOL)
    if host is None or not os.path.exists(SIGNAL_TOOL) or not os.path.samefile(host, SIGNAL_TOOL):
        return plan
    nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
    pid = os.posix_spawn(SIGNAL_TOOL, [SIGNAL_TOOL, *RESTORE_SIGNALS], {}, file_actions=nothing)
    works = os.waitpid(pid, 0)[1] == 0
    return replace(plan, signal_tool=SIGNAL_TOOL) if works else plan
