# SPDX-License-Identifier: Apache-2.0
"""The bench report: redpak beside stock dnf, bubblewrap, podman, crun, firejail and unshare.

scripts/bench [--rounds=N] [--output=DIR] [--only=PART]..., as root: writes DIR/report.md with its
SVG charts; DIR is docs/bench by default. What is compared runs interleaved, so that whatever else
the machine does meets all alike; figures are medians (smallest to largest).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench_launch import Bench, ground_at, start
from bench_transactions import Ground as Transactions
from bench_transactions import build_packages, package_names
from chart import bars, curves, number_text
from peers import Peers, disk_usage, proportional_memory
from timing import CHECKOUT, StockDnf, Tools, installed_tools, interleave

from support.wrapping import MAIN, Ground

MOUNTS = (25, 50, 100, 200, 400)
DEPTHS = (1, 2, 4, 8)
SIZES = (1, 10, 50, 200)
SERVICE = ("agl-httpd", "--port=0", "--roothttp=/usr/share")


@dataclass
class Report:
    """Markdown, with charts beside it."""

    directory: Path
    parts: list[str] = field(default_factory=list)

    def section(self, title: str, text: str = "") -> None:
        print(f"bench: {title}", file=sys.stderr, flush=True)
        self.parts.append(f"## {title}\n")
        if text:
            self.parts.append(f"{text}\n")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [header, ["---"] * len(header), *rows]
        self.parts.append("\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n")

    def chart(self, name: str, title: str, svg: str) -> None:
        (self.directory / f"{name}.svg").write_text(svg, encoding="utf-8")
        self.parts.append(f"![{title}]({name}.svg)\n")

    def write(self) -> Path:
        file = self.directory / "report.md"
        file.write_text("\n".join(self.parts), encoding="utf-8")
        return file


@dataclass(frozen=True)
class Place:
    """What every part of the bench uses."""

    tools: Tools
    peers: Peers
    repos: Path
    rounds: int

    @property
    def ground(self) -> Ground:
        return Ground(self.tools.actor, self.tools.directory,
                      self.tools.main.parents[2] / "bin/red-wrap")

    def family(self, name: str) -> tuple[Path, Path]:
        """The two nodes of the Quick Start, with their packages."""
        core = self.tools.directory / name
        for path, alias, repo, package in ((core, "agl-core", "platform", "agl-httpd"),
                                           (core / "demo", "agl-demo", "application",
                                            "helloworld")):
            self.dnf("red-manager", path, "--create", f"--alias={alias}",
                     f"--add-repo={self.repos}/{repo}.repo")
            self.dnf("red-install", path, "-y", package)
        return core, core / "demo"

    def dnf(self, command: str, node: Path, *words: str) -> float:
        return self.tools.time(["red-dnf", command, f"--redpath={node}", *words])


def triple(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def spread(values: Sequence[float]) -> str:
    low, middle, high = triple(values)
    return f"{number_text(middle)} ({number_text(low)} to {number_text(high)})"


def compare(report: Report, samples: Mapping[str, Sequence[float]], unit: str, ours: str) -> None:
    """A table of samples, with the ratio of each round's figures to ours."""
    rows = [[name, spread(values), number_text(statistics.median(
        value / own for value, own in zip(values, samples[ours])))]
        for name, values in samples.items()]
    report.table(["", unit, f"times {ours}"], rows)


def describe_machine(report: Report, rounds: int) -> None:
    def first(*argv: str) -> str:
        try:
            done = subprocess.run(argv, capture_output=True, text=True)
        except FileNotFoundError:
            return "not installed"
        return (done.stdout or done.stderr).strip().partition("\n")[0]

    cpu = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    release = next(line.partition("=")[2].strip('"') for line in
                   Path("/etc/os-release").read_text().splitlines()
                   if line.startswith("PRETTY_NAME="))
    commit = first("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty")
    report.parts.append(
        "# redpak beside others\n\n"
        f"Made by `scripts/bench --rounds={rounds}` from commit {commit}, "
        f"{time.strftime('%Y-%m-%d')}. Figures are medians (smallest to largest) of runs in turn; "
        "with other work on the machine trust the ratios more than the times.\n")
    report.table(["machine", ""], [
        ["processor", f"{os.cpu_count()} x {cpu}"],
        ["memory", f"{memory:.0f} GiB"],
        ["system", f"{release}, Linux {os.uname().release}"],
        ["file system", first("stat", "-f", "-c", "%T", "/var/tmp")],
        ["load before", " ".join(f"{value:.1f}" for value in os.getloadavg())],
        *([name, first(*argv)] for name, argv in (
            ("dnf", ("dnf", "--version")), ("rpm", ("rpm", "--version")),
            ("bubblewrap", ("bwrap", "--version")), ("podman", ("podman", "--version")),
            ("crun", ("crun", "--version")), ("firejail", ("firejail", "--version")),
            ("unshare", ("unshare", "--version")))),
    ])


