# SPDX-License-Identifier: Apache-2.0
"""red-rpm: stock rpm on a node.

A plain query becomes stock rpm on the node's rpmdb right here; whatever needs the family, the view
or a transaction is in redrpmcli.dispatch. This module loads nothing, for the sake of queries.
"""

from __future__ import annotations

import os
import sys

from redrpmcli.options import OTHER, QUERY, RpmArguments
from redrpmcli.paths import Places, find_places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

HELP = """\
Usage: red-rpm --redpath=DIR [OPTION...]

rpm on a node: queries and verification look at its own packages, changes go through its family.

Options for nodes:
  --redpath=DIR, --rpath, --rp  the node (default: the environment variable REDPATH; in the
                                namespace of a node, that node)
  --rmain=FILE                  configuration of the core OS (default: redpak_MAIN, else
                                /etc/redpak/main.yaml)
  --family                      query or verify the packages of the whole family; %{NODE} in a
                                query format is the alias of the node that a package lives in,
                                %{NODE_PATH} its directory
  --forcenode                   give the node its own copy of packages that an ancestor has
  --node-force                  work on a node that was moved or is not enabled, and let a change
                                through that breaks child nodes
  --plan                        show what a change would do to the node's files, and do not do it
  --ota=BUNDLE                  apply a signed bundle: a directory or a tar file
  --ota-rollback                return to what the node was before its last bundle
  --ota-list                    list the bundles that were applied
  --json                        with --ota-list: print JSON for programs
  --ota-state                   print what a bundle for this node has to start from
  --check                       prove that the node is coherent: red-check, whose options it takes

All other options are those of rpm:

"""


def main() -> NoReturn:
    """The command red-rpm; it ends as rpm does."""
    sys.exit(_main(sys.argv[1:]))


def _main(words: list[str]) -> int:
    if "--check" in words:
        from redcheck.cli import main as check

        return check([word for word in words if word != "--check"], program="red-rpm --check")
    arguments = RpmArguments(words)
    if arguments.fault:
        return fail(f"{arguments.fault}; see red-rpm --help")
    if arguments.has("--help", "-?"):
        sys.stdout.write(HELP)
        sys.stdout.flush()
        return execute(["--help"])
    if arguments.has("--root", "r", "--dbpath"):
        return fail("the node says where its root and its rpmdb are; leave out --root and --dbpath")
    if not arguments.for_rpm and not set(arguments.own) - {"--redpath", "--rmain"}:
        return fail("nothing to do; see red-rpm --help")
    if arguments.mode == OTHER and not set(arguments.own) - {"--redpath", "--rmain"}:
        if not (arguments.own.get("--redpath") or os.environ.get("REDPATH")):
            return execute(arguments.for_rpm)
    elif arguments.mode != QUERY or set(arguments.own) - {"--redpath", "--rmain"}:
        return _run_heavy(arguments)
    if arguments.names_package_files:
        return execute(arguments.for_rpm)
    places = find_places(arguments.own.get("--redpath"))
    database = _query_database(arguments, places) if places else ""
    if not database:
        return _run_heavy(arguments)
    return execute(["--dbpath", database, *arguments.for_rpm])


def _query_database(arguments: RpmArguments, places: Places) -> str:
    """The rpmdb that answers a query; "" when that takes more than one, or a closer look."""
    owner = places.leaf
    if arguments.names_packages_by_path:
        mapped = [places.map(word) for word in arguments.words]
        owners = {node for node, _path in mapped if node}
        if len(owners) > 1:
            return ""
        owner = owners.pop() if owners else owner
        arguments.words = [path for _node, path in mapped]
    if owner == places.leaf and places.inside:
        return "/var/lib/rpm"
    database = f"{owner}/var/lib/rpm"
    return database if _is_plain(owner, database) else ""


def _is_plain(node: str, database: str) -> bool:
    """Whether a node's rpmdb is in its usual place, is ours or root's, and nobody was killed while
    he changed it.

    Another user's must not be opened where it lies: sqlite makes files beside a database, or gives
    those that it finds there to the database's owner, with the rights of whoever reads it.
    """
    try:
        info = os.stat(database)
    except OSError:
        return False
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & 0o022:
        return False
    if os.path.exists(f"{node}/.redpak/journal"):
        return False
    for name in ("etc/redpack.yaml", "etc/redpak.yaml"):
        try:
            with open(f"{node}/{name}", "rb") as stream:
                text = stream.read().lower()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        # A key may be written with escapes: then YAML has to say what it is.
        if b"rpmdir" in text or b"\\x" in text or b"\\u" in text:
            return False
        break
    return os.path.exists(f"{database}/rpmdb.sqlite")


def _run_heavy(arguments: RpmArguments) -> int:
    from redpak.errors import RedpakError
    from redrpmcli.dispatch import run_command

    try:
        return run_command(arguments)
    except RedpakError as err:
        return fail(in_our_words(err))
    except BrokenPipeError:
        # The reader of our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def in_our_words(error: Exception) -> str:
    """The text of an error: what dnf's commands call --force is --node-force here, as rpm has an
    option of that name."""
    return str(error).replace("say --force", "say --node-force")


def execute(words: list[str]) -> int:
    """Become rpm. Returns only when there is none."""
    try:
        os.execvp("rpm", ["rpm", *words])
    except OSError as err:
        return fail(f"rpm: {err.strerror}; install rpm")


def fail(message: str) -> int:
    """Say what is wrong, one line for each fault; the exit status of it."""
    for line in message.splitlines():
        sys.stderr.write(f"red-rpm: error: {line}\n")
    return 1


if __name__ == "__main__":
    main()
