# SPDX-License-Identifier: Apache-2.0
"""scripts/bench, with one round and next to nothing as the others' image: the report is whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.actors import SYSTEM_PATH, describe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the bench is for root")
PROGRAMS = ("/usr/bin/true", "/bin/sh")


@pytest.fixture
def small_image(pool_root: Path) -> Path:
    """A root directory with two programs and their libraries, where scripts/prove has a Debian."""
    place = pool_root / "prove"
    base = place / "bookworm"
    for top in ("bin", "sbin", "lib", "lib64"):
        (base / "usr" / top).mkdir(parents=True)
        (base / top).symlink_to(f"usr/{top}")
    for directory in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp"):
        (base / directory).mkdir(parents=True)
    for program in PROGRAMS:
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for file in [program, *re.findall(r"/\S+", linked.stdout)]:
            there = base / file.lstrip("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, there)
    return place


def bench(small_image: Path, *options: object) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[2] / "scripts/bench"
    return subprocess.run(
        [str(script), *map(str, options)], capture_output=True, text=True,
        env={"PATH": SYSTEM_PATH, "HOME": str(small_image), "LANG": "C.UTF-8",
             "REDPAK_PROVE": str(small_image)},
    )


def read_table(text: str, section: str) -> dict[str, list[str]]:
    """The first table of a section: first cell -> the others."""
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_report_has_every_part_that_was_asked_for(small_image: Path, pool_root: Path) -> None:
    output = pool_root / "report"
    done = bench(small_image, "--rounds=1", f"--output={output}",
                 *(f"--only={part}" for part in ("launch", "install", "footprint")))
    assert done.returncode == 0, describe(done)
    report = (output / "report.md").read_text()
    assert "`scripts/bench --rounds=1`" in report and "| bubblewrap | bubblewrap " in report
    launches = read_table(report, "Launch")
    assert {"red-wrap", "raw bwrap", "red-wrap cold", "unshare"} <= set(launches)
    assert {"red-install", "dnf --installroot"} <= set(read_table(report, "Install"))
    for name, (milliseconds, ratio) in launches.items():
        assert float(milliseconds.split()[0]) > 0 and float(ratio) > 0, name
    footprint = read_table(report, "Disk and memory")
    node, duplicate = footprint["node"], footprint["duplicate"]
    # A node costs its own files, a duplicate the platform again.
    assert 0 < float(node[2]) < float(duplicate[2])
    chart = ElementTree.parse(output / "launch.svg").getroot()
    assert "red-wrap cold" in [text.text for text in chart.iter() if text.text]


def test_launches_are_measured_by_themselves_too() -> None:
    script = Path(__file__).parents[2] / "tests/bench/bench_launch.py"
    done = subprocess.run(["/usr/bin/python3", "-B", str(script), "--rounds=1"],
                          capture_output=True, text=True, env={"PATH": SYSTEM_PATH})
    assert done.returncode == 0, describe(done)
    for line in ("raw bwrap", "red-wrap warm", "red-wrap cold", "400", "memory beside"):
        assert line in done.stdout, describe(done)


def test_without_an_image_one_line_says_what_to_run(tmp_path: Path) -> None:
    done = bench(tmp_path, "--rounds=1")
    assert (done.returncode, done.stderr) == (1, (
        "bench: error: it needs root and the base root of scripts/prove; run: sudo scripts/prove"
        " --need=packages true\n"))
