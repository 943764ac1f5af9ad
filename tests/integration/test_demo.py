# SPDX-License-Identifier: Apache-2.0
"""scripts/demo: the Quick Start, from a user's account, from root's for a user, and as root."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.actors import SYSTEM_PATH, actor_kinds, describe, find_actor
from support.console import missing_lines, read_steps

WAYS = {"user": [("user",)], "root": [("root",), ("root", "--root")]}


@pytest.mark.parametrize("way", [way for k in actor_kinds() for way in WAYS[k]], ids=" ".join)
def test_the_demo_ends_well_and_leaves_nothing(
    way: tuple[str, ...], pool_root: Path, readable_checkout: Path
) -> None:
    kind, *options = way
    actor = find_actor(kind).with_environ(PATH=SYSTEM_PATH, HOME="/", LANG="C.UTF-8")
    pool = pool_root / "pool"
    pool.mkdir()
    pool.chmod(0o1777)
    done = actor.run([readable_checkout / "scripts/demo", f"--pool={pool}", *options])
    assert done.returncode == 0, describe(done)
    assert done.stdout.endswith("\ndemo: OK\n")
    assert list(pool.iterdir()) == []
    assert missing_from(readable_checkout / "README.md", done.stdout, pool) == []


@pytest.mark.skipif("root" not in actor_kinds(), reason="needs root to be somebody else")
def test_the_demo_needs_no_account_and_no_simple_name_for_its_pool(
    pool_root: Path, readable_checkout: Path
) -> None:
    nobody = replace(find_actor("user"), uid=54321, gid=54321)
    actor = nobody.with_environ(PATH=SYSTEM_PATH, HOME="/", LANG="C.UTF-8")
    place = pool_root / "place"
    place.mkdir()
    place.chmod(0o1777)
    done = actor.run([readable_checkout / "scripts/demo", f"--pool={place}/a pool, 100%25"])
    assert done.returncode == 0, describe(done)
    assert done.stdout.endswith("\ndemo: OK\n")
    assert list(place.iterdir()) == []


def test_the_demo_says_which_option_there_is_not(readable_checkout: Path) -> None:
    user = find_actor(actor_kinds()[0]).with_environ(PATH=SYSTEM_PATH)
    done = user.run([readable_checkout / "scripts/demo", "--bogus"])
    assert (done.returncode, done.stderr) == (
        2, "demo: error: no such option: --bogus; demo --help lists them\n")


def missing_from(readme: Path, output: str, pool: Path) -> list[str]:
    """What README's Quick Start shows, commands and their output, and the demo did not print."""
    printed = output.replace(str(pool), "/var/tmp/pool")
    quick_start = readme.read_text().partition("## Quick Start")[2].partition("\n## ")[0]
    steps = list(read_steps(quick_start))
    assert len(steps) > 10
    shown = [line for step in steps for line in (f"$ {step.command}", *step.shown)]
    return missing_lines(shown, printed)


@pytest.mark.parametrize("kind", [kind for kind in actor_kinds() if kind == "user"])
def test_the_demo_says_that_its_option_root_needs_root(kind: str, readable_checkout: Path) -> None:
    user = find_actor(kind).with_environ(PATH=SYSTEM_PATH)
    done = user.run([readable_checkout / "scripts/demo", "--root"])
    assert done.returncode == 1
    assert done.stderr.startswith("demo: error: --root needs root; run: sudo scripts/demo --root\n")
