# SPDX-License-Identifier: Apache-2.0
"""kill -9 at any moment: the node is the old one or the new one, and the next command heals it.

tests/campaign/interrupt.py is the long version, with a thousand kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import traceback
from itertools import count
from pathlib import Path

import pytest

from redpak.node import read_node
from redrpm.locking import recover
from redsys import libc
from support.actors import Actor, describe
from support.dying import Fuse
from support.interruption import (
    FINISHED,
    SCENARIOS,
    VICTIMS,
    Bench,
    Content,
    Scenario,
    Tools,
    build_repository,
    difference,
    start_and_kill,
)
from support.nodes import make_node
from support.trees import snapshot_tree

KILLS = 2  # in each scenario, by the clock, and one more within the commit
CHANGES = 50  # that each of their commits makes, at least
CHILD_STEP = 9  # only each of so many changes, in the commit, has a kill of the child alone
CLEANING_STEP = 17  # only each of so many changes, after the commit, has a kill
ROLLBACK_STEP = 25  # only each of so many recoveries is rolled back
NEXT_COMMANDS = (
    ("red-list", "--installed"),
    ("red-manager", "--recover"),
    ("red-repoquery", "--installed"),
)
PR_SET_DUMPABLE = 4


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    return build_repository(session_pool / "interruption")


@pytest.fixture(scope="module")
def tools(session_pool: Path, prefix: Path) -> Tools:
    return Tools.copy(session_pool / "tools", prefix)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_killed_command_leaves_the_old_node_or_the_new(
    actor: Actor, pool: Path, repository: Path, tools: Tools, scenario: Scenario
) -> None:
    bench = Bench(make_node(actor, pool / "node", "node", repository), scenario, tools)
    # All scenarios together have one kill in each of as many equal parts of the duration.
    first = SCENARIOS.index(scenario)
    parts = KILLS * len(SCENARIOS)
    for number, part in enumerate(range(first, parts, len(SCENARIOS))):
        bench.restore()
        moment = bench.duration * (part + 0.5) / parts
        victim = VICTIMS[(first + number) % len(VICTIMS)]
        start_and_kill(actor, bench.command(), moment, victim)
        bench.check(*NEXT_COMMANDS[number])
    bench.restore()
    point = random.Random(f"{scenario.name} {actor.kind}").randrange(CHANGES)
    assert actor.run(bench.dying_command(point)).returncode == -9
    bench.check(*NEXT_COMMANDS[KILLS])


def test_a_commit_killed_at_every_single_change_is_finished_by_the_next_command(
    actor: Actor, pool: Path, repository: Path, tools: Tools
) -> None:
    scenario = next(each for each in SCENARIOS if each.name == "upgrade")
    bench = Bench(make_node(actor, pool / "node", "node", repository), scenario, tools)
    for point in count():
        bench.restore()
        assert actor.run(bench.dying_command(point)).returncode == -9
        if bench.journal.exists():
            break
        assert bench.check("red-list", "--installed") == "old"
    # From here on recovery takes the steps of the commit: kill that, and the recovery from that.
    half = pool / "half"
    subprocess.run(["cp", "-a", bench.node.path, half], check=True)
    generator = random.Random(point)
    expected = None
    for point in count():
        subprocess.run(["rm", "-rf", bench.node.path], check=True)
        subprocess.run(["cp", "-a", half, bench.node.path], check=True)
        killed = recover_in_child(actor, bench.node.path, point)
        recover_in_child(actor, bench.node.path, generator.randrange(point + 1))
        assert not recover_in_child(actor, bench.node.path, -1)
        left = {name.split(".")[0] for name in os.listdir(bench.node.path / ".redpak")}
        assert left == {"previous", "family-rpmdb"}, f"killed before change {point}"
        found = snapshot_tree(bench.node.path, without=("var/cache", "var/log", ".redpak"))
        for place in (".", "var/lib/dnf", "var/lib/dnf/libdnf5", "var/lib/rpm"):
            found.pop(place, None)  # their time is that of the recovery
        expected = expected or found
        assert found == expected, f"killed before change {point}"
        if killed and point % ROLLBACK_STEP == 0:
            bench.node.dnf("red-manager", "--rollback")
            difference(Content.of(bench.node).loose, bench.old.loose)
        if not killed:
            break
    assert point > 100
    bench.check("red-list", "--installed")


def test_a_child_killed_in_its_commit_is_finished_by_its_supervisor(
    actor: Actor, pool: Path, repository: Path, tools: Tools
) -> None:
    scenario = next(each for each in SCENARIOS if each.name == "install")
    bench = Bench(make_node(actor, pool / "node", "node", repository), scenario, tools)
    bench.count_changes()
    finished = []
    for point in range(0, bench.child_changes, CHILD_STEP):
        bench.restore()
        done = actor.run(bench.dying_child_command(point))
        assert done.returncode == 128 + signal.SIGKILL, describe(done)
        assert not bench.stage.exists() and not bench.journal.exists()
        finished.append(FINISHED in done.stderr)
        # Before the journal nothing was to be finished; the child's own end comes after it.
        outcome = bench.check("red-list", "--installed")
        assert outcome == ("new" if finished[-1] or any(finished) else "old")
    assert finished.count(True) > 2 and not finished[0]


def test_a_supervisor_killed_while_it_cleans_up_leaves_the_new_node(
    actor: Actor, pool: Path, repository: Path, tools: Tools
) -> None:
    scenario = next(each for each in SCENARIOS if each.name == "downgrade")
    bench = Bench(make_node(actor, pool / "node", "node", repository), scenario, tools)
    changes = bench.count_changes()
    assert changes - bench.child_changes > 2 * CLEANING_STEP
    for point in range(bench.child_changes, changes, CLEANING_STEP):
        bench.restore()
        assert actor.run(bench.dying_command(point)).returncode == -9
        assert bench.check("red-list", "--installed") == "new"


def recover_in_child(actor: Actor, path: Path, point: int) -> bool:
    """Run the recovery of a node in a process that dies before change ``point``; whether it did."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if os.geteuid() != actor.uid:
                os.setgroups([])
                os.setresgid(actor.gid, actor.gid, actor.gid)
                os.setresuid(actor.uid, actor.uid, actor.uid)
                libc.prctl(PR_SET_DUMPABLE, 1)  # /proc/self is root's otherwise
            fuse = Fuse(point)
            fuse.lay()
            fuse.light()
            recover(read_node(str(path)), notify=lambda _text: None)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)
