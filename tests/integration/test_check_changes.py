# SPDX-License-Identifier: Apache-2.0
"""red-check with its memory and without it, on two nodes that are changed at random.

REDPAK_FUZZ_SECONDS is how long, 8 by default. In this process: a check then takes 30 ms.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import redcheck.verify
import redcheck.walk
from redcheck.engine import Options, check, locked_scope
from redcheck.scope import Request
from support.actors import actor_kinds
from support.installing import Installation
from support.nodes import make_node
from support.rpms import RpmFile, build_rpm, create_repository
from support.trees import remove_tree

SECONDS = float(os.environ.get("REDPAK_FUZZ_SECONDS", "8"))
PLACES = ("usr/share", "usr/share/base", "usr/share/base/deep", "opt", "opt/base", "var",
          "var/lib", "var/lib/base", "var/lib/base/state", "var/empty", "var/empty/dir", "apps",
          "apps/deep", "home", "home/u", "etc")
_MARGIN = 0.005  # seconds; the kernel's clock of files ticks at least every 4 ms


def build_repository(directory: Path) -> Path:
    build_rpm(directory, "base", files={
        "/usr/share/base/data": "base\n", "/usr/share/base/deep/er/file": "deep\n",
        "/opt/base/data": "opt\n", "/var/lib/base/state/data": "state\n", "/home/u/data": "home\n",
        "/apps/note": "note\n", "/apps/deep/data": "apps\n",
        "/etc/base.conf": RpmFile("a=1\n", directive="%config"),
        "/var/ghost": RpmFile("", directive="%ghost")},
        install="mkdir -p %{buildroot}/var/empty/dir", extra_files="%dir /var/empty/dir")
    build_rpm(directory, "app", files={
        "/usr/share/base/app": "app\n", "/opt/base/app": "app\n",
        "/var/lib/base/state/app": "app\n"})
    return create_repository(directory)


def move(place: Path, generator: random.Random) -> None:
    """Perhaps with a link in its place, which may lead back, elsewhere, or nowhere."""
    target = place.with_name(f"{place.name}-{generator.choice('ab')}")
    place.rename(target)
    link = generator.choice([target.name, "/usr/share/base", "nowhere", place.name, "", ""])
    if link:
        place.symlink_to(link)


def move_back(place: Path, generator: random.Random) -> None:
    if place.is_symlink():
        place.unlink()
    place.with_name(f"{place.name}-{generator.choice('ab')}").rename(place)


def change_file(place: Path, generator: random.Random) -> None:
    file = generator.choice(sorted(each for each in place.iterdir() if each.is_file()))
    change: Callable[[], object] = generator.choice([
        file.unlink, lambda: file.write_bytes(b"x" * file.stat().st_size),
        lambda: file.chmod(0o600), lambda: os.utime(file, (1, 1)),
        lambda: file.rename(file.with_name("moved"))])
    change()


CHANGES: tuple[Callable[[Path, random.Random], object], ...] = (
    move, move, move_back, move_back, change_file, change_file,
    lambda place, generator: remove_tree(place),
    lambda place, generator: place.mkdir(parents=True, exist_ok=True),
    lambda place, generator: place.chmod(generator.choice([0o755, 0o700, 0o777])),
    lambda place, generator: (place / generator.choice(["data", "stray"])).write_text("evil\n"),
    lambda place, generator: (place / "passwd").write_text(
        f"{generator.choice(['root', 'toor'])}:x:0:0::/:/bin/sh\n"),
)


Answer = tuple[list[list[object]], list[str]]


def find(node: Path, *, use_cache: bool, jobs: int) -> Answer:
    redcheck.verify._parse_names.cache_clear()  # a process checks once
    with locked_scope(Request(str(node), wide="tree"), os.environ, print) as scope:
        report = check(scope, Options(use_cache=use_cache, jobs=jobs), os.environ)
    return [finding.stored() for finding in report.findings], report.unchecked


def test_what_is_remembered_makes_no_difference(
        installation: Installation, pool_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = installation.actor(actor_kinds()[-1], pool_root / "home")
    repository = build_repository(pool_root / "repository")
    make_node(actor, pool_root / "saved", "parent", repository).install("base")
    make_node(actor, pool_root / "saved/apps/child", "child", repository).install("app")
    monkeypatch.setattr(redcheck.walk, "_MARGIN_NS", int(_MARGIN * 10**9))
    monkeypatch.setenv("redpak_MAIN", str(installation.main))
    monkeypatch.setenv("HOME", str(pool_root / "home"))
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    generator = random.Random(seed)
    node, end = pool_root / "node", time.monotonic() + SECONDS
    while time.monotonic() < end:
        with suppress(FileNotFoundError):
            remove_tree(node)
        shutil.copytree(pool_root / "saved", node, symlinks=True)
        done: list[str] = []
        for _ in range(20):
            time.sleep(2 * _MARGIN)
            warm = find(node, use_cache=True, jobs=generator.choice([1, 2]))
            assert warm == find(node, use_cache=False, jobs=1), done
            for _ in range(generator.randint(1, 3)):
                place = (node / generator.choice(["", "", "apps/child"])
                         / generator.choice(PLACES))
                number = generator.randrange(len(CHANGES))
                # The child alone is moved nowhere: both are nodes only where they are.
                if place.name == "apps" and number in (0, 1, 6):
                    continue
                done.append(f"{number} {place.relative_to(node)}")
                with suppress(OSError, IndexError):
                    CHANGES[number](place, generator)
