# SPDX-License-Identifier: Apache-2.0
"""The campaign of seeded defects: `tox -e defects -- --defects=300`.

Trees of 1 to 30 nodes with real packages, half of them images (--redroot). Of each tree the
unharmed state must be proven with nothing found; then defects are seeded into random nodes, one at
a time, and each must be found at its node. Nothing may be found elsewhere but in the nodes below,
which stand on the harmed one. Nothing else may be found without what the cache knows, and an image
must be the same to the last byte and time after a check.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.actors import Actor, actor_kinds, describe
from support.checktrees import LARGEST, CheckNode, Stock, Tree, build_stock, make_tree
from support.defects import HARMS, Harm
from support.installing import CHECKOUT, Installation
from support.trees import remove_tree, snapshot_tree

EACH_TREE = 15  # defects


@dataclass(frozen=True)
class Outcome:
    """One seeded defect: what was expected, and "" or what went wrong."""

    actor: str
    image: bool
    size: int
    harm: str
    node: str
    rule: str
    problem: str


def check(tree: Tree, *words: str) -> dict[str, object]:
    """Run red-check; its report. An image must not change."""
    before = snapshot_tree(tree.top) if tree.image else None
    done = tree.actor.run([*tree.command, *words])
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, describe(done)
    if before is not None:
        assert snapshot_tree(tree.top) == before, "the image was changed"
    report: dict[str, object] = json.loads(done.stdout)
    assert report["status"] == done.returncode
    return report


def check_unharmed(tree: Tree) -> None:
    """Raises AssertionError when anything is found."""
    report = check(tree)
    assert report["proven"] and not report["findings"], json.dumps(report["findings"], indent=1)


def seed_defect(tree: Tree, harm: Harm, node: CheckNode, generator: random.Random) -> Outcome:
    """Harm a node, and see whether that is found."""
    kind = tree.actor.kind
    rule, text = harm(tree, node, generator)
    try:
        report = check(tree)
        problem = judge(tree, node, rule, text, report)
        if not tree.image and check(tree, "--no-cache")["findings"] != report["findings"]:
            problem = problem or "what the cache knows makes a difference"
    except AssertionError as err:
        problem = str(err)
    return Outcome(kind, tree.image, len(tree.nodes), harm.__name__, node.alias, rule, problem)


def judge(tree: Tree, node: CheckNode, rule: str, text: str, report: dict[str, object]) -> str:
    """ "" when the defect was found at its node, and nothing else but what follows from it."""
    findings: list[dict[str, str]] = report["findings"]  # type: ignore[assignment]
    where = tree.inside(node.path)
    hits = [each for each in findings if each["rule"] == rule and each["node"] == where
            and any(text in each[key] for key in ("message", "path", "package", "file"))]
    if not hits:
        return f"{rule} ({text}) not found in {where}: {json.dumps(findings, indent=1)}"
    concerned = {tree.inside(each.path) for each in tree.nodes if each.has_ancestor(node)}
    if rule in ("name", "owner"):  # it concerns a pair, or all children of the harmed ancestor
        concerned = {tree.inside(each.path) for each in tree.nodes}
    strangers = [each for each in findings if each["node"] not in concerned]
    if strangers:
        return f"found elsewhere too: {json.dumps(strangers, indent=1)}"
    proven = all(each["severity"] == "note" for each in findings)
    return "" if report["proven"] == proven else "the verdict does not fit the findings"


def campaign(actor: Actor, stock: Stock, ground: Path, defects: int,
             generator: random.Random) -> list[Outcome]:
    """Seed ``defects`` defects into as many trees as that needs, each kind about as often."""
    queue: list[Harm] = []
    sizes: list[int] = []
    outcomes: list[Outcome] = []
    while len(outcomes) < defects:
        number = len(outcomes)
        if not sizes:  # from one node to the most, so that each campaign of some length has both
            sizes = [1, 2, 3, generator.randint(4, 12), generator.randint(13, LARGEST - 1), LARGEST]
            generator.shuffle(sizes)
        size = sizes.pop()
        tree = make_tree(actor, stock, ground / f"{actor.kind}-{number}", generator, size=size,
                         image=number // EACH_TREE % 2 == 1, conf=CHECKOUT / "conf")
        try:
            check_unharmed(tree)
            tree.keep()
            for _ in range(min(EACH_TREE, defects - len(outcomes))):
                if not queue:
                    queue = generator.sample(HARMS, len(HARMS))
                outcomes.append(seed_defect(tree, queue.pop(), generator.choice(tree.nodes),
                                            generator))
                tree.restore()
        finally:
            tree.remove()
        print(f"{actor.kind}: tree of {size} nodes{' (image)' if tree.image else ''},"
              f" {len(outcomes)} defects", file=sys.stderr, flush=True)
    return outcomes


def prepare(ground: Path) -> tuple[Stock, dict[str, Actor]]:
    """The packages, an installation of the checkout, and who runs it."""
    installation = Installation.make(ground / "prefix")
    stock = build_stock(ground / "stock")
    return stock, {kind: installation.actor(kind, ground / f"home-{kind}")
                   for kind in actor_kinds()}


def report(outcomes: list[Outcome], seed: int, seconds: float) -> bool:
    """Print what was found; whether that was everything."""
    missed = [each for each in outcomes if each.problem]
    print(f"seed {seed}: {len(outcomes)} defects in trees of"
          f" {min(each.size for each in outcomes)} to {max(each.size for each in outcomes)} nodes,"
          f" {sum(each.image for each in outcomes)} of them in images, in {seconds / 60:.1f} min")
    print(f"found at the right node: {len(outcomes) - len(missed)}; missed: {len(missed)}")
    rules = Counter(each.rule for each in outcomes)
    print("by kind:", ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items())))
    for each in missed:
        print(f"\nMISSED: {each.actor} {each.harm} in {each.node} of {each.size} nodes"
              f"{' (image)' if each.image else ''}: {each.problem}")
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--defects", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--pool", default="/var/tmp", help="directory for trees (/var/tmp)")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    ground = Path(tempfile.mkdtemp(prefix="redpak-defects.", dir=options.pool)).resolve()
    ground.chmod(0o755)
    start = time.monotonic()
    outcomes: list[Outcome] = []
    try:
        stock, actors = prepare(ground)
        for number, actor in enumerate(actors.values()):
            share = options.defects // len(actors) + (number < options.defects % len(actors))
            generator = random.Random(f"{options.seed} {actor.kind}")
            outcomes += campaign(actor, stock, ground, share, generator)
    finally:
        remove_tree(ground)
    return 0 if report(outcomes, options.seed, time.monotonic() - start) else 1


if __name__ == "__main__":
    sys.exit(main())