def bench_launch(report: Report, place: Place) -> None:
    report.section("Launch", "Running `/usr/bin/true`, as root. red-wrap: in a family of two nodes "
                   "with the default configuration, from its launch plan; cold: without one. raw "
                   "bwrap: the very options that red-wrap gives it, its data files ready.")
    _, node = place.family("launch")
    bench = Bench(place.ground, node)
    bench.run_warm()
    others = place.peers.launches()
    environ = dict(place.tools.actor.environ)
    # The others stand between a cold launch and the next warm one.
    variants = {"red-wrap": lambda turn: bench.run_warm().wall,
                "raw bwrap": lambda turn: bench.run_raw().wall,
                **{name: lambda turn, argv=argv: start(argv, environ, {}).wall
                   for name, argv in others.items()},
                "red-wrap cold": lambda turn: bench.run_cold().wall}
    samples = interleave(variants, place.rounds)
    compare(report, samples, "ms", "red-wrap")
    report.chart("launch", "Launch of /usr/bin/true", bars(
        "Launch of /usr/bin/true, ms", "ms",
        {name: triple(values) for name, values in samples.items()}))
    absent(report, place.peers)


def absent(report: Report, peers: Peers) -> None:
    if peers.absent:
        report.parts.append("Could not take part: " + "; ".join(
            f"{name} ({why})" for name, why in peers.absent.items()) + ".\n")
        peers.absent.clear()


