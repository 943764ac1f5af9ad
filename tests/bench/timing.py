# SPDX-License-Identifier: Apache-2.0
"""What the benches of transactions share: measured commands, an installation, Markdown tables."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

from support.actors import SYSTEM_PATH, Actor, find_actor  # noqa: E402

T = TypeVar("T")

_SAMPLING = 0.005  # seconds between two looks at memory


@dataclass(frozen=True)
class Peak:
    """Memory in MiB: the largest sum of the PSS of all processes of a command that was seen, and
    the largest resident set of any one of them (getrusage(2), as time(1) shows it)."""

    all_processes: float
    one_process: float


@dataclass(frozen=True)
class Cost:
    """Seconds: on the wall, and of all processors by all processes of a command, which the load of
    the machine changes less."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Tools:
    """A private installation of the checkout, and who runs it."""

    actor: Actor
    directory: Path
    main: Path

    @property
    def packages(self) -> Path:
        """Where the installation's Python packages are."""
        return self.main.parents[2] / "lib/redpak"

    def time(self, argv: Sequence[str]) -> float:
        """Run argv, insist on success; wall time in seconds."""
        start = perf_counter()
        self.actor.check(argv)
        return perf_counter() - start

    def cost(self, argv: Sequence[str]) -> Cost:
        """Run argv, insist on success; the time it took."""
        start = perf_counter()
        process = self.actor.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, argv
        return Cost(wall, usage.ru_utime + usage.ru_stime)

    def peak(self, argv: Sequence[str]) -> Peak:
        """Run argv, insist on success; the memory it took."""
        process = self.actor.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ended = threading.Event()
        highest = 0

        def watch() -> None:
            nonlocal highest
            while not ended.wait(_SAMPLING):
                highest = max(highest, _tree_pss(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watcher.join()
        assert process.returncode == 0, argv
        return Peak(highest / 1024, usage.ru_maxrss / 1024)


def _tree_pss(pid: int) -> int:
    """KiB of a process and all below it; 0 for what ended meanwhile."""
    total = 0
    children: list[str] = []
    try:
        # First: what is forked between the two looks would be counted twice.
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
            children = stream.read().split()
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
            total = next(int(line.split()[1]) for line in stream if line.startswith("Pss:"))
    except (OSError, StopIteration):
        pass
    return total + sum(_tree_pss(int(child)) for child in children)


@contextmanager
def installed_tools(kind: str = "root") -> Iterator[Tools]:
    """Install the checkout below /var/tmp, adopt the host, and remove it all at the end.

    Stock dnf shares the environment: its rpm finds /var/lib/rpm in an installroot, as ours does,
    though Debian's would look in the home directory.
    """
    parent = os.environ.get("REDPAK_TEST_POOL", "/var/tmp")
    directory = Path(tempfile.mkdtemp(prefix="redpak-bench.", dir=parent)).resolve()
    try:
        directory.chmod(0o755)
        prefix = directory / "prefix"
        quiet = subprocess.DEVNULL
        subprocess.run([CHECKOUT / "scripts/install", f"--prefix={prefix}"], check=True,
                       stdout=quiet)
        main = prefix / "etc/redpak/main.yaml"
        actor = find_actor(kind)
        home = directory / "home"
        home.mkdir()
        (home / ".rpmmacros").write_text("%_dbpath /var/lib/rpm\n")
        os.chown(home, actor.uid, actor.gid)
        environ = {"PATH": f"{prefix}/bin:{SYSTEM_PATH}", "HOME": str(home), "LANG": "C.UTF-8",
                   "TERM": "dumb", "redpak_MAIN": str(main)}
        if f"rpmdir: {prefix}/" in main.read_text():
            root = find_actor("root" if os.geteuid() == 0 else "user")
            root.with_environ(**environ).check(["red-dnf", "red-manager", "--adopt"])
        pool = directory / "pool"
        pool.mkdir()
        os.chown(pool, actor.uid, actor.gid)
        yield Tools(actor.with_environ(**environ), pool, main)
    finally:
        shutil.rmtree(directory)


@dataclass(frozen=True)
class StockDnf:
    """Stock dnf on an installroot, with repositories of unsigned packages."""

    configuration: Path
    cache: Path

    @classmethod
    def make(cls, directory: Path, *repositories: Path) -> StockDnf:
        """Write its configuration into ``directory``: no plugin, nothing of the host."""
        repos = directory / "repos"
        repos.mkdir(parents=True)
        for repository in repositories:
            (repos / f"{repository.name}.repo").write_text(
                f"[{repository.name}]\nname={repository.name}\nbaseurl=file://{repository}\n")
        configuration = directory / "dnf.conf"
        configuration.write_text(f"[main]\ngpgcheck=0\nreposdir={repos}\nplugins=0\n"
                                 f"cachedir={directory}/cache\n")
        return cls(configuration, directory / "cache")

    def command(self, root: Path, *words: str) -> list[str]:
        return ["dnf", f"--config={self.configuration}", f"--installroot={root}", "-y",
                "--releasever=1", f"--setopt=cachedir={self.cache}",
                f"--setopt=reposdir={self.configuration.parent}/repos", *words]


def interleave(variants: Mapping[str, Callable[[int], T]], rounds: int) -> dict[str, list[T]]:
    """Run every variant in turn, so that the machine's moods meet them all; what each returned."""
    samples: dict[str, list[T]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name, run in variants.items():
            samples[name].append(run(turn))
    return samples


def spread(values: Sequence[float], scale: float = 1000) -> str:
    """Median (smallest to largest)."""
    low, middle, high = (scale * value for value in
                         (min(values), statistics.median(values), max(values)))
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(one / other for one, other in zip(ours, theirs))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print(f"\n### {title}\n")
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |", flush=True)
