# SPDX-License-Identifier: Apache-2.0
"""What red-wrap costs beside raw bubblewrap with the very same arguments.

python3 tests/bench/bench_launch.py [--rounds=N]: prints the tables. All variants of a table run
interleaved, so that whatever else the machine does meets them all; figures are medians in ms. On a
loaded machine start it with `chrt -f 20`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Sequence

CHECKOUT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(CHECKOUT / "tests"))

from support.actors import SYSTEM_PATH, find_actor  # noqa: E402
from support.wrapping import MAIN, Ground, make_ground  # noqa: E402

Command = Sequence[str]
MEMORY_ROUNDS = 7


class Cost(NamedTuple):
    """ms from start to end, and ms of processor time, which a loaded machine changes less.

    The second is only that of what red-wrap adds: bwrap does not wait for its own child, whose time
    therefore counts for nobody.
    """

    wall: float
    cpu: float


def start(argv: Command, environ: Mapping[str, str], files: Mapping[int, str]) -> Cost:
    """Run argv with `files` open at the given descriptors."""
    actions = [(os.POSIX_SPAWN_OPEN, fd, path, os.O_RDONLY, 0) for fd, path in files.items()]
    before = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    after = time.perf_counter()
    assert status == 0, (argv, status)
    return Cost((after - before) * 1000, (used.ru_utime + used.ru_stime) * 1000)


class Bench:
    """One family with its launches: raw, warm and cold."""

    def __init__(self, ground: Ground, node: Path) -> None:
        self.ground, self.node = ground, node
        self.environ = dict(ground.actor.environ)
        self.files: dict[int, str] = {}
        self.commands: list[str] = []
        text = ground.actor.check([ground.command, f"--redpath={node}", "--json"])
        plan = json.loads(text)
        words = []
        for number, step in enumerate(plan["operations"]):
            if "command" in step and step["operation"] == "Data":
                path = ground.directory / f"ready-{number}"
                path.write_text(ground.actor.check(
                    ["sh", "-c", step["command"]],
                    env={"UID": str(ground.actor.uid), "GID": str(ground.actor.gid),
                         "USER": ground.actor.name, "LEAF_ALIAS": node.name}))
                self.files[int(step["arguments"][3])] = str(path)
            if "command" in step:
                self.commands.append(step["command"])
            words += step["arguments"]
        self.raw = [shutil.which("bwrap") or "", *words, "--", "/usr/bin/true"]
        self.wrap = [str(ground.command), f"--redpath={node}", "--", "/usr/bin/true"]
        self.mounts = sum("mount" in step for step in plan["operations"])

    def run_raw(self) -> Cost:
        return start(self.raw, self.environ, self.files)

    def run_warm(self) -> Cost:
        return start(self.wrap, self.environ, {})

    def run_cold(self) -> Cost:
        self.ground.plan(self.node).unlink(missing_ok=True)
        return self.run_warm()

    def run_commands(self) -> Cost:
        """The Execfd commands' own time: started together, as red-wrap does."""
        script = " ".join(f"/bin/sh -c {shlex.quote(each)} >/dev/null &" for each in self.commands)
        both = start(["/bin/sh", "-c", f"{script} wait"], self.environ, {})
        shell = self.run_shell()
        return Cost(both.wall - shell.wall, both.cpu - shell.cpu)

    def run_shell(self) -> Cost:
        return start(["/bin/sh", "-c", ":"], self.environ, {})


