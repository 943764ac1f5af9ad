# SPDX-License-Identifier: Apache-2.0
"""red-manager --bundle: redrpm makes bundles, dnf only fetches packages."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from redcheck.reports import counted
from redpak.errors import RedpakError
from redpak.family import Family
from redrpm.locking import lock_family
from redrpm.makebundle import (
    change_by_packages,
    change_by_states,
    current_packages,
    describe_node,
    expand_directories,
    missing_packages,
    read_state,
    write_bundle,
)

Tell = Callable[[str], None]
Download = Callable[[Sequence[str]], list[str]]


def check_options(opts: Any) -> None:
    """Raise RedpakError when the command line does not say all that a bundle needs."""
    if re.search(r"\.(tgz|txz|tzst|tar\.\w+)$", opts.bundle):
        raise RedpakError(
            f"{opts.bundle}: bundles are not compressed, packages are",
            hint="name a directory, or FILE.tar",
        )
    if not opts.sign_key:
        raise RedpakError("--bundle needs --sign-key", hint="say which of your gpg keys signs it")
    if not set(_matched(opts)) <= {"alias", "name", "path"}:
        raise RedpakError(f"--match={opts.match}: not of alias, name and path")
    if not opts.since and not opts.repositories:
        raise RedpakError("--bundle needs packages or --since", hint="name package files, or what"
                          " the node changed from")


def run(family: Family, opts: Any, tell: Tell, download: Download) -> None:
    """Make the bundle; ``download`` gives files of packages of the node's repositories, by NEVRA.

    Raises RedpakError.
    """
    target = os.path.abspath(opts.bundle)
    locks = lock_family(family, notify=tell, exclusive=False)
    try:
        paths = expand_directories(opts.repositories)
        node = describe_node(family)
        if opts.since:
            before, node = read_state(family, opts.since)
            after = current_packages(family)
            missing = missing_packages(before, after, paths)
            change = change_by_states(before, after, [*paths, *download(missing)])
        else:
            change = change_by_packages(family, paths)
        matched = {key: node[key] for key in _matched(opts)}
        manifest = write_bundle(
            family, change, target, node=matched, key=opts.sign_key, info=opts.info or ""
        )
    except OSError as err:
        reason = err.strerror or str(err)
        raise RedpakError(f"{target}: cannot make the bundle: {reason}") from err
    finally:
        for lock in locks:
            lock.release()
    tell(f"Bundle {target}: {counted(len(manifest.install), 'package')} to install,"
         f" {len(manifest.erase)} to erase")


def _matched(opts: Any) -> list[str]:
    return (opts.match or "alias,name").split(",")


def not_in_repositories(label: str) -> RedpakError:
    """What a front end raises for a package that it cannot find."""
    return RedpakError(f"{label}: not in the node's repositories", hint="name its file")
