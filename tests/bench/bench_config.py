# SPDX-License-Identifier: Apache-2.0
"""What loading and merging a family costs, beside PyYAML's C loader merely parsing its files.

PYTHONPATH=. python3 tests/bench/bench_config.py [ROUNDS]: the two are run in turn, medians are
shown; the bars are a ratio of at most 3 for 4 nodes with 40 exports, and linear growth to 12
nodes with 400.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from redpak.expand import Caller
from redpak.family import load_family, load_main
from redpak.merge import merge_family
from redpak.node import NodeState, NodeStatus, write_status

CONF = Path(__file__).resolve().parents[2] / "conf"
SHAPES = ((1, 10), (2, 20), (4, 40), (4, 120), (8, 80), (12, 120), (12, 240), (12, 400))
BAR = 3.0


def make_family(pool: Path, nodes: int, exports: int) -> tuple[Path, list[Path]]:
    """A family of the default template, its exports filled up to the number wanted.

    The leaf, and all files that loading it reads.
    """
    template = (CONF / "templates.d/default.yaml").read_text(encoding="utf-8")
    own = template.count("- {mode:")
    files = [CONF / "main.yaml"]
    leaf = pool
    for number in range(nodes):
        leaf = leaf / f"node{number}"
        (leaf / "etc").mkdir(parents=True)
        wanted = exports // nodes + (number < exports % nodes)
        extra = "".join(
            f"  - {{mode: Restricted, mount: /nodes/$NODE_ALIAS/data{index}, "
            f"path: $NODE_PATH/data{index}}}\n" for index in range(max(0, wanted - own)))
        text = template[template.index("config:"):] + extra + (
            f"environ:\n  - {{key: NODE{number}, value: $NODE_PATH/usr}}\n")
        config = leaf / "etc/redpack.yaml"
        config.write_text(f"headers: {{alias: node{number}, name: n{number}}}\n{text}",
                          encoding="utf-8")
        write_status(str(leaf), NodeStatus(NodeState.ENABLE, str(leaf), 1))
        files += [config, leaf / ".rednode.yaml"]
    return leaf, files


def parse_all(files: Sequence[Path]) -> None:
    """What is compared with: PyYAML on libyaml, reading and constructing, nothing else."""
    for file in files:
        with file.open("rb") as stream:
            yaml.load(stream, Loader=yaml.CSafeLoader)


def load_and_merge(leaf: Path) -> None:
    """What a cold launch does: read, validate, check, expand and merge the whole family."""
    main = load_main(str(CONF / "main.yaml"), {})
    family = load_family(str(leaf), main=main)
    merge_family(family, environ={"HOME": "/root", "PATH": "/usr/bin"}, caller=Caller.current())


def interleaved(first: Callable[[], None], second: Callable[[], None],
                rounds: int) -> tuple[float, float]:
    """Medians of both in ms, run in turn so that the machine's moods hit both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, found in zip((first, second), times):
            start = time.perf_counter()
            run()
            found.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 when the bar for 4 nodes with 40 exports is missed."""
    rounds = int(arguments[0]) if arguments else 51
    passed = True
    print(f"{'nodes':>5} {'exports':>7} {'KiB':>6} {'CSafeLoader ms':>15} {'redpak ms':>10} "
          f"{'ratio':>6} {'ms/KiB':>7}")
    for nodes, exports in SHAPES:
        with tempfile.TemporaryDirectory() as pool:
            leaf, files = make_family(Path(pool).resolve(), nodes, exports)
            size = sum(file.stat().st_size for file in files) / 1024
            gc.collect()
            parse, ours = interleaved(lambda files=files: parse_all(files),  # type: ignore[misc]
                                      lambda leaf=leaf: load_and_merge(leaf),  # type: ignore[misc]
                                      rounds)
        if (nodes, exports) == (4, 40):
            passed = ours <= BAR * parse
        print(f"{nodes:5} {exports:7} {size:6.1f} {parse:15.2f} {ours:10.2f} "
              f"{ours / parse:6.2f} {ours / size:7.3f}")
    print(f"bar: 4 nodes with 40 exports at most {BAR:.0f} times CSafeLoader: "
          f"{'met' if passed else 'MISSED'} (medians of {rounds}, interleaved)")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
