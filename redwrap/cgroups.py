# SPDX-License-Identifier: Apache-2.0
"""Control groups, version 2: one group of settings per node, one leaf for the processes.

ROOT/OLDEST/.../LEAF/red-wrap: holds the processes of LEAF. Only leaves hold processes, and nothing
outside ROOT is touched: these are the rules of cgroup v2 ("no internal processes",
Documentation/admin-guide/cgroup-v2.rst) and of delegation by systemd (CGROUP_DELEGATION).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from redpak.effective import EffectiveConfig
from redpak.errors import TYPE_CHECKING
from redpak.family import Family
from redpak.schema import TAGS, Tags
from redwrap.errors import LaunchError
from redwrap.operations import ControlGroups

if TYPE_CHECKING:
    from typing import Any, Optional

# An alias has no colon, so no node can have this name.
PROCESSES = "red-wrap:"
# Key of the configuration -> file of the kernel; the part before the first dot is the controller.
_FILES = {
    "cgroups.cpuset.cpus": "cpuset.cpus",
    "cgroups.cpuset.mems": "cpuset.mems",
    "cgroups.cpuset.cpus_partition": "cpuset.cpus.partition",
    "cgroups.mem.max": "memory.max",
    "cgroups.mem.high": "memory.high",
    "cgroups.mem.min": "memory.min",
    "cgroups.mem.low": "memory.low",
    "cgroups.mem.oom_group": "memory.oom.group",
    "cgroups.mem.swap_high": "memory.swap.high",
    "cgroups.mem.swap_max": "memory.swap.max",
    "cgroups.cpu.weight": "cpu.weight",
    "cgroups.cpu.weight_nice": "cpu.weight.nice",
    "cgroups.cpu.max": "cpu.max",
    "cgroups.io.cost_qos": "io.cost.qos",
    "cgroups.io.cost_model": "io.cost.model",
    "cgroups.io.weight": "io.weight",
    "cgroups.io.max": "io.max",
    "cgroups.pids.max": "pids.max",
}


def plan_control_groups(family: Family, config: EffectiveConfig,
                        mount_point: str) -> Optional[ControlGroups]:
    """The groups to make, or None when no setting and no cgrouproot asks for any.

    Ancestors get what they say themselves, for all their children together; the leaf gets the
    effective values.
    """
    groups = [(node.alias, _values(node.config.tags)) for node in family.ancestors]
    groups.append((family.leaf.alias, _values(config.tags)))
    root = config.tags.cgrouproot
    if root is None and not any(values for _, values in groups):
        return None
    key = "cgrouproot" if root is not None else next(
        key for key in _FILES if key in config.provenance or _is_set(family, key))
    known = config.provenance.get(key)
    if root is None:
        root = _own_group(mount_point)
    elif not root.startswith(mount_point):
        root = f"{mount_point}/{root.lstrip('/')}"
    return ControlGroups(known.origin if known else None, root.rstrip("/"), tuple(groups))


def _is_set(family: Family, key: str) -> bool:
    return any(key in node.config.settings.origins for node in family.nodes)


def _values(tags: Tags) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for tag in TAGS:
        file, value = _FILES.get(tag.key), getattr(tags, tag.attribute)
        if file is None or value is None:
            continue
        found += [(file, _text(part)) for part in (value if tag.is_list else (value,))]
    return tuple(found)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return str(getattr(value, "value", value))


def _own_group(mount_point: str) -> str:
    """The group of this process: where systemd delegated to, or the session's."""
    with open("/proc/self/cgroup", encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("0::"):
                return mount_point + line[3:].rstrip("\n").rstrip("/")
    return mount_point


def enter_control_groups(step: ControlGroups) -> None:
    """Make the groups, set their values and move this process into the leaf. Raises LaunchError.
    """
    needed = sorted({file.split(".")[0] for _, values in step.groups for file, _ in values})
    available = _read_words(step, f"{step.root}/cgroup.controllers")
    missing = [name for name in needed if name not in available]
    if missing:
        raise _refuse(step, f"{step.root} has no controller {', '.join(missing)} (it has: "
                      f"{', '.join(available) or 'none'})",
                      "enable it in the cgroup.subtree_control of the group above, or name a "
                      "delegated group with cgrouproot (systemd: Delegate=yes)")
    directory = step.root
    for name, values in step.groups:
        _enable(step, directory, needed)
        directory = f"{directory}/{name}"
        _make(step, directory)
        for file, value in values:
            _write(step, f"{directory}/{file}", value)
    leaf = f"{directory}/{PROCESSES}"
    _make(step, leaf)
    _write(step, f"{leaf}/cgroup.procs", str(os.getpid()))


def _refuse(step: ControlGroups, message: str, hint: str) -> LaunchError:
    where = "" if step.origin is None else f"{step.origin}: "
    node = "" if step.origin is None else f" (node {step.origin.node})"
    return LaunchError(f"{where}control group: {message}{node}", hint=hint)


def _read_words(step: ControlGroups, path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as stream:
            return stream.read().split()
    except OSError as err:
        raise _refuse(step, f"cannot read {path}: {err.strerror}",
                      "mount cgroup2 there, or correct cgrouproot") from err


def _enable(step: ControlGroups, directory: str, controllers: Sequence[str]) -> None:
    path = f"{directory}/cgroup.subtree_control"
    enabled = _read_words(step, path)
    for controller in controllers:
        if controller not in enabled:
            _write(step, path, f"+{controller}")


def _make(step: ControlGroups, directory: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return
    except OSError as err:
        raise _refuse(step, f"cannot make {directory}: {err.strerror}",
                      "name a group that is delegated to you with cgrouproot") from err


_HINTS = {
    errno.EBUSY: "the group holds processes itself; name one that does not with cgrouproot",
    errno.EACCES: "name a group that is delegated to you with cgrouproot",
    errno.EPERM: "name a group that is delegated to you with cgrouproot",
    errno.ENOENT: "this kernel does not have the setting, or not in this group",
    errno.EINVAL: "the kernel does not accept the value",
    errno.ERANGE: "the kernel does not accept the value",
}


def _write(step: ControlGroups, path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as err:
        raise _refuse(step, f"cannot write {text} to {path}: {err.strerror}",
                      _HINTS.get(err.errno or 0, "see the kernel log")) from err