def interleave(variants: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    for run in variants.values():
        run()
    samples: dict[str, list[Cost]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            samples[name].append(run())
    return samples


def median(costs: Sequence[Cost], kind: int) -> float:
    return statistics.median(cost[kind] for cost in costs)


def difference(samples: Mapping[str, list[Cost]], name: str, kind: int, *,
               less: Sequence[str]) -> float:
    """The median of the paired differences between `name` and the sum of `less`."""
    return statistics.median(cost[kind] - sum(samples[other][at][kind] for other in less)
                             for at, cost in enumerate(samples[name]))


def table(title: str, rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(cell.rjust(width) if at else cell.ljust(width)
                               for at, (cell, width) in enumerate(zip(row, widths))))


def ground_at(directory: Path, command: Path, kind: str, main: str) -> Ground:
    directory.mkdir()
    return make_ground(find_actor(kind), directory, command, main=main)


def bench_family(directory: Path, command: Path, kind: str, rounds: int) -> None:
    """A family of three nodes on the default main.yaml."""
    ground = ground_at(directory / "family", command, kind,
                       (CHECKOUT / "conf/main.yaml").read_text())
    for path in ("one", "one/two", "one/two/three"):
        node = ground.node(path, config=["path: [/nodes/$NODE_ALIAS/usr/bin]"])
    ground.settle()
    bench = Bench(ground, node)
    bench.run_warm()
    samples = interleave({"raw": bench.run_raw, "warm": bench.run_warm, "cold": bench.run_cold,
                          "commands": bench.run_commands}, rounds)
    # A cold launch comes before each warm one's turn ends: the plan is always there again.
    for kind_of_cost, title in enumerate(("from start to end", "of processors")):
        raw = median(samples["raw"], kind_of_cost)
        rows = [["", "ms", "x raw", "- raw", "- raw - commands"]]
        rows.append(["raw bwrap", f"{raw:.2f}", "1.00", "", ""])
        for name in ("warm", "cold"):
            value = median(samples[name], kind_of_cost)
            rows.append([f"red-wrap {name}", f"{value:.2f}", f"{value / raw:.2f}", *(
                f"{difference(samples, name, kind_of_cost, less=less):.2f}"
                for less in (["raw"], ["raw", "commands"]))])
        rows.append(["Execfd commands", f"{median(samples['commands'], kind_of_cost):.2f}", "", "",
                     ""])
        table(f"family of 3 nodes, {bench.mounts} mounts, {len(bench.commands)} Execfd commands: "
              f"time {title}", rows)


def bench_growth(directory: Path, command: Path, kind: str, rounds: int) -> None:
    """The same isolation with more and more mounts."""
    rows = [["mounts", "raw bwrap", "red-wrap", "x raw"]]
    for count in (25, 50, 100, 200, 400):
        ground = ground_at(directory / f"many-{count}", command, kind, MAIN)
        missing = count - 13
        node = ground.node("core", exports=[
            f"- {{mode: Restricted, mount: /many/{number}, path: $NODE_PATH/many/{number}}}"
            for number in range(missing)])
        for number in range(missing):
            (node / f"many/{number}").mkdir(parents=True)
        ground.settle()
        bench = Bench(ground, node)
        bench.run_warm()
        samples = interleave({"raw": bench.run_raw, "warm": bench.run_warm}, rounds)
        raw, warm = (median(samples[name], 0) for name in ("raw", "warm"))
        rows.append([str(bench.mounts), f"{raw:.1f}", f"{warm:.1f}", f"{warm / raw:.2f}"])
    table("growth with the number of mounts", rows)


def launcher_memory(argv: Command, environ: Mapping[str, str], files: Mapping[int, str]) -> int:
    """PSS (KiB) of every process of a launch but the application, `sleep`."""
    actions = [(os.POSIX_SPAWN_OPEN, fd, path, os.O_RDONLY, 0) for fd, path in files.items()]
    pid = os.posix_spawn(argv[0], [*argv[:-1], "/usr/bin/sleep", "1"], environ,
                         file_actions=actions)
    time.sleep(0.5)
    total = 0
    pending = [pid]
    while pending:
        each = pending.pop()
        listed = Path(f"/proc/{each}/task/{each}/children").read_text().split()
        pending += [int(child) for child in listed]
        if Path(f"/proc/{each}/comm").read_text() != "sleep\n":
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    os.waitpid(pid, 0)
    return total


def bench_memory(directory: Path, command: Path, kind: str) -> None:
    ground = ground_at(directory / "memory", command, kind,
                       (CHECKOUT / "conf/main.yaml").read_text())
    node = ground.node("core")
    ground.settle()
    bench = Bench(ground, node)
    variants = {"raw bwrap": (bench.raw, bench.files), "red-wrap": (bench.wrap, {})}
    samples: dict[str, list[int]] = {name: [] for name in variants}
    for _ in range(MEMORY_ROUNDS):
        for name, (argv, files) in variants.items():
            samples[name].append(launcher_memory(argv, bench.environ, files))
    rows = [["launch", "PSS KiB"]]
    rows += [[name, f"{statistics.median(values):.0f}"] for name, values in samples.items()]
    table("memory beside the application", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="red-wrap beside raw bubblewrap")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    os.closerange(3, 256)
    kind = "root" if os.geteuid() == 0 else "user"
    directory = Path(tempfile.mkdtemp(prefix="redpak-bench.", dir="/var/tmp"))
    directory.chmod(0o755)
    os.environ["PATH"] = SYSTEM_PATH
    try:
        subprocess.run([CHECKOUT / "scripts/install", f"--prefix={directory}/prefix"], check=True,
                       stdout=subprocess.DEVNULL)
        command = directory / "prefix/bin/red-wrap"
        print(f"medians of {options.rounds} interleaved launches, as {kind}, "
              f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        bench_family(directory, command, kind, options.rounds)
        bench_growth(directory, command, kind, max(options.rounds // 3, 5))
        bench_memory(directory, command, kind)
        print(f"\nload average at the end {os.getloadavg()[0]:.1f}")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
