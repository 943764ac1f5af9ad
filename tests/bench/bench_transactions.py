# SPDX-License-Identifier: Apache-2.0
"""What red-install costs beside stock `dnf --installroot` into a plain directory.

python3 tests/bench/bench_transactions.py [--rounds=N] [--only=WORD], as root: prints Markdown
tables. Same packages, same repository (file://), metadata cached, a new node and a new directory
for each measurement; the packages have no scriptlets, so both do the same work. Variants run in
turn; figures are medians (smallest to largest), ratios the medians of those of each turn. Memory is
measured in runs of its own: the largest sum of the PSS of all processes of a command, looked at
every 5 ms, and the largest resident set of any one process (what time(1) shows). What other
processes of the machine have loaded too counts less in a PSS: beside many Pythons the ratio is
higher than on a machine of its own.
Bars: 1, 50 and 500 packages at most 1.3 times stock's wall time and 1.2 times its memory; 1,500
packages in the ancestors add at most one stock install of one package warm, three cold.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timing import (
    StockDnf,
    Tools,
    installed_tools,
    interleave,
    print_table,
    ratio,
    spread,
)

from support.rpms import create_repository

COUNT = 500
FILES = 8
ANCESTORS = 1500
SIZES = (1, 50, 500)
DEPTHS = (1, 2, 4, 8)


def build_packages(directory: Path) -> Path:
    """A repository of COUNT packages of FILES small files each, built from one spec file."""
    names = package_names(COUNT)
    lines = ["Name: many", "Version: 1", "Release: 1", "Summary: For the bench",
             "License: Apache-2.0", "BuildArch: noarch", "%description", "%{summary}."]
    for name in names:
        lines += [f"%package -n {name}", "Summary: For the bench", "AutoReqProv: no",
                  f"%description -n {name}", "%{summary}.", f"%files -n {name}",
                  f"/usr/share/{name}"]
    lines += ["%install", f"for name in {' '.join(names)}; do",
              "mkdir -p %{buildroot}/usr/share/$name",
              f"for file in $(seq {FILES}); do",
              "echo $name $file > %{buildroot}/usr/share/$name/$file; done; done"]
    with tempfile.TemporaryDirectory() as work:
        spec = Path(work, "many.spec")
        spec.write_text("\n".join([*lines, ""]))
        defines = {"_topdir": f"{work}/top", "_dbpath": f"{work}/db", "_tmppath": work,
                   "_rpmdir": str(directory), "__os_install_post": "%{nil}"}
        words = [word for key, value in defines.items() for word in ("-D", f"{key} {value}")]
        subprocess.run(["rpmbuild", "-bb", "--quiet", *words, spec], check=True)
    return create_repository(directory)


def package_names(count: int) -> list[str]:
    return [f"many-{number:03}" for number in range(count)]


@dataclass(frozen=True)
class Ground:
    """Where the bench makes its nodes; each call gives a fresh one."""

    tools: Tools
    stock: StockDnf
    repository: Path

    def root(self, name: str) -> Path:
        path = self.tools.directory / f"plain-{name}"
        self.tools.actor.check(self.stock.command(path, "makecache"))
        return path

    def node(self, path: Path, alias: str) -> Path:
        manager = ["red-dnf", "red-manager", f"--redpath={path}"]
        self.tools.actor.check([*manager, "--create", f"--alias={alias}",
                                f"--add-repo={self.repository}", "--setopt=gpgcheck=0", "--save"])
        return path

    def warm(self, path: Path) -> Path:
        """Fetch the metadata of the node's repositories."""
        self.tools.actor.check(["red-dnf", "red-makecache", f"--redpath={path}"])
        return path

    def fresh(self, name: str) -> Path:
        return self.warm(self.node(self.tools.directory / name, "bench"))

    def red(self, node: Path, packages: Sequence[str]) -> list[str]:
        return ["red-dnf", "red-install", "-y", f"--redpath={node}", *packages]

    def install_stock(self, name: str, packages: Sequence[str]) -> list[str]:
        return self.stock.command(self.root(name), "install", *packages)


