# SPDX-License-Identifier: Apache-2.0
"""Whether the times of a file system tell that nothing in it has changed.

The kernel gives a file its ctime when it changes, in most file systems. An image holds the times
that its builder wrote, often the same in each; between two mounts it may be exchanged for another.
"""

from __future__ import annotations

import functools
import os
from contextlib import suppress

from redcheck.scope import Layer
from redsys.mounts import read_devices

# Nothing there but a program, or the last who wrote, says what time it is.
_FREE = frozenset(("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "fuse"))
# What they show is made elsewhere, and stays as it is while it is mounted.
_IMAGES = frozenset(("squashfs", "erofs", "cramfs", "romfs", "iso9660", "udf", "overlay"))
_UNKNOWN = ("/", "overlay", 0)
_LOOP, _NBD = 7, 43  # admin-guide/devices.txt: a file, or another machine, is the disk


def trust_times(layer: Layer) -> str | None:
    """How long what was seen of a layer, and of the rpmdbs of its family, is known to be so by its
    times: "" is for ever, None not at all, else as long as this text is the same."""
    used = [_find_mount(place)
            for place in (layer.path, *(member.rpmdb for member in layer.lineage))]
    inside = ("/usr/", "/opt/") if layer.is_core else "/"  # redcheck.walk
    base = layer.path.rstrip("/")
    used += [mount for mount in _read_mounts() if _is_below(mount[0], base)
             and f"{mount[0][len(base):]}/".startswith(inside)]
    if any(kind in _FREE or kind.startswith("fuse.") or major in (_LOOP, _NBD)
           for _, kind, major in used):
        return None
    return _boot_id() if any(kind in _IMAGES for _, kind, _ in used) else ""


@functools.cache  # the nodes of a tree share their ancestors
def _find_mount(place: str) -> tuple[str, str, int]:
    real = os.path.realpath(place)
    return next((mount for mount in _read_mounts() if _is_below(real, mount[0])), _UNKNOWN)


@functools.cache
def _read_mounts() -> list[tuple[str, str, int]]:
    """Those that hide others first. Where nothing is known of them, as in a chroot, none."""
    with suppress(OSError):
        return sorted(reversed(read_devices()), key=lambda mount: -len(mount[0]))
    return []


def _is_below(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


@functools.cache
def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()
