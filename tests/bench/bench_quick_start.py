# SPDX-License-Identifier: Apache-2.0
"""Each step of the Quick Start beside the stock tool that does the same without nodes.

python3 tests/bench/bench_quick_start.py [--rounds=N]: prints a Markdown table, as an ordinary user
and as root. The other side is, where there is one, `dnf --installroot` into a plain directory (root
only) with the same packages, metadata cached for both, and for running bwrap with the very
arguments that red-wrap gives it. Both sides run in turn; figures are medians (smallest to largest).

A plain directory has neither the core OS nor a shell: stock dnf starts from a copy of the adopted
core OS's rpmdb and runs no scriptlets, where red-install runs all three. It does less.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timing import (
    CHECKOUT,
    StockDnf,
    Tools,
    installed_tools,
    interleave,
    print_table,
    ratio,
    spread,
)

from support.actors import actor_kinds

Step = Callable[[int], float]


@dataclass(frozen=True)
class Walk:
    """One walk through the Quick Start for each turn, in a place of its own."""

    tools: Tools
    repositories: Path
    stock: StockDnf

    def parent(self, turn: int) -> Path:
        return self.tools.directory / f"agl-redpesk9-{turn}"

    def child(self, turn: int) -> Path:
        return self.parent(turn) / "agl-demo"

    def plain(self, turn: int) -> Path:
        return self.tools.directory / f"plain-{turn}"

    def red(self, node: Path, *words: str) -> float:
        return self.tools.time(["red-dnf", *words, f"--redpath={node}"])

    def create(self, node: Path, alias: str) -> float:
        return self.red(node, "red-manager", "--create", f"--alias={alias}")

    def add_repository(self, node: Path, name: str) -> float:
        return self.red(node, "red-manager", f"--add-repo={self.repositories}/{name}.repo")

    def fetch_metadata(self, node: Path) -> float:
        return self.red(node, "red-makecache")

    def dnf(self, turn: int, *words: str) -> float:
        return self.tools.time(self.stock.command(self.plain(turn), *words))

    def dnf_install(self, turn: int, package: str) -> float:
        return self.dnf(turn, "install", "--setopt=tsflags=noscripts", package)

    def prepare_plain(self, turn: int) -> float:
        """Let an installroot know what the core OS provides, as the family rpmdb does."""
        core = self.tools.main.parents[2] / "var/lib/rpm"
        if core.exists():
            shutil.copytree(core, self.plain(turn) / "var/lib/rpm")
        return self.dnf(turn, "makecache")

    def run(self, node: Path, *command: str) -> float:
        return self.tools.time(["red-wrap", f"--redpath={node}", "--", *command])

    def run_raw(self, node: Path, *command: str) -> float:
        """bwrap with what red-wrap --json says, its data files ready."""
        script = self.tools.directory / "raw"
        script.write_text(f"#!/bin/sh\n{self._raw_script(node, command)}\n")
        script.chmod(0o755)
        return self.tools.time([str(script)])

    def _raw_script(self, node: Path, command: tuple[str, ...]) -> str:
        text = self.tools.actor.check(["red-wrap", f"--redpath={node}", "--json"])
        words: list[str] = []
        files = []
        for number, step in enumerate(json.loads(text)["operations"]):
            arguments = list(step["arguments"])
            if "command" in step and step["operation"] == "Data":
                path = self.tools.directory / f"data-{number}"
                path.write_text("")
                path.chmod(0o644)
                files.append(f"{arguments[3]}<'{path}'")
            words += arguments
        return f"exec bwrap {shlex.join([*words, '--', *command])} {' '.join(files)}"


def steps_of(walk: Walk) -> dict[str, Step]:
    """All steps in the order in which they are walked; `stock: X` is what X is beside."""
    parent, child = walk.parent, walk.child
    serve = ("agl-httpd", "--version")
    steps: dict[str, Step] = {
        "create a node": lambda turn: walk.create(parent(turn), "agl-core"),
        "add a repository": lambda turn: walk.add_repository(parent(turn), "platform"),
        "(metadata)": lambda turn: walk.fetch_metadata(parent(turn)),
        "search": lambda turn: walk.red(parent(turn), "red-search", "agl-httpd"),
        "install the platform": lambda turn: walk.red(
            parent(turn), "red-install", "-y", "agl-httpd"),
        "run": lambda turn: walk.run(parent(turn), *serve),
        "run again": lambda turn: walk.run(parent(turn), *serve),
        "bwrap: run again": lambda turn: walk.run_raw(parent(turn), *serve),
        "create a child": lambda turn: walk.create(child(turn), "agl-demo"),
        "(child's repository)": lambda turn: walk.add_repository(child(turn), "application"),
        "(child's metadata)": lambda turn: walk.fetch_metadata(child(turn)),
        "install in the child": lambda turn: walk.red(
            child(turn), "red-install", "-y", "helloworld"),
        "(first run)": lambda turn: walk.run(child(turn), *serve),
        "run across the family": lambda turn: walk.run(child(turn), *serve),
        "bwrap: run across the family": lambda turn: walk.run_raw(child(turn), *serve),
    }
    if walk.tools.actor.kind == "root":
        steps.update({
            "(plain)": walk.prepare_plain,
            "stock: search": lambda turn: walk.dnf(turn, "search", "agl-httpd"),
            "stock: install the platform": lambda turn: walk.dnf_install(turn, "agl-httpd"),
            "stock: install in the child": lambda turn: walk.dnf_install(turn, "helloworld"),
        })
    steps["delete the child"] = lambda turn: walk.tools.time(["rm", "-rf", str(child(turn))])
    return steps


def bench(kind: str, rounds: int) -> None:
    """Walk ``rounds`` times as one actor, and print the table."""
    with installed_tools(kind) as tools:
        repositories = tools.directory / "repos"
        subprocess.run([CHECKOUT / "scripts/build-examples", repositories], check=True,
                       stdout=subprocess.DEVNULL)
        stock = StockDnf.make(tools.directory / "stock", repositories / "platform",
                              repositories / "application")
        times = interleave(steps_of(Walk(tools, repositories, stock)), rounds)
    rows = []
    for name, values in times.items():
        if ":" in name or name.startswith("("):
            continue
        beside = next((other for other in ("stock", "bwrap") if f"{other}: {name}" in times), "")
        other = times.get(f"{beside}: {name}")
        rows.append([name, spread(values), f"{beside} {spread(other)}" if other else "",
                     f"{ratio(values, other):.2f}" if other else ""])
    print_table(f"Quick Start as {'root' if kind == 'root' else 'an ordinary user'}",
                ["step", "ms", "beside, ms", "ratio"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="the steps of the Quick Start beside stock tools")
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    for kind in actor_kinds():
        bench(kind, rounds)


if __name__ == "__main__":
    main()