def bench_install(report: Report, place: Place) -> None:
    report.section("Install", "agl-httpd with its library, metadata fetched beforehand: "
                   "red-install into a new node, stock `dnf --installroot` into a new directory "
                   "(without scriptlets: there is no shell in it), and `podman build` of two "
                   "lines, FROM an image that has dnf and RUN dnf install.")
    stock = StockDnf.make(place.tools.directory / "install-stock", place.repos / "platform")
    core = place.tools.main.parents[2] / "var/lib/rpm"

    def ours(turn: int) -> float:
        node = place.tools.directory / f"install-{turn}"
        place.dnf("red-manager", node, "--create", "--alias=x",
                  f"--add-repo={place.repos}/platform.repo")
        place.dnf("red-makecache", node)
        return place.dnf("red-install", node, "-y", "agl-httpd")

    def theirs(turn: int) -> float:
        root = place.tools.directory / f"install-plain-{turn}"
        if core.exists():
            shutil.copytree(core, root / "var/lib/rpm")
        place.tools.actor.check(stock.command(root, "makecache"))
        return place.tools.time(
            stock.command(root, "install", "--setopt=tsflags=noscripts", "agl-httpd"))

    variants = {"red-install": ours, "dnf --installroot": theirs}
    build = prepare_podman_build(place, core)
    if build is not None:
        variants["podman build"] = build
    samples = interleave(variants, -(-place.rounds // 3))
    compare(report, {name: [1000 * value for value in values]
                     for name, values in samples.items()}, "ms", "red-install")
    absent(report, place.peers)


def prepare_podman_build(place: Place, core: Path):  # type: ignore[no-untyped-def]
    """A function that builds the image; None where that is not possible."""
    peers = place.peers
    roots = sorted(peers.base.parent.glob(f"{peers.base.name}+packages.*"))
    if shutil.which("podman") is None or not roots:
        peers.absent["podman build"] = (
            "not installed" if roots else "no root with dnf: scripts/prove --need=packages true")
        return None
    context = peers.directory / "context"
    shutil.copytree(place.repos / "platform", context / "repo")
    shutil.copytree(core, context / "rpmdb")
    (context / "macros").write_text("%_dbpath /var/lib/rpm\n")
    try:
        peers.import_image(roots[0], "with-dnf")
        peers.build_image("FROM localhost/with-dnf\nCOPY rpmdb /var/lib/rpm\n"
                          "COPY macros /root/.rpmmacros\nCOPY repo /repo\n", context, "ready")
    except subprocess.CalledProcessError as error:
        peers.absent["podman build"] = f"fails here: {error}"
        return None
    install = ("FROM localhost/ready\nRUN dnf -y --releasever=1 --disablerepo='*' "
               "--repofrompath=platform,file:///repo --setopt=platform.gpgcheck=0 "
               "install agl-httpd\n")
    return lambda turn: peers.build_image(install, context, "built")


def extract(packages: Path, root: Path) -> Path:
    """The files of the packages of a repository, below root."""
    root.mkdir(parents=True, exist_ok=True)
    for package in sorted(packages.glob("*.rpm")):
        if "devel" not in package.name:
            with package.open("rb") as stream:
                archive = subprocess.run(["rpm2archive", "-"], stdin=stream, capture_output=True,
                                         check=True).stdout
            subprocess.run(["tar", "-xz", "-C", str(root)], input=archive, check=True)
    return root


def bench_footprint(report: Report, place: Place) -> None:
    report.section("Disk and memory", "agl-httpd and helloworld on a Debian without anything else. "
                   "node: the core OS is the host's own, the platform and each application are "
                   "nodes. podman: an image of that Debian, a layer for the platform, one for each "
                   "application. duplicate: each application has the runtime and its own files in "
                   "one directory, as bundles have. Memory: the PSS of a running agl-httpd with "
                   "all that its container keeps running for it.")
    # A storage of its own: no image of another part counts.
    peers = Peers(place.peers.directory / "footprint", place.peers.base)
    peers.directory.mkdir()
    base = peers.base
    core, demo = place.family("footprint")
    platform = extract(place.repos / "platform", peers.directory / "files/platform")
    application = extract(place.repos / "application", peers.directory / "files/application")
    own, app = disk_usage(core), disk_usage(application)
    rows = [["node", number_text(own - disk_usage(demo)), number_text(disk_usage(demo)),
             number_text(disk_usage(demo)), number_text(node_memory(place, demo))]]
    bundle = peers.directory / "bundle-1"
    subprocess.run(["cp", "-a", "--reflink=never", str(base), str(bundle)], check=True)
    for files in (platform, application):
        subprocess.run(["cp", "-a", f"{files}/.", str(bundle)], check=True)
    if shutil.which("podman"):
        peers.import_image(base, "base")
        files = peers.directory / "files"
        sizes = [disk_usage(peers.directory / "podman")]
        for name, text in (("platform", "FROM localhost/base\nCOPY platform /\n"),
                           ("app", "FROM localhost/platform\nCOPY application /\n"),
                           ("app2", "FROM localhost/platform\nCOPY application /\n")):
            peers.build_image(text, files, name)
            sizes.append(disk_usage(peers.directory / "podman"))
        service, pids = peers.start_service("localhost/app", SERVICE)
        time.sleep(1)
        memory = proportional_memory(pids)
        peers.stop_service(service)
        rows.append(["podman image", number_text(sizes[1]), number_text(sizes[2] - sizes[1]),
                     number_text(sizes[3] - sizes[2]), number_text(memory)])
    whole = disk_usage(bundle)
    rows.append(["duplicate", "0", number_text(whole), number_text(whole),
                 number_text(bundle_memory(bundle))])
    report.table(["", "platform, MiB on disk", "first application, MiB more",
                  "each further one, MiB more", "one running, MiB"], rows)
    report.parts.append(f"The files of the application itself: {number_text(app)} MiB.\n")
    absent(report, peers)
    peers.close()


def running_memory(argv: Sequence[str], environ: Mapping[str, str]) -> float:
    """PSS in MiB of a command and all below it, one second after its start."""
    process = subprocess.Popen(argv, env=dict(environ), stdout=subprocess.DEVNULL,
                               start_new_session=True)
    time.sleep(1)
    memory = proportional_memory([process.pid])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return memory


def node_memory(place: Place, node: Path) -> float:
    environ = place.tools.actor.environ
    argv = [str(place.ground.command), f"--redpath={node}", "--", *SERVICE]
    place.tools.actor.check([*argv[:3], "true"])
    return running_memory(argv, environ)


def bundle_memory(root: Path) -> float:
    return running_memory(["bwrap", "--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev",
                           "--unshare-pid", "--die-with-parent", "--setenv", "LD_LIBRARY_PATH",
                           "/usr/lib64", "--", *SERVICE], {"PATH": "/usr/bin:/bin"})


def bench_growth(report: Report, place: Place) -> None:
    report.section("Growth", "What a launch costs over the number of mounts and of nodes, and what "
                   "an install costs over the number of packages.")
    launches: dict[str, list[tuple[float, float]]] = {"red-wrap": [], "raw bwrap": []}
    rounds = max(5, place.rounds // 2)
    for count in MOUNTS:
        ground = ground_at(place.tools.directory / f"many-{count}", place.ground.command, "root",
                           MAIN)
        missing = count - 13
        node = ground.node("core", exports=[
            f"- {{mode: Restricted, mount: /many/{number}, path: $NODE_PATH/many/{number}}}"
            for number in range(missing)])
        for number in range(missing):
            (node / f"many/{number}").mkdir(parents=True)
        ground.settle()
        bench = Bench(ground, node)
        bench.run_warm()
        samples = interleave({"red-wrap": lambda turn, bench=bench: bench.run_warm().wall,
                              "raw bwrap": lambda turn, bench=bench: bench.run_raw().wall}, rounds)
        for name, values in samples.items():
            launches[name].append((count, statistics.median(values)))
    grow(report, "mounts", "Launch over the number of mounts", "mounts", launches)
    depth = interleave(deep_launches(place), rounds)
    grow(report, "depth", "Launch over the depth of the family", "nodes in the family",
         {"red-wrap": [(int(name), statistics.median(values)) for name, values in depth.items()]})
    grow(report, "packages", "Install over the number of packages", "packages",
         grow_packages(place))


def deep_launches(place: Place):  # type: ignore[no-untyped-def]
    variants = {}
    for depth in DEPTHS:
        ground = ground_at(place.tools.directory / f"deep-{depth}", place.ground.command, "root",
                           (CHECKOUT / "conf/main.yaml").read_text())
        path = ""
        for number in range(depth):
            path = f"{path}/n{number}".strip("/")
            node = ground.node(path, config=["path: [/nodes/$NODE_ALIAS/usr/bin]"])
        ground.settle()
        bench = Bench(ground, node)
        bench.run_warm()
        variants[str(depth)] = lambda turn, bench=bench: bench.run_warm().wall
    return variants


def grow_packages(place: Place) -> dict[str, list[tuple[float, float]]]:
    repository = build_packages(place.tools.directory / "repository")
    stock = StockDnf.make(place.tools.directory / "grow-stock", repository)
    ground = Transactions(place.tools, stock, repository)
    found: dict[str, list[tuple[float, float]]] = {"red-install": [], "dnf --installroot": []}
    for size in SIZES:
        packages = package_names(size)
        samples = interleave({
            "red-install": lambda turn, packages=packages: place.tools.time(ground.red(
                ground.fresh(f"grow-{len(packages)}-{turn}"), packages)),
            "dnf --installroot": lambda turn, packages=packages: place.tools.time(
                ground.install_stock(f"grow-{len(packages)}-{turn}", packages)),
        }, 3)
        for name, values in samples.items():
            found[name].append((size, 1000 * statistics.median(values)))
    return found


def grow(report: Report, name: str, title: str, across: str,
         series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    first = next(iter(series.values()))
    report.table([across, *(f"{one}, ms" for one in series)], [
        [f"{x:g}", *(number_text(points[at][1]) for points in series.values())]
        for at, (x, _) in enumerate(first)])
    report.chart(name, title, curves(title, across, "ms", series))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="launches of each kind; installs "
                        "take a third")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "docs/bench", metavar="DIR")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="a part of the "
                        "report (any number of times; default: all)")
    options = parser.parse_args()
    base = Path(os.environ.get("REDPAK_PROVE", "/var/tmp/redpak-prove"), "bookworm")
    if os.geteuid() != 0 or not base.is_dir():
        print("bench: error: it needs root and the base root of scripts/prove; run: sudo "
              "scripts/prove --need=packages true", file=sys.stderr)
        return 1
    os.closerange(3, 256)
    options.output.mkdir(parents=True, exist_ok=True)
    report = Report(options.output)
    describe_machine(report, options.rounds)
    with installed_tools("root") as tools:
        repos = tools.directory / "repos"
        subprocess.run([CHECKOUT / "scripts/build-examples", repos], check=True,
                       stdout=subprocess.DEVNULL)
        others = tools.directory / "others"
        others.mkdir()
        peers = Peers(others, base)
        try:
            for name, part in PARTS.items():
                if not options.only or name in options.only:
                    part(report, Place(tools, peers, repos, options.rounds))
        finally:
            peers.close()
    print(f"bench: {report.write()}")
    return 0


PARTS = {"launch": bench_launch, "install": bench_install, "footprint": bench_footprint,
         "growth": bench_growth}

if __name__ == "__main__":
    sys.exit(main())
