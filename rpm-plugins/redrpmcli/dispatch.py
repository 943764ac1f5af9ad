# SPDX-License-Identifier: Apache-2.0
"""red-rpm beyond plain queries: which part of the engine does what is asked."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import rpm

from redpak.errors import RedpakError
from redpak.family import Family, load_family, load_main, resolve_redpath
from redrpmcli.command import fail, in_our_words
from redrpmcli.options import CHANGES, DATABASE, OTHER, QUERY, VERIFY, RpmArguments
from redrpmcli.paths import find_places
from redsys.owner import become_owner


def tell(text: str) -> None:
    """A line for the user, on stderr."""
    print(f"red-rpm: {text}", file=sys.stderr)


def end_contained(work: Callable[[], int], place: str) -> NoReturn:
    """Do ``work`` on the node at ``place`` in a contained child, which ends with its result."""
    status = 1
    try:
        status = work()
    except RedpakError as err:
        fail(in_our_words(err))
    except (OSError, rpm.error) as err:
        fail(f"{place}: {err}")
    except KeyboardInterrupt:
        fail("interrupted")
    except Exception:
        # A fault of ours. What forked this process must not see it, and the user must.
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_command(arguments: RpmArguments) -> int:
    """Do what ``arguments`` ask for; the exit status. Raises RedpakError."""
    os.umask(0o022)
    _check(arguments)
    places = find_places(arguments.own.get("--redpath"))
    if places is not None and places.inside:
        from redrpmcli.inside import run_inside

        return run_inside(arguments, places)
    # Looking is always possible: a node that is in a bad state is what one wants to look at.
    looks = not any(name.startswith("--ota") for name in arguments.own)
    looks = looks and arguments.mode not in CHANGES
    family = _load(arguments, force=looks or "--node-force" in arguments.own)
    if any(name.startswith("--ota") for name in arguments.own):
        from redrpmcli.ota import run_ota

        return run_ota(family, arguments)
    if arguments.mode == VERIFY:
        from redrpmcli.verify import verify

        become_owner(family.leaf.path, family.leaf.owner_uid)
        return verify(family, arguments)
    if arguments.mode in CHANGES:
        from redrpmcli.change import change, change_database

        become_owner(family.leaf.path, family.leaf.owner_uid)
        run = change_database if arguments.mode == DATABASE else change
        return run(family, arguments)
    from redrpmcli.query import query

    return query(family, arguments)


def _load(arguments: RpmArguments, *, force: bool) -> Family:
    redpath = resolve_redpath(arguments.own.get("--redpath"), os.environ)
    main = load_main(arguments.own.get("--rmain"), os.environ)
    return load_family(redpath, main=main, force=force)


def _check(arguments: RpmArguments) -> None:
    own = arguments.own
    if "--ota" in own:
        return
    if arguments.mode == OTHER and not any(name.startswith("--ota") for name in own):
        if set(own) - {"--redpath", "--rmain", "--family"}:
            raise RedpakError(
                f"{', '.join(sorted(set(own)))}: nothing to do", hint="see red-rpm --help"
            )
        return
    if arguments.mode not in CHANGES:
        for name in ("--plan", "--forcenode"):
            if name in own:
                raise RedpakError(f"{name} goes with a change, such as -i, -U or -e")
    if "--family" in own and arguments.mode not in (QUERY, VERIFY):
        raise RedpakError("--family goes with -q or -V", hint="a change is always one node's")
