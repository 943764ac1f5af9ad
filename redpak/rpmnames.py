# SPDX-License-Identifier: Apache-2.0
"""Which packages an rpmdb has, without rpm."""

from __future__ import annotations

import os
import sqlite3
from urllib.parse import quote


def count_packages(rpmdb_dir: str) -> int | None:
    """The number of packages, keys apart; 0 without an rpmdb, None for one that is not sqlite."""
    rows = _query(rpmdb_dir, "select count(distinct hnum) from Name where key != 'gpg-pubkey'")
    return None if rows is None else int(str(rows[0][0])) if rows else 0


def package_names(rpmdb_dir: str) -> list[str]:
    """The names of the packages, sorted; none for an rpmdb that is not sqlite."""
    rows = _query(rpmdb_dir, "select distinct key from Name where key != 'gpg-pubkey'")
    return sorted(str(row[0]) for row in rows or ())


def _query(rpmdb_dir: str, query: str) -> list[tuple[object, ...]] | None:
    """Rows of the tables of rpm's lib/backend/sqlite.c: Name has one for each package header."""
    file = f"{rpmdb_dir}/rpmdb.sqlite"
    if not os.path.exists(file):
        others = ("Packages", "Packages.db")
        return None if any(os.path.exists(f"{rpmdb_dir}/{name}") for name in others) else []
    try:
        # immutable: even reading a WAL database would make files beside it.
        database = sqlite3.connect(f"file:{quote(file)}?immutable=1", uri=True)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()
    except sqlite3.Error:
        return None
