# SPDX-License-Identifier: Apache-2.0
"""From options to a running application: load, merge, plan, check, execute."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping

from redpak.effective import EffectiveConfig
from redpak.expand import Caller
from redpak.family import Family, load_family, load_main, resolve_redpath
from redpak.findings import printable
from redpak.load import LINKER_VARIABLES
from redpak.merge import merge_family
from redpak.values import replace
from redsys.lock import NodeLock, lock_node
from redwrap.cli import Options
from redwrap.compiled import (
    VOLATILE,
    Context,
    bwraps_along,
    inherited_names,
    is_lasting,
    list_conditions,
    store_plan,
)
from redwrap.encode import Encoder, write_records
from redwrap.errors import LaunchError
from redwrap.execfd import is_told_unsafe
from redwrap.execute import execute, find_launcher
from redwrap.identity import find_identity
from redwrap.operations import Bind, Join, JoinByFd
from redwrap.plan import LaunchPlan, PlanBuilder
from redwrap.sources import check_mount_points, prepare_sources
from redwrap.state import make_state_directories


def launch(options: Options, caller_environ: Mapping[str, str],
           own_environ: Mapping[str, str]) -> int:
    """Do what the command line asks for; `own_environ` is the caller's and what this installation
    adds, its main.yaml. Returns only after --dump-only. Raises RedpakError."""
    started = time.time_ns()
    # They never cross, whatever the configuration inherits; bwrap must not obey them either.
    environ = {key: value for key, value in caller_environ.items()
               if not key.startswith(LINKER_VARIABLES)}
    redpath = resolve_redpath(options.text("redpath"), environ)
    if os.geteuid() == 0:
        leave_root(redpath, options, environ)
    main = load_main(options.text("rmain"), own_environ, admin=options.has("admin"))
    family = load_family(redpath, main=main, admin=options.has("admin"), force=options.has("force"))
    lock = lock_family(family)
    config = merge_family(family, environ=environ, caller=Caller.current(),
                          strict=options.has("strict"))
    identity = find_identity(config, user=options.text("user"), group=options.text("group"))
    builder = PlanBuilder(family, config, environ, uid=os.getuid(), user=identity)
    plan = settle_plan(builder.build(find_bwrap(options.text("bwrap"), environ)))
    messages = [f"warning: {finding}" for finding in config.warnings]
    if options.has("verbose") or config.tags.verbose:
        messages += list_remarks(config)
    for message in () if options.has("quiet") else messages:
        print(f"red-wrap: {message}", file=sys.stderr)
    if options.has("dump_only") or options.has("json") or options.has("explain"):
        plan = add_cache(plan, family, environ, make=False)
        print(show_plan(plan, config, options))
        return 0
    if not options.has("force"):
        check_age(family, config)
    check_plan(plan, create=options.has("force"))
    make_state_directories(plan, family)
    plan = add_cache(plan, family, environ, make=True)
    if options.has("dump"):
        print(show_plan(plan, config, options), file=sys.stderr)
    records = Encoder(plan, own_mounts=not options.has("old_kernel"),
                      unsafe=options.has("unsafe") or is_told_unsafe(config),
                      hidden=VOLATILE - config.used_names,
                      inherited=inherited_names(environ)).encode()
    key, launcher = options.text("warm"), options.text("launcher")
    if key and launcher and is_lasting(plan, config):
        context = Context(key, launcher, redpath, family, config, environ, messages,
                          options.text("bwrap") is not None, started)
        conditions = list_conditions(plan, context)
        if conditions is not None:
            store_plan([*conditions, *records], context)
    restore_signals(options)
    execute(plan, write_records(records), options.command, environ, lock=lock, launcher=launcher)


def leave_root(redpath: str, options: Options, environ: Mapping[str, str]) -> None:
    """Root launches a user's node as that user: what its configuration exports, its programs and
    its commands get no more rights than their owner has. Raises RedpakError."""
    from redsys.owner import become_owner, check_path  # root's launches only
    node = os.path.realpath(redpath)
    if not os.path.exists(node):
        return  # load_family says what is wrong
    owner = os.stat(node).st_uid
    check_path(node, owner)
    if owner:
        restore_signals(options)
        launcher = options.text("launcher") or find_launcher()
        become_owner(node, owner, argv=[launcher, *options.words], environ=environ)


def restore_signals(options: Options) -> None:
    """Python ignores these; the application only when the caller does."""
    for number, key in ((signal.SIGPIPE, "ignores_pipe"), (signal.SIGXFSZ, "ignores_xfsz")):
        if not options.has(key):
            signal.signal(number, signal.SIG_DFL)


def show_plan(plan: LaunchPlan, config: EffectiveConfig, options: Options) -> str:
    """What --json, --explain, --dump-only and --dump print."""
    from redwrap.explain import explain_plan, plan_as_json, plan_as_text  # not for plain launches
    if options.has("json"):
        return plan_as_json(plan)
    return explain_plan(plan, config) if options.has("explain") else plan_as_text(plan)


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
    """The bubblewrap to use: --bwrap, else from the absolute directories of PATH: what lies where
    the caller happens to be is never run. Raises LaunchError."""
    found = next((path for path in ([option] if option else bwraps_along(environ))
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
    plan = replace(plan, operations=operations, left_out=left_out)
    if not plan.has_overlays:
        return plan
    from redwrap.layers import settle_overlays  # not for plain launches
    from redwrap.refusals import split_around_mounts
    return split_around_mounts(settle_overlays(plan))


def add_cache(plan: LaunchPlan, family: Family, environ: Mapping[str, str], *,
              make: bool) -> LaunchPlan:
    """The plan with the family's ld.so.cache, if it has overlays. Raises LaunchError."""
    if not plan.has_overlays:
        return plan
    from redwrap.linker import add_linker_cache  # hashlib and tempfile take 5 ms
    return add_linker_cache(plan, family, environ, make=make)


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


def list_remarks(config: EffectiveConfig) -> Iterator[str]:
    """What the configuration tells people about its entries (info and warn)."""
    entries = [(entry.origin, entry.info, entry.warn) for entry in config.exports]
    entries += [(entry.origin, entry.info, entry.warn) for entry in config.environ]
    entries += [(entry.origin, entry.info, entry.warn) for entry in config.capabilities]
    for origin, info, warning in entries:
        if warning:
            yield printable(f"warning: {origin}: {warning}")
        if info:
            yield printable(f"info: {origin}: {info}")


def check_plan(plan: LaunchPlan, *, create: bool) -> None:
    """Check the plan against the file system: sources, mount points, links. Raises LaunchError."""
    prepare_sources(plan.mounts, create=create)
    check_mount_points(plan.mounts)
    if any(isinstance(step, (Join, JoinByFd)) for step in plan.operations):
        from redwrap.joins import check_joins  # not for plain launches
        check_joins(plan)
    if plan.has_overlays:
        from redwrap.refusals import check_overlays
        check_overlays(plan)
