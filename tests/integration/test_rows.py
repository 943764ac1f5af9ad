# SPDX-License-Identifier: Apache-2.0
"""Headers copied between rpmdbs by their rows are what rpm itself would have imported."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from redrpm.contents import read_headers
from redrpm.rows import copy_rows
from redrpm.rpmdb import (
    header_stream,
    import_headers,
    load_header,
    make_readable,
    open_rpmdb,
    read_names,
)
from support.rpms import build_rpm


def dump(directory: Path) -> dict[str, list[str]]:
    """The schema and every row of every table, but for the statistics that rpm 6 has made."""
    with closing(sqlite3.connect(directory / "rpmdb.sqlite")) as database:
        master = [row for row in database.execute("SELECT type, name, sql FROM sqlite_master")
                  if not row[1].startswith("sqlite_stat")]
        found = {"schema": master}
        for table in (name for kind, name, _sql in master if kind == "table"):
            found[table] = list(database.execute(f'SELECT * FROM "{table}"'))
    return {name: sorted(map(repr, rows)) for name, rows in found.items()}


def test_copied_rows_equal_what_rpmdb_importdb_makes_of_the_headers(tmp_path: Path) -> None:
    rpms = [
        build_rpm(tmp_path, name, files={f"/usr/share/{name}/{n}": "x" for n in range(3)},
                  requires=["one"], scriptlets={"post": "true"})
        for name in ("one", "two", "three")
    ]
    source, copied, imported = (tmp_path / name for name in ("source", "copied", "imported"))
    for directory in (source, copied, imported):
        directory.mkdir()
    import_headers(str(source), header_stream(read_headers(map(str, rpms))))
    wanted = sorted(number for number, name in read_names(str(source)).items() if name != "two")

    for number in wanted:  # into a new database, then into one that has headers
        copy_rows(str(source), [number], str(copied))
    with open_rpmdb(str(source)) as ts:
        import_headers(str(imported), header_stream(load_header(ts, n) for n in wanted))
    make_readable(str(imported))

    assert dump(copied) == dump(imported)
    assert not list(copied.glob("*-wal"))
    query = ["rpm", f"--dbpath={copied}", "-qa", "--qf", "%{NAME}\\n"]
    assert sorted(subprocess.check_output(query, text=True).split()) == ["one", "three"]
