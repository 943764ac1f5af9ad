# SPDX-License-Identifier: Apache-2.0
"""What a launch costs in a merged node beside the same node below /nodes/ALIAS.

python3 tests/bench/bench_merged.py [--rounds=N]: prints a table. A parent and a child with the same
packages, once of each template; the variants run interleaved. Figures are ms: medians, and the
median of the differences of each round. The bar is 3 ms. On a busy machine, as root,
`chrt -f 20 python3 ...` keeps the others' moods out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

from timing import Tools, installed_tools, interleave, print_table, spread

from support.merged import Wrapped, build_beacon, make_merged

TEMPLATES = ("default", "merged")


def make_family(tools: Tools, template: str, packages: Path) -> Wrapped:
    """A child with a program that needs its parent's library, below a parent with packages."""
    parent = make_merged(tools.actor, tools.directory / template, "core",
                         packages / "platform.repo", template=template)
    parent.install("beacon-platform")
    child = make_merged(tools.actor, parent.path / "app", "app", packages / "application.repo",
                        template=template)
    child.install("beacond")
    return Wrapped(child)


def launch(child: Wrapped, *command: str) -> float:
    """Seconds from start to end."""
    argv = ["red-wrap", f"--redpath={child.node.path}", "--", *command]
    begin = time.perf_counter()
    process = child.node.actor.popen(argv)
    status = process.wait()
    end = time.perf_counter()
    assert status == 0, (argv, status)
    return end - begin


def launch_cold(child: Wrapped) -> float:
    """A launch that finds no plan; the linker's cache is there since the commit."""
    for plan in (child.node.path / ".redpak").glob("launch*"):
        plan.unlink()
    return launch(child, "true")


def bench(kind: str, rounds: int) -> None:
    with installed_tools(kind) as tools:
        packages = tools.directory.parent / "packages"
        packages.mkdir()
        build_beacon(packages)
        families = {template: make_family(tools, template, packages) for template in TEMPLATES}
        for family in families.values():
            for _ in range(3):
                time.sleep(0.1)  # what changed just now is in no plan
                launch(family, "true")
        samples = interleave({
            **{f"{name}, true": lambda _, family=family: launch(family, "true")
               for name, family in families.items()},
            **{f"{name}, cold": lambda _, family=family: launch_cold(family)
               for name, family in families.items()}}, rounds)
        rows = []
        for what in ("true", "cold"):
            ours, theirs = samples[f"merged, {what}"], samples[f"default, {what}"]
            more = statistics.median(one - other for one, other in zip(ours, theirs)) * 1000
            rows.append([what, spread(theirs), spread(ours), f"{more:+.1f}"])
        print_table(f"Launch by {kind}, {rounds} rounds: ms, median (smallest to largest)",
                    ["command", "default", "merged", "merged more"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    print(subprocess.run(["bwrap", "--version"], capture_output=True, text=True).stdout.strip())
    for kind in ("user", "root") if os.geteuid() == 0 else ("user",):
        bench(kind, options.rounds)


if __name__ == "__main__":
    main()
