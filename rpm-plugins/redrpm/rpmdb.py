# SPDX-License-Identifier: Apache-2.0
"""The family rpmdb: what the whole family has installed, and who owns which header.

A family rpmdb is a private copy, made for one command, of the rpmdbs of the core OS, the ancestors
and the node, merged (design section 3.4). rpm numbers the headers of a database; a header keeps
its number for as long as it stays installed, so the number tells which node a package came from.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Optional

import rpm

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.values import dataclass, field, replace
from redrpm.rows import copy_rows, is_sqlite
from redrpm.scratch import ScratchDirectory
from redsys.run import run
from redsys.trees import remove_tree

# lib/rpmrc, headerVersion: the magic before each header in the stream of `rpmdb --exportdb`.
_HEADER_MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"
# Locks and sqlite's shared memory belong to the place, not to the data.
_TRANSIENT = (".rpm.lock", "rpmdb.sqlite-shm", ".dbenv.lock", ".migratedb")
_CACHE_INDEX = "members.json"
# How often, and how many seconds apart, a copy of an rpmdb that is being changed is tried.
_ATTEMPTS, _PAUSE = 100, 0.05

# Of each file of an rpmdb: its name, and what is another when the file is.
State = list[list[Any]]


@dataclass(frozen=True)
class Member:
    """One rpmdb of a family: ``owner`` is the node's path, "/" for the core OS."""

    owner: str
    directory: str


@dataclass(frozen=True)
class Installed:
    """A package in the family rpmdb and the member that owns it."""

    name: str
    owner: str


@dataclass(frozen=True)
class FamilyRpmdb:
    """A merged rpmdb in ``directory``.

    ``packages`` is what it held when it was read, by number; ``complete`` is false when a shadowed
    package was left out, which may come back when the one that shadows it goes. ``states`` are
    those of its members before they were read, by owner.
    """

    directory: str
    packages: Mapping[int, Installed]
    complete: bool = True
    states: Mapping[str, State] = field(default_factory=dict)


@contextmanager
def open_rpmdb(directory: str) -> Iterator[Any]:
    """An rpm transaction set on the rpmdb in ``directory``, open for reading.

    The macro is set only while the database opens: dnf shares this process's macros.
    """
    rpm.addMacro("_dbpath", directory)
    try:
        # rpm says on stderr what cannot be opened; the exception says it once more, in one line.
        ts = rpm.TransactionSet()
        # Headers were checked when they were installed; a key for them may be gone since.
        ts.setVSFlags(rpm._RPMVSF_NODIGESTS | rpm._RPMVSF_NOSIGNATURES)
        # Left unopened it would open itself later, by the macro of that time: another rpmdb.
        if ts.openDB() != 0:
            raise RedpakError(f"{directory}: cannot open the rpmdb", hint="see above for why")
    except rpm.error as err:
        raise RedpakError(f"{directory}: cannot open the rpmdb: {err}") from err
    finally:
        rpm.delMacro("_dbpath")
    try:
        yield ts
    finally:
        ts.closeDB()


def read_names(directory: str) -> dict[int, str]:
    """The package names in an rpmdb by header number, from its index: no header is loaded."""
    if not database_files(directory):
        return {}
    with open_rpmdb(directory) as ts:
        return read_index(ts)


def read_index(ts: Any) -> dict[int, str]:
    """read_names() of an open rpmdb."""
    index = ts.dbIndex("name")
    return {
        number: key.decode() if isinstance(key, bytes) else key
        for key in index
        for number, _position in index.instances()
    }


def nevra(header: Any) -> str:
    """name-[epoch:]version-release.arch, as dnf prints it."""
    epoch = f"{header[rpm.RPMTAG_EPOCH]}:" if header[rpm.RPMTAG_EPOCH] else ""
    text = f"{header[rpm.RPMTAG_NAME]}-{epoch}{header[rpm.RPMTAG_VERSION]}"
    return f"{text}-{header[rpm.RPMTAG_RELEASE]}.{header[rpm.RPMTAG_ARCH]}"


def family_members(family: Family) -> list[Member]:
    """The rpmdbs of a family: core OS, ancestors, leaf."""
    members = [Member("/", family.main.rpmdb_dir)]
    return members + [Member(node.path, node.rpmdb_dir) for node in family.nodes]


