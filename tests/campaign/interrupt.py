# SPDX-License-Identifier: Apache-2.0
"""The long campaign of kill -9: `tox -e campaign -- --kills=900`.

As an ordinary user and as root, in one process each; every scenario has kills spread uniformly over
its measured duration, kills by the clock while the journal exists, and kills before single changes
of the commit. After each one, tests/support/interruption.py decides whether anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Iterator

from support.actors import Actor, actor_kinds
from support.installing import Installation
from support.interruption import (
    SCENARIOS,
    VICTIMS,
    Bench,
    Tools,
    build_repository,
    kill,
    start_and_kill,
)
from support.nodes import make_node
from support.trees import remove_tree

BINS = 20
WAYS = ("uniform", "journal", "change")
NEXT_COMMANDS = (
    ("red-list", "--installed"),
    ("red-manager", "--recover"),
    ("red-repoquery", "--installed"),
)


@dataclass(frozen=True)
class Kill:
    """One attempt. ``moment`` is a fraction of the command's, or of its commit's, duration."""

    actor: str
    scenario: str
    way: str
    victim: str
    moment: float
    running: bool  # when it was killed
    in_commit: bool  # the journal was there afterwards, or the commit had begun
    outcome: str  # old, new, or what was lost


class Campaign:
    """All kills of one actor on one scenario."""

    def __init__(self, bench: Bench, generator: random.Random) -> None:
        self.bench = bench
        self.generator = generator
        self.changes = bench.count_changes()
        self.commit_duration = self._measure_commit()  # seconds

    def run(self, share: dict[str, int]) -> Iterator[Kill]:
        """``share`` says how many kills of each way."""
        attempts: dict[str, Callable[[float, str], bool]] = {
            "uniform": self._kill_by_clock,
            "journal": self._kill_in_journal,
            "change": self._kill_before_change,
        }
        plan = [
            (way, (number + self.generator.random()) / share[way])
            for way in WAYS
            for number in range(share[way])
        ]
        self.generator.shuffle(plan)
        for number, (way, moment) in enumerate(plan):
            victim = "command" if way == "change" else VICTIMS[number % len(VICTIMS)]
            self.bench.restore()
            running = attempts[way](moment, victim)
            yield self._conclude(number, way, moment, victim, running)

    def _conclude(self, number: int, way: str, moment: float, victim: str, running: bool) -> Kill:
        in_commit = running and (way == "change" or self.bench.journal.exists())
        try:
            outcome = self.bench.check(*NEXT_COMMANDS[number % len(NEXT_COMMANDS)])
        except Exception:
            outcome = "LOST: " + traceback.format_exc()
        actor, scenario = self.bench.node.actor.kind, self.bench.scenario.name
        return Kill(actor, scenario, way, victim, moment, running, in_commit, outcome)

    def _kill_by_clock(self, moment: float, victim: str) -> bool:
        actor, argv = self.bench.node.actor, self.bench.command()
        return start_and_kill(actor, argv, moment * self.bench.duration, victim)

    def _kill_in_journal(self, moment: float, victim: str) -> bool:
        process = self._start()
        self._wait_for(process, present=True)
        time.sleep(moment * self.commit_duration)
        running = process.poll() is None
        kill(process.pid, victim)
        process.wait()
        return running

    def _kill_before_change(self, moment: float, victim: str) -> bool:
        point = int(moment * self.changes)
        return self.bench.node.actor.run(self.bench.dying_command(point)).returncode == -9

    def _measure_commit(self) -> float:
        self.bench.restore()
        process = self._start()
        self._wait_for(process, present=True)
        start = time.monotonic()
        self._wait_for(process, present=False)
        duration = time.monotonic() - start
        process.wait()
        return duration

    def _start(self) -> subprocess.Popen[str]:
        quiet = subprocess.DEVNULL
        argv = self.bench.command()
        return self.bench.node.actor.popen(argv, stdout=quiet, stderr=quiet, cwd="/")

    def _wait_for(self, process: subprocess.Popen[str], *, present: bool) -> None:
        while self.bench.journal.exists() != present and process.poll() is None:
            time.sleep(0.0005)


def work(actor: Actor, pool: Path, repository: Path, tools: Tools, kills: int, out: Path) -> None:
    """Write one JSON line for each kill."""
    each = -(-kills // len(SCENARIOS))
    share = {"uniform": each, "journal": max(1, each // 8), "change": max(1, each // 4)}
    generator = random.Random(f"{actor.kind} {kills}")
    with out.open("w") as stream:
        for scenario in SCENARIOS:
            node = make_node(actor, pool / scenario.name, scenario.name, repository)
            campaign = Campaign(Bench(node, scenario, tools), generator)
            for kill_ in campaign.run(share):
                stream.write(json.dumps(asdict(kill_)) + "\n")
                stream.flush()


def report(kills: list[Kill], seconds: float) -> bool:
    """Print the histograms and the outcomes; whether nothing was lost."""
    hit = [each for each in kills if each.running]
    in_commit = [each for each in hit if each.in_commit]
    lost = [each for each in kills if each.outcome not in ("old", "new")]
    print(f"\n{len(kills)} attempts in {seconds / 60:.1f} min")
    print(f"kills of a running command: {len(hit)}; inside the commit: {len(in_commit)}")
    print(f"losses: {len(lost)}")
    for title, chosen in (
        ("uniform over the command's duration", "uniform"),
        ("by the clock while the journal exists", "journal"),
        ("before a change of the commit or of the cleaning after it", "change"),
    ):
        print(f"\nKills {title} (old node / new node):")
        print_histogram([each for each in hit if each.way == chosen])
    print("\nActor, scenario: kills, of which in the commit; outcomes")
    for actor, scenario in sorted({(each.actor, each.scenario) for each in hit}):
        mine = [each for each in hit if (each.actor, each.scenario) == (actor, scenario)]
        outcomes = dict(sorted(Counter(each.outcome[:4] for each in mine).items()))
        committing = sum(each.in_commit for each in mine)
        print(f"  {actor:5}{scenario:10}{len(mine):5}{committing:5}  {outcomes}")
    print("Victims:", dict(Counter(each.victim for each in hit)))
    for each in lost:
        print(f"\n{each.actor} {each.scenario} {each.way} {each.victim} {each.moment}")
        print(each.outcome)
    return not lost


def print_histogram(kills: list[Kill]) -> None:
    for number in range(BINS):
        here = [each for each in kills if int(each.moment * BINS) == number]
        old = sum(each.outcome == "old" for each in here)
        new = sum(each.outcome == "new" for each in here)
        bar = "o" * old + "n" * new + "!" * (len(here) - old - new)
        print(f"  {number * 100 // BINS:3}% {old:4}/{new:<4} {bar}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=900, help="uniform ones, of all actors")
    parser.add_argument("--pool", default="/var/tmp", help="directory for nodes (/var/tmp)")
    options = parser.parse_args()
    ground = Path(tempfile.mkdtemp(prefix="redpak-campaign.", dir=options.pool)).resolve()
    ground.chmod(0o755)
    start = time.monotonic()
    try:
        kills = run_workers(ground, options.kills)
    finally:
        remove_tree(ground)
    return 0 if kills and report(kills, time.monotonic() - start) else 1


def run_workers(ground: Path, kills: int) -> list[Kill]:
    installation = Installation.make(ground / "prefix")
    installation.adopt_host()
    repository = build_repository(ground / "repository")
    tools = Tools.copy(ground / "tools", installation.prefix)
    workers = []
    for kind in actor_kinds():
        pool = ground / kind
        actor = installation.actor(kind, pool)
        out = ground / f"{kind}.json"
        pid = os.fork()
        if pid == 0:
            try:
                work(actor, pool, repository, tools, kills // len(actor_kinds()), out)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        workers.append((pid, out))
    found: list[Kill] = []
    whole = True
    for pid, out in workers:
        whole = os.waitpid(pid, 0)[1] == 0 and whole
        if out.exists():
            found += [Kill(**json.loads(line)) for line in out.read_text().splitlines()]
    if not whole:
        print("a worker failed", file=sys.stderr)
    return found if whole else []


if __name__ == "__main__":
    sys.exit(main())
