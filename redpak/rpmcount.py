# SPDX-License-Identifier: Apache-2.0
"""How many packages an rpmdb has, without rpm."""

from __future__ import annotations

import os
import sqlite3
from urllib.parse import quote


def count_packages(rpmdb_dir: str) -> int | None:
    """The number of packages, keys apart; 0 without an rpmdb, None for one that is not sqlite.

    The tables are those of rpm's lib/backend/sqlite.c: Name has a row for each package header.
    """
    file = f"{rpmdb_dir}/rpmdb.sqlite"
    if not os.path.exists(file):
        others = ("Packages", "Packages.db")
        return None if any(os.path.exists(f"{rpmdb_dir}/{name}") for name in others) else 0
    try:
        # immutable: even reading a WAL database would make files beside it.
        database = sqlite3.connect(f"file:{quote(file)}?immutable=1", uri=True)
        try:
            row = database.execute("select count(distinct hnum) from Name "
                                   "where key != 'gpg-pubkey'").fetchone()
        finally:
            database.close()
    except sqlite3.Error:
        return None
    return int(row[0])