def read_triggers(ts: Any) -> bool:
    """Whether any installed package has a trigger, which may run in every transaction."""
    return any(
        True
        for tag in ("triggername", "filetriggername", "transfiletriggername")
        for _key in ts.dbIndex(tag)
    )


def build_family_rpmdb(
    members: Sequence[Member],
    directory: str,
    *,
    cache: Optional[str] = None,
    forced: Collection[str] = (),
) -> FamilyRpmdb:
    """Merge the rpmdbs of ``members``, oldest first, into the new ``directory``.

    A package that a younger member has too is shadowed: the older one is left out, as is every
    package of an ancestor whose name is in ``forced`` (design section 3, "Shadowing"). ``cache`` is
    a directory that an earlier command may have left with publish_cache(); it is used when every
    member is unchanged since. Members are only ever read from copies. Raises RedpakError.
    """
    # Read before the members are: when one changes meanwhile, no cache will be taken for it.
    states = {member.owner: _read_state(member.directory) for member in members}
    states = {owner: state for owner, state in states.items() if state}
    present = [member for member in members if member.owner in states]
    os.makedirs(directory)
    if cache is not None and not forced:
        cached = _load_cache(cache, _cache_key(states), directory)
        if cached is not None:
            return FamilyRpmdb(directory, cached, states=states)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(directory)) as work:
        copies = [copy_member(member, f"{work}/{n}") for n, member in enumerate(present)]
        hidden = _find_shadowed(copies, forced, leaf=members[-1].owner)
        packages = _merge(copies, hidden, directory)
        return FamilyRpmdb(directory, packages, complete=not any(hidden), states=states)


def names_of_member(member: Member) -> set[str]:
    """The names of the packages of a member, read from a copy. Raises RedpakError."""
    with ScratchDirectory() as work:
        return set(read_names(copy_member(member, f"{work}/rpmdb").directory).values())


def copy_member(member: Member, directory: str, *, sound: bool = True) -> Member:
    """``member`` in a private copy, in the new ``directory``; it may be damaged if not ``sound``.

    Raises RedpakError, OSError.
    """
    os.mkdir(directory)
    _copy_database(member.directory, directory)
    if sound:
        check_database(directory, member.directory)
    return Member(member.owner, directory)


def count_headers(directory: str) -> Optional[int]:
    """How many headers an rpmdb has, whether rpm can read them or not: it passes over those that it
    cannot read. None where only rpm knows. The rpmdb is one that check_database() passed."""
    path = f"{directory}/rpmdb.sqlite"
    if not os.path.exists(path):
        return None
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT COUNT(*) FROM Packages").fetchone()[0])


def check_database(directory: str, place: str) -> None:
    """rpm takes a database that it cannot read for an empty one. Raises RedpakError for one that
    is damaged; ``directory`` is a private copy of ``place``."""
    path = f"{directory}/rpmdb.sqlite"
    if not os.path.exists(path):
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            ((answer,),) = database.execute("PRAGMA quick_check(1)").fetchall()
            database.execute("SELECT COUNT(*) FROM Packages").fetchone()
    except sqlite3.Error as err:
        answer = str(err)
    if answer != "ok":
        raise RedpakError(
            f"{place}/rpmdb.sqlite: damaged rpmdb: {' '.join(answer.split())}",
            hint="go back with red-manager --rollback, restore the node from a backup, or create"
            " it anew",
        )


def _find_shadowed(
    members: Sequence[Member], forced: Collection[str], *, leaf: str
) -> list[set[int]]:
    """For each member the numbers of the headers to leave out; ``leaf`` may have none yet."""
    hidden: list[set[int]] = []
    younger = set(forced)
    for member in reversed(members):
        names = read_names(member.directory)
        seen = younger if member.owner != leaf else set()
        shadowed = {number for number, name in names.items() if name in seen}
        hidden.insert(0, {n for n in shadowed if not _is_multi_install(member.directory, n)})
        younger = younger | set(names.values())
    return hidden


def _is_multi_install(directory: str, number: int) -> bool:
    """Keys and install-only packages (kernels) exist side by side: they never shadow."""
    with open_rpmdb(directory) as ts:
        header = load_header(ts, number)
        provides = header[rpm.RPMTAG_PROVIDENAME]
    return header[rpm.RPMTAG_NAME] == "gpg-pubkey" or any(
        name.startswith("installonlypkg(") for name in provides
    )


