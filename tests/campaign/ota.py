# SPDX-License-Identifier: Apache-2.0
"""The long campaign of interrupted updates: `tox -e ota -- --kills=200`.

As an ordinary user and as root, half of the kills each: an update of the middle one of three nodes
is killed at a random moment, or before a random change of its commit; then it is applied again, and
the node must be what it is without interruption (tests/support/ota.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from support.actors import actor_kinds
from support.installing import Installation
from support.interruption import Tools
from support.ota import OtaBench, OtaFamily, build_packages
from support.trees import remove_tree


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="of all actors (200)")
    parser.add_argument("--pool", default="/var/tmp", help="directory for nodes (/var/tmp)")
    options = parser.parse_args()
    ground = Path(tempfile.mkdtemp(prefix="redpak-ota.", dir=options.pool)).resolve()
    ground.chmod(0o755)
    start = time.monotonic()
    try:
        outcomes = run(ground, options.kills)
    finally:
        remove_tree(ground)
    lost = sum(count for (_actor, where), count in outcomes.items() if where == "LOST")
    print(f"\n{sum(outcomes.values())} attempts in {(time.monotonic() - start) / 60:.1f} min,"
          f" {lost} lost")
    for (actor, where), count in sorted(outcomes.items()):
        print(f"  {actor:5}{where:10}{count:5}")
    return 1 if lost else 0


def run(ground: Path, kills: int) -> Counter[tuple[str, str]]:
    """The attempts by actor, and by where they were killed."""
    installation = Installation.make(ground / "prefix")
    installation.adopt_host()
    packages = build_packages(ground / "packages")
    tools = Tools.copy(ground / "tools", installation.prefix)
    outcomes: Counter[tuple[str, str]] = Counter()
    for kind in actor_kinds():
        pool = ground / kind
        actor = installation.actor(kind, pool)
        family = OtaFamily.make(actor, pool, packages)
        bench = OtaBench(family, pool, tools, tar=kind == "user")
        generator = random.Random(f"{kind} {kills}")
        for _ in range(kills // len(actor_kinds())):
            try:
                where = bench.interrupt(generator).split()[0]
            except Exception:
                traceback.print_exc()
                where = "LOST"
            outcomes[kind, where] += 1
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
