# SPDX-License-Identifier: Apache-2.0
"""A short campaign of seeded defects (tests/campaign/defects.py): each kind once."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from campaign.defects import CHECKOUT, check, check_unharmed, seed_defect
from support.actors import Actor, describe
from support.checktrees import Stock, build_stock, make_tree
from support.defects import HARMS
from support.trees import remove_tree


@pytest.fixture(scope="module")
def stock(session_pool: Path) -> Stock:
    return build_stock(session_pool / "check-stock")


@pytest.mark.parametrize("image", [False, True], ids=["pool", "image"])
def test_every_kind_of_defect_is_found(actor: Actor, pool: Path, stock: Stock, *,
                                       image: bool) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    generator = random.Random(seed)
    tree = make_tree(actor, stock, pool / "tree", generator, size=generator.randint(3, 6),
                     image=image, conf=CHECKOUT / "conf")
    check_unharmed(tree)
    tree.keep()
    missed = []
    # Each kind once for each actor: what one meets in a pool, the other meets in an image.
    harms = HARMS[(image + (actor.kind == "root")) % 2::2]
    for harm in generator.sample(harms, len(harms)):
        outcome = seed_defect(tree, harm, generator.choice(tree.nodes), generator)
        if outcome.problem:
            missed.append(f"{outcome.harm} in {outcome.node}: {outcome.problem}")
        tree.restore()
    assert not missed, "\n".join(missed)


def test_links_of_an_image_stay_in_it(actor: Actor, pool: Path, stock: Stock) -> None:
    """What an image says of itself is never looked for on this machine."""
    tree = make_tree(actor, stock, pool / "tree", random.Random(1), size=2, image=True,
                     conf=CHECKOUT / "conf")
    node = tree.nodes[0]
    secret = pool / "secret"
    secret.write_text("top secret: yes\n")
    tree.keep()
    for name in ("etc/redpack.yaml", "etc", ".rednode.yaml"):
        place = node.path / name
        if place.is_dir():
            remove_tree(place)
        else:
            place.unlink()
        place.symlink_to(secret if place.name != "etc" else "/etc")
        done = actor.run(tree.command)
        assert done.returncode == 1, describe(done)
        assert "lies behind, a symbolic link" in done.stdout, describe(done)
        assert "secret: yes" not in done.stdout + done.stderr
        tree.restore()
    rpmdb = node.path / "var/lib/rpm"
    remove_tree(rpmdb)
    rpmdb.symlink_to("/var/lib/rpm")  # the core OS's, in the image: not this machine's
    done = actor.run(tree.command)
    assert done.returncode == 1 and str(tree.top) in done.stdout, describe(done)


def test_a_write_ahead_log_is_read_and_left_alone(actor: Actor, pool: Path, stock: Stock) -> None:
    tree = make_tree(actor, stock, pool / "tree", random.Random(2), size=2, image=True,
                     conf=CHECKOUT / "conf")
    path = tree.nodes[1].path / "var/lib/rpm/rpmdb.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("DELETE FROM Providename WHERE key = 'p004'")
    database.commit()
    assert path.with_name("rpmdb.sqlite-wal").stat().st_size > 0
    tree.give(path.parent)
    try:
        report = check(tree)
    finally:
        database.close()
    assert [each["rule"] for each in report["findings"]] == ["rpmdb"]  # type: ignore[index]