def bench_sizes(ground: Ground, rounds: int) -> None:
    """Wall time and memory over the number of packages."""
    rows = []
    for size in SIZES:
        packages = package_names(size)
        turns = rounds if size == 1 else max(3, rounds // 2)
        costs = interleave({
            "stock": lambda turn, packages=packages: ground.tools.cost(  # type: ignore[misc]
                ground.install_stock(f"time-{len(packages)}-{turn}", packages)),
            "red": lambda turn, packages=packages: ground.tools.cost(  # type: ignore[misc]
                ground.red(ground.fresh(f"time-{len(packages)}-{turn}"), packages)),
        }, turns)
        peaks = interleave({
            "stock": lambda turn, packages=packages: ground.tools.peak(  # type: ignore[misc]
                ground.install_stock(f"peak-{len(packages)}-{turn}", packages)),
            "red": lambda turn, packages=packages: ground.tools.peak(  # type: ignore[misc]
                ground.red(ground.fresh(f"peak-{len(packages)}-{turn}"), packages)),
        }, 5 if size < SIZES[-1] else 3)
        rows.append([str(size)])
        for measured, kind, scale in (
            (costs, "wall", 1000.0), (costs, "cpu", 1000.0),
            (peaks, "one_process", 1.0), (peaks, "all_processes", 1.0),
        ):
            values = {name: [getattr(one, kind) for one in found]
                      for name, found in measured.items()}
            rows[-1] += [spread(values["stock"], scale), spread(values["red"], scale),
                         f"{ratio(values['red'], values['stock']):.2f}"]
    print_table("Packages in one install", [
        "packages", "stock ms, wall", "red-install", "ratio", "stock ms, CPU", "red-install",
        "ratio", "stock MiB, largest process", "red-install", "ratio",
        "stock MiB, all processes", "red-install", "ratio"], rows)


# Run with the directory of an rpmdb and the number of headers: they have twenty files each.
_FILL = """
import sys, time
import rpm
from redrpm.rpmdb import header_stream, import_headers, make_readable
def header(number):
    made = rpm.hdr()
    for tag, value in (
        ("NAME", f"ancestor-{number:04}"), ("VERSION", "1"), ("RELEASE", "1"), ("ARCH", "noarch"),
        ("OS", "linux"), ("SUMMARY", "For the bench"), ("DESCRIPTION", "x" * 400),
        ("LICENSE", "Apache-2.0"), ("SIZE", 20), ("INSTALLTIME", int(time.time())),
        ("PROVIDENAME", [f"ancestor-{number:04}"]), ("PROVIDEVERSION", ["1-1"]),
        ("PROVIDEFLAGS", [rpm.RPMSENSE_EQUAL]),
        ("BASENAMES", [f"file{file}" for file in range(20)]), ("DIRINDEXES", [0] * 20),
        ("DIRNAMES", [f"/usr/share/ancestor-{number:04}/"]), ("FILESIZES", [1] * 20),
        ("FILEMODES", [0o100644] * 20), ("FILEUSERNAME", ["root"] * 20),
        ("FILEGROUPNAME", ["root"] * 20), ("FILEDIGESTS", ["0" * 64] * 20),
        ("FILEDIGESTALGO", 8), ("FILEFLAGS", [0] * 20), ("FILEMTIMES", [1] * 20),
        ("FILEINODES", list(range(1, 21))), ("FILEDEVICES", [1] * 20), ("FILERDEVS", [0] * 20),
        ("FILELINKTOS", [""] * 20), ("FILELANGS", [""] * 20), ("FILEVERIFYFLAGS", [-1] * 20),
    ):
        made[getattr(rpm, f"RPMTAG_{tag}")] = value
    return made
import_headers(sys.argv[1], header_stream(map(header, range(*map(int, sys.argv[2:])))))
make_readable(sys.argv[1])
"""


def fill(ground: Ground, node: Path, first: int, last: int) -> None:
    """Give ``node`` the headers of packages ``first`` to ``last``: its rpmdb only, no files."""
    ground.tools.actor.check(
        ["/usr/bin/python3", "-c", _FILL, str(node / "var/lib/rpm"), str(first), str(last)],
        env={"PYTHONPATH": str(ground.tools.packages)})


def bench_ancestors(ground: Ground, rounds: int) -> None:
    """One package, with many packages in the ancestors: warm, and with no cached family rpmdb."""
    leaves = {}
    for name, count in (("small", 0), ("large", ANCESTORS)):
        parent = ground.node(ground.tools.directory / name, "parent")
        middle = ground.node(parent / "middle", "middle")
        if count:
            fill(ground, parent, 0, count // 2)
            fill(ground, middle, count // 2, count)
        leaves[name] = ground.warm(ground.node(middle / "leaf", "leaf"))
        ground.tools.actor.check(ground.red(leaves[name], ["many-499"]))

    def install(name: str, turn: int, *, cold: bool) -> float:
        if cold:
            shutil.rmtree(leaves[name] / ".redpak/family-rpmdb")
        number = 2 * turn + cold
        return ground.tools.time(ground.red(leaves[name], [f"many-{number:03}"]))

    times = interleave({
        "stock": lambda turn: ground.tools.time(ground.install_stock(f"one-{turn}", ["many-000"])),
        "small": lambda turn: install("small", turn, cold=False),
        "warm": lambda turn: install("large", turn, cold=False),
        "small cold": lambda turn: install("small", turn, cold=True),
        "cold": lambda turn: install("large", turn, cold=True),
    }, rounds)
    middle_of = {name: statistics.median(values) for name, values in times.items()}
    rows = [["stock, one package, empty root", spread(times["stock"]), "", ""]]
    for title, name, base, bar in (("warm", "warm", "small", "1"), ("cold", "cold", "small", "3")):
        added = middle_of[name] - middle_of[base]
        rows += [[f"red-install, {ANCESTORS} packages in two ancestors, {title}",
                  spread(times[name]), f"{added * 1000:.0f}",
                  f"{added / middle_of['stock']:.2f} (bar {bar})"]]
    rows.insert(1, ["red-install, empty ancestors, warm", spread(times["small"]), "", ""])
    print_table("Packages in the ancestors", ["", "ms", "more ms", "in stock installs"], rows)


def bench_depth(ground: Ground, rounds: int) -> None:
    """One package, over the number of nodes in the family, 100 packages in each ancestor."""
    leaves = {}
    for depth in DEPTHS:
        path = ground.tools.directory / f"depth-{depth}"
        for number in range(depth):
            path = path / f"n{number}" if number else path
            ground.node(path, f"n{number}")
            if number < depth - 1:
                fill(ground, path, 100 * number, 100 * number + 100)
        leaves[depth] = ground.warm(path)
        ground.tools.actor.check(ground.red(path, ["many-499"]))
    times = interleave({str(depth): lambda turn, depth=depth: ground.tools.time(  # type: ignore[misc]
        ground.red(leaves[depth], [f"many-{turn:03}"])) for depth in DEPTHS}, rounds)
    print_table("Depth of the family (100 packages in each ancestor)", ["nodes", "ms", "ratio"],
                [[name, spread(values), f"{ratio(values, times['1']):.2f}"]
                 for name, values in times.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description="red-install beside stock dnf")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", choices=["sizes", "ancestors", "depth"])
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: stock dnf --installroot needs root")
        return
    with installed_tools() as tools:
        repository = build_packages(tools.directory / "repository")
        stock = StockDnf.make(tools.directory / "stock", repository)
        ground = Ground(tools, stock, repository)
        for name, bench in (("sizes", bench_sizes), ("ancestors", bench_ancestors),
                            ("depth", bench_depth)):
            if options.only in (None, name):
                bench(ground, options.rounds)


if __name__ == "__main__":
    main()
