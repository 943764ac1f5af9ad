# SPDX-License-Identifier: Apache-2.0
"""What red-rpm costs beside stock rpm: a query of all packages of a node.

python3 tests/bench/bench_rpm.py [--rounds=N]: the bar is three bare starts of Python.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from timing import installed_tools, interleave, print_table, spread

from support.rpms import build_rpm

BAR = 3  # bare starts of Python
PACKAGES = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with installed_tools() as tools:
        node = tools.directory / "node"
        tools.actor.check(["red-dnf", "red-manager", f"--redpath={node}", "--create",
                           "--alias=node"])
        packages = [build_rpm(tools.directory / "rpms", f"package{number}",
                              files={f"/usr/share/p{number}": "x\n"})
                    for number in range(PACKAGES)]
        tools.actor.check(["red-rpm", f"--redpath={node}", "-i", "--nosignature", *packages])
        commands = {
            "rpm --dbpath -qa": ["rpm", f"--dbpath={node}/var/lib/rpm", "-qa"],
            "red-rpm -qa": ["red-rpm", f"--redpath={node}", "-qa"],
            "red-rpm -qf": ["red-rpm", f"--redpath={node}", "-qf", f"{node}/usr/share/p1"],
            "rpm -qf": ["rpm", f"--dbpath={node}/var/lib/rpm", "-qf", "/usr/share/p1"],
            "bare Python": ["/usr/bin/python3", "-I", "-S", "-c", "pass"],
        }

        def run(name: str) -> float:
            return tools.time(commands[name])

        samples = interleave({name: (lambda _turn, name=name: run(name)) for name in commands},
                             options.rounds)
    bare = statistics.median(samples["bare Python"])
    rows = [[name, spread(values)] for name, values in samples.items()]
    print_table(f"Queries of {PACKAGES} packages, ms", ("command", "median (range)"), rows)
    extra = {
        pair: statistics.median(ours - theirs for ours, theirs in
                                zip(samples[f"red-{pair}"], samples[theirs_name]))
        for pair, theirs_name in (("rpm -qa", "rpm --dbpath -qa"), ("rpm -qf", "rpm -qf"))
    }
    for name, seconds in extra.items():
        print(f"red-{name} adds {1000 * seconds:.1f} ms, {seconds / bare:.1f} bare starts of Python"
              f" (bar: {BAR})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
