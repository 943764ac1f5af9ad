# SPDX-License-Identifier: Apache-2.0
"""Headers from one sqlite rpmdb into another, row by row.

`rpmdb --importdb` computes the index of every header anew, about 1 ms each; copying the rows is 30
times faster. rpm (lib/backend/sqlite.c) keeps headers in the table Packages and each of its indices
in a table of its own; in all of them the column hnum is the header's number. Nothing else is
assumed of them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection
from contextlib import closing

from redpak.errors import RedpakError

_FILE = "rpmdb.sqlite"


def is_sqlite(directory: str) -> bool:
    """Whether ``directory`` holds an rpmdb of this kind."""
    return os.path.exists(f"{directory}/{_FILE}")


def copy_rows(source: str, numbers: Collection[int], target: str) -> None:
    """Add the headers ``numbers`` of the rpmdb in ``source`` to the one in ``target``.

    They get new numbers there, in the same order. ``target`` is made when it is missing; it is
    private to the caller, who syncs it. Raises RedpakError.
    """
    fresh = not is_sqlite(target)
    try:
        with closing(sqlite3.connect(f"{target}/{_FILE}", isolation_level=None)) as database:
            database.execute("PRAGMA synchronous=OFF")
            # Leaves a plain file, where WAL would not (see make_readable).
            database.execute("PRAGMA journal_mode=OFF")
            database.execute("ATTACH ? AS source", (f"{source}/{_FILE}",))
            database.execute("BEGIN")
            if fresh:
                _create(database, "table")
            _number(database, numbers)
            for table in _tables(database):
                _copy_table(database, table)
            if fresh:
                _create(database, "index")
            database.execute("COMMIT")
    except sqlite3.Error as err:
        raise RedpakError(f"{target}: cannot copy headers from {source}: {err}") from err


def _create(database: sqlite3.Connection, kind: str) -> None:
    """Make the tables, or the indices, that the source has."""
    query = "SELECT sql FROM source.sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite\\_%'"
    for (statement,) in database.execute(query + " ESCAPE '\\'", (kind,)).fetchall():
        database.execute(statement)


def _tables(database: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM source.sqlite_master WHERE type = 'table' ORDER BY rowid"
    return [name for (name,) in database.execute(query) if "hnum" in _columns(database, name)]


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f'PRAGMA source.table_info("{table}")')]


def _number(database: sqlite3.Connection, numbers: Collection[int]) -> None:
    """A temporary table of the wanted headers: their number in the source, and the new one."""
    (last,) = database.execute("SELECT COALESCE(MAX(hnum), 0) FROM main.Packages").fetchone()
    database.execute("CREATE TEMP TABLE wanted (old INTEGER PRIMARY KEY, new INTEGER)")
    rows = ((old, last + position) for position, old in enumerate(sorted(numbers), 1))
    database.executemany("INSERT INTO wanted VALUES (?, ?)", rows)


def _copy_table(database: sqlite3.Connection, table: str) -> None:
    columns = _columns(database, table)
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join("wanted.new" if column == "hnum" else f'"{column}"' for column in columns)
    database.execute(
        f'INSERT INTO main."{table}" ({names}) SELECT {values} FROM source."{table}" AS row'
        " JOIN temp.wanted ON row.hnum = wanted.old"
    )
