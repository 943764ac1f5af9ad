# SPDX-License-Identifier: Apache-2.0
"""What red-check costs beside `rpm -Va` over the same packages in one root.

python3 tests/bench/bench_check.py [--rounds=N] [--stock=DIR], as root: prints a Markdown table. 30
nodes with 100 packages of 10 files each, built by rpmbuild (some minutes; --stock keeps them in DIR
and finds them there). Variants run in turn; figures are medians (smallest to largest).
Bars: the first check at most twice rpm -Va; one after a change of one file at most a fifth of the
first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from timing import Tools, installed_tools, interleave, print_table, ratio, spread

from redpak.create import create_node
from redpak.family import load_main
from redrpm.rpmdb import make_readable

NODES = 30
EACH = 100  # packages of a node
FILES = 10


def names_of(number: int) -> list[str]:
    return [f"many-{number:02}{each:02}" for each in range(EACH)]


def build_packages(directory: Path) -> None:
    """One spec file for each node's packages; each package needs the one before."""
    for number in range(NODES):
        if (directory / f"{names_of(number)[-1]}-1-1.noarch.rpm").exists():
            continue
        lines = ["Name: many", "Version: 1", "Release: 1", "Summary: For the bench",
                 "License: Apache-2.0", "BuildArch: noarch", "%description", "%{summary}."]
        names = names_of(number)
        for position, name in enumerate(names):
            needed = f"Requires: {names[position - 1]}" if position else ""
            lines += [f"%package -n {name}", "Summary: For the bench", "AutoReqProv: no", needed,
                      f"%description -n {name}", "%{summary}.", f"%files -n {name}",
                      f"/usr/share/{name}"]
        lines += ["%install", f"for name in {' '.join(names)}; do",
                  "mkdir -p %{buildroot}/usr/share/$name", f"for file in $(seq {FILES}); do",
                  "printf '%s %s %2000s' $name $file x > %{buildroot}/usr/share/$name/$file;"
                  " done; done"]
        with tempfile.TemporaryDirectory() as work:
            spec = Path(work, "many.spec")
            spec.write_text("\n".join([*lines, ""]))
            defines = {"_topdir": f"{work}/top", "_dbpath": f"{work}/db", "_tmppath": work,
                       "_rpmdir": work, "_rpmfilename": "%%{NAME}-1-1.noarch.rpm",
                       "__os_install_post": "%{nil}"}
            words = [word for key, value in defines.items() for word in ("-D", f"{key} {value}")]
            subprocess.run(["rpmbuild", "-bb", "--quiet", *words, spec], check=True)
            directory.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", *Path(work).glob("*.rpm"), directory], check=True)


def install(tools: Tools, root: Path, stock: Path, number: int) -> None:
    """By stock rpm, one node's packages."""
    packages = [str(stock / f"{name}-1-1.noarch.rpm") for name in names_of(number)]
    tools.actor.check(["rpm", "--root", str(root), "--dbpath", "/var/lib/rpm", "-i", *packages])


def make_tree(tools: Tools, stock: Path) -> tuple[Path, Path]:
    """The tree's oldest node, with three children to a node, and a plain root with everything."""
    main = load_main(str(tools.main), {})
    places: list[Path] = []
    plain = tools.directory / "plain"
    plain.mkdir()
    for number in range(NODES):
        above = places[(number - 1) // 3] if number else tools.directory
        places.append(above / f"n{number}")
        create_node(str(places[-1]), alias=f"n{number}", main=main)
        install(tools, places[-1], stock, number)
        make_readable(str(places[-1] / "var/lib/rpm"))
        install(tools, plain, stock, number)
    return places[0], plain


def main() -> None:
    parser = argparse.ArgumentParser(description="red-check beside rpm -Va")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stock", type=Path, help="where the packages are kept")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: rpm --root needs root")
        return
    with installed_tools() as tools:
        stock = options.stock or tools.directory / "stock"
        build_packages(stock)
        top, plain = make_tree(tools, stock)
        victim = top / "n1/usr/share" / names_of(1)[7] / "3"
        content = victim.read_text()
        command = ["red-check", f"--redpath={top}", "--tree"]

        def first(_turn: int) -> float:
            return tools.time([*command, "--no-cache"])

        def changed(turn: int) -> float:
            # Everything was looked at when it was old enough; then one file changes.
            victim.write_text(content + str(turn))
            start = time.perf_counter()
            done = tools.actor.run(command)
            taken = time.perf_counter() - start
            assert done.returncode == 1 and str(victim)[len(str(top)) + 3:] in done.stdout, done
            return taken

        time.sleep(2.5)
        tools.actor.check(command)
        info = victim.stat()

        def restore(_turn: int) -> float:
            victim.write_text(content)
            os.utime(victim, ns=(info.st_atime_ns, info.st_mtime_ns))
            time.sleep(2.5)
            tools.actor.check(command)
            return 0.0

        times = interleave({
            "rpm": lambda _turn: tools.time(["rpm", "--root", str(plain), "--dbpath",
                                             "/var/lib/rpm", "-Va"]),
            "first": first, "changed": changed, "restore": restore}, options.rounds)
    rows = [
        ["rpm -Va, one root", spread(times["rpm"]), ""],
        ["red-check --tree, first", spread(times["first"]),
         f"{ratio(times['first'], times['rpm']):.2f} of rpm -Va (bar 2)"],
        ["red-check --tree, after one change", spread(times["changed"]),
         f"{ratio(times['changed'], times['first']):.2f} of the first (bar 0.20)"]]
    print_table(f"{NODES} nodes, {NODES * EACH} packages, {NODES * EACH * FILES} files",
                ["", "ms", "ratio"], rows)


if __name__ == "__main__":
    main()