def _merge(
    members: Sequence[Member], hidden: Sequence[set[int]], directory: str
) -> dict[int, Installed]:
    if not members:
        run(["rpmdb", "--dbpath", directory, "--initdb"], package="rpm")
        return {}
    # Copying a file is faster than copying rows: the largest member is the base.
    order = sorted(range(len(members)), key=lambda n: -_database_size(members[n].directory))
    base = members[order[0]]
    _copy_database(base.directory, directory)
    _erase_headers(directory, hidden[order[0]])
    packages = _name_new({}, directory, base.owner)
    for n in order[1:]:
        wanted = read_names(members[n].directory).keys() - hidden[n]
        add_headers(members[n].directory, wanted, directory)
        packages = _name_new(packages, directory, members[n].owner)
    return packages


def _erase_headers(directory: str, numbers: Collection[int]) -> None:
    """Take headers out of a private rpmdb; no file is touched and no scriptlet runs."""
    if not numbers:
        return
    with open_rpmdb(directory) as ts:
        labels = [nevra(load_header(ts, number)) for number in sorted(numbers)]
    options = ["--justdb", "--nodeps", "--noscripts", "--notriggers"]
    run(["rpm", "--dbpath", directory, "-e", *options, *labels], package="rpm")


def create_rpmdb(directory: str) -> None:
    """Put an empty rpmdb into ``directory``, unless it has one. Raises RedpakError."""
    if database_files(directory):
        return
    with tempfile.TemporaryDirectory(dir=directory, prefix=".init-") as fresh:
        run(["rpmdb", "--dbpath", fresh, "--initdb"], package="rpm")
        make_readable(fresh)
        for name in database_files(fresh):
            os.rename(f"{fresh}/{name}", f"{directory}/{name}")


def add_headers(source: str, numbers: Collection[int], target: str) -> None:
    """Add the headers ``numbers`` of rpmdb ``source`` to the private rpmdb ``target``.

    ``target`` is created if need be. Raises RedpakError.
    """
    if is_sqlite(source) and (is_sqlite(target) or not database_files(target)):
        copy_rows(source, numbers, target)
        return
    with open_rpmdb(source) as ts:
        import_headers(target, header_stream(load_header(ts, n) for n in sorted(numbers)))


def import_headers(directory: str, stream: bytes) -> None:
    """Add a stream of headers to the rpmdb in ``directory``, creating it if need be."""
    run(["rpmdb", "--dbpath", directory, "--importdb"], data=stream, package="rpm")


def header_stream(headers: Iterable[Any]) -> bytes:
    """Headers in the form that `rpmdb --importdb` reads."""
    return b"".join(_HEADER_MAGIC + header.unload() for header in headers)


def derive_node_rpmdb(
    family: FamilyRpmdb, node: str, directory: str, *, previous: str
) -> FamilyRpmdb:
    """After a transaction: write the rpmdb of ``node`` alone into the new ``directory``.

    The node owns the headers it owned before and every new one. ``previous`` is its rpmdb before
    the transaction: when nothing of it was erased, only the new headers are added to a copy.
    Returns the family rpmdb as it is now. Raises RedpakError.
    """
    names = read_names(family.directory)
    before = {number for number, package in family.packages.items() if package.owner == node}
    survivors = {number: family.packages[number] for number in names.keys() & family.packages}
    packages = _name_new(survivors, family.directory, node)
    mine = {number for number, package in packages.items() if package.owner == node}
    os.makedirs(directory)
    wanted = mine
    if before <= mine and database_files(previous):
        _copy_database(previous, directory)
        wanted = mine - before
    add_headers(family.directory, wanted, directory)
    make_readable(directory)
    return replace(family, packages=packages)


def make_readable(directory: str) -> None:
    """Leave plain database files, readable without writing beside them.

    A sqlite database in WAL mode cannot be opened from a read-only place, and merely reading it
    changes its directory (design section 3.4). Nobody else may have the database open.
    """
    for name in os.listdir(directory):
        if name.endswith(".sqlite"):
            with closing(sqlite3.connect(os.path.join(directory, name))) as connection:
                # What is published is synced as a whole, before it is.
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA journal_mode=DELETE")
    for name in os.listdir(directory):
        if name in _TRANSIENT or name.endswith(("-wal", "-shm")):
            os.unlink(os.path.join(directory, name))


