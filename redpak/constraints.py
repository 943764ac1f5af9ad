# SPDX-License-Identifier: Apache-2.0
"""What "tighter" means for each constraint: design, the Merge table of section 5.

Each function takes what an ancestor says and what a descendant wants, and returns what holds and
whether the descendant tried to loosen (and was, for that part, ignored).
"""

from __future__ import annotations

from collections.abc import Callable

from redpak.errors import TYPE_CHECKING
from redpak.kinds import Share, ShareState, parse_cpus, parse_size

if TYPE_CHECKING:
    from typing import Any

    Tighten = Callable[[Any, Any], "tuple[Any, bool]"]
else:
    Tighten = object

_RANK = {ShareState.DISABLED: 0, ShareState.JOIN: 1, ShareState.ENABLED: 2}


def stay_true(older: bool, younger: bool) -> tuple[bool, bool]:
    """True is the tight value (gpgcheck)."""
    return older or younger, older and not younger


def stay_false(older: bool, younger: bool) -> tuple[bool, bool]:
    """False is the tight value (unsafe)."""
    return older and younger, younger and not older


def lower_number(older: int, younger: int) -> tuple[int, bool]:
    """The lower number is the tighter."""
    return min(older, younger), younger > older


def lower_limit(older: str, younger: str) -> tuple[str, bool]:
    """The smaller of two sizes as text; "max" is no limit at all."""
    return (older, True) if _above(parse_size(younger), parse_size(older)) else (younger, False)


def _above(value: int | None, limit: int | None) -> bool:
    return limit is not None and (value is None or value > limit)


def fewer_cpus(older: str, younger: str) -> tuple[str, bool]:
    """A descendant's list of processors or memory nodes must be a part of its ancestor's."""
    allowed = parse_cpus(older)
    wanted = parse_cpus(younger)
    # An empty cpuset means "what the parent has" to the kernel: nothing is loosened by it.
    if not wanted:
        return older, False
    return (younger, False) if not allowed or wanted <= allowed else (older, True)


def _quota(text: str) -> tuple[int | None, int]:
    """The processor time (None: all of it) in each period, both in microseconds."""
    words = text.split()
    # The kernel's default period is 100 ms (Documentation/admin-guide/cgroup-v2.rst, cpu.max).
    return (None if words[0] == "max" else int(words[0]),
            int(words[1]) if words[1:] else 100_000)


def less_cpu_time(older: str, younger: str) -> tuple[str, bool]:
    """The smaller share of time: quota divided by period."""
    limit, period = _quota(older)
    wanted, wanted_period = _quota(younger)
    loosens = limit is not None and (wanted is None
                                     or wanted * period > limit * wanted_period)
    return (older, True) if loosens else (younger, False)


def _devices(lines: tuple[str, ...]) -> dict[str, dict[str, int | None]]:
    devices: dict[str, dict[str, int | None]] = {}
    for line in lines:
        device, *limits = line.split()
        known = devices.setdefault(device, {})
        for limit in limits:
            name, _, text = limit.partition("=")
            value = parse_size(text)
            if name not in known or not _above(value, known[name]):
                known[name] = value
    return devices


def lower_io(older: tuple[str, ...], younger: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """For each device and each of its limits, the lower; silence about a device loosens nothing."""
    if older == younger:
        return older, False
    devices = _devices(older)
    loosened = False
    for device, wanted in _devices(younger).items():
        limits = devices.setdefault(device, {})
        for name, value in wanted.items():
            if name in limits and _above(value, limits[name]):
                loosened = True
            else:
                limits[name] = value
    return tuple(
        " ".join([device, *(f"{name}={'max' if value is None else value}"
                            for name, value in sorted(limits.items()))])
        for device, limits in sorted(devices.items())), loosened


def less_sharing(older: Share, younger: Share) -> tuple[Share, bool]:
    """disabled < join < enabled; two different namespaces to join contradict each other."""
    if older == younger:
        return older, False
    if _RANK[younger.state] < _RANK[older.state]:
        return younger, False
    return older, True


def keep_filter(older: str, younger: str) -> tuple[str, bool]:
    """A seccomp profile, once given, stays; "none" is the loose value."""
    return (younger, False) if older in ("none", younger) else (older, True)