def prepare_cache(family: FamilyRpmdb, directory: str) -> None:
    """Copy ``family`` into the new ``directory`` of a stage, to be synced with it."""
    os.mkdir(directory, 0o755)
    _copy_database(family.directory, directory)
    make_readable(directory)


def publish_cache(prepared: str, family: FamilyRpmdb, leaf: Member, cache: str) -> None:
    """Keep what prepare_cache() made for the next command; valid while the ancestors stay as they
    were when ``family`` was read, and ``leaf`` as it is. Of all its files only the index may be
    lost in a crash of the machine."""
    index = {
        "key": _cache_key({**family.states, leaf.owner: _read_state(leaf.directory)}),
        "packages": [[n, package.name, package.owner] for n, package in family.packages.items()],
    }
    with open(os.path.join(prepared, _CACHE_INDEX), "w", encoding="utf-8") as stream:
        json.dump(index, stream)
    remove_tree(cache)
    os.rename(prepared, cache)


def _name_new(
    known: Mapping[int, Installed], directory: str, owner: str
) -> dict[int, Installed]:
    """``known``, and every other header of the database as a package of ``owner``."""
    packages = dict(known)
    for number, name in read_names(directory).items():
        packages.setdefault(number, Installed(name, owner))
    return packages


def _load_cache(cache: str, key: list[Any], directory: str) -> Optional[dict[int, Installed]]:
    try:
        with open(os.path.join(cache, _CACHE_INDEX), encoding="utf-8") as stream:
            index = json.load(stream)
        if index["key"] != key:
            return None
        _copy_database(cache, directory)
        return {number: Installed(name, owner) for number, name, owner in index["packages"]}
    except (OSError, ValueError, KeyError, TypeError):
        # Absent, or cut short by a crash: the members say it all.
        for name in database_files(directory):
            os.unlink(os.path.join(directory, name))
        return None


def _cache_key(states: Mapping[str, State]) -> list[Any]:
    return [rpm.__version__, *([owner, *state] for owner, state in states.items())]


def _read_state(directory: str) -> State:
    state = []
    for name in database_files(directory):
        with suppress(FileNotFoundError):  # gone meanwhile: another state
            info = os.stat(os.path.join(directory, name))
            state.append([name, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns])
    return state


def database_files(directory: str) -> list[str]:
    """The names of the files of an rpmdb, locks left out. Raises RedpakError."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as err:
        raise RedpakError(f"{directory}: cannot read the rpmdb: {err.strerror}") from err
    return [
        entry.name
        for entry in entries
        if entry.is_file(follow_symlinks=False)
        and entry.name not in _TRANSIENT
        and entry.name != _CACHE_INDEX
    ]


def _database_size(directory: str) -> int:
    names = database_files(directory)
    return sum(os.stat(os.path.join(directory, name)).st_size for name in names)


def _copy_database(source: str, target: str) -> None:
    """Copy an rpmdb as it is at one moment: the core OS's own package manager takes no lock of
    ours, and may be at work on it. Raises RedpakError."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            before = _read_state(source)
            for name, *_state in before:
                _copy_file(source, target, name)
            if _read_state(source) == before:
                return
        for name in database_files(target):
            os.unlink(os.path.join(target, name))
        time.sleep(_PAUSE)
    raise RedpakError(
        f"{source}: cannot copy the rpmdb: another command changes it all the time",
        hint="try again when that is done",
    )


def _copy_file(source: str, target: str, name: str) -> None:
    try:
        shutil.copyfile(os.path.join(source, name), os.path.join(target, name))
    except FileNotFoundError:
        raise
    except OSError as err:
        raise RedpakError(f"{source}/{name}: cannot copy the rpmdb: {err.strerror}") from err


def load_header(ts: Any, number: int) -> Any:
    """The header with this number. Raises RedpakError."""
    for header in ts.dbMatch(rpm.RPMDBI_PACKAGES, number):
        return header
    raise RedpakError(f"the family rpmdb has no header number {number}")
