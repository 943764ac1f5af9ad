# SPDX-License-Identifier: Apache-2.0
"""Coherence: whether the packages of a node still fit on those of its ancestors.

librpm judges: the node's packages are put to a test transaction on the family rpmdb of its
ancestors, which checks dependencies, conflicts and file conflicts; nothing is run or written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rpm

from redpak.errors import RedpakError
from redpak.node import Node, read_node
from redpak.values import dataclass
from redrpm.rpmdb import Member, copy_member, open_rpmdb, read_index
from redrpm.scratch import ScratchDirectory

# Of no concern: room on the disk, packages "already installed", package files (there are none).
_IGNORED = (
    rpm.RPMPROB_FILTER_DISKSPACE
    | rpm.RPMPROB_FILTER_DISKNODES
    | rpm.RPMPROB_FILTER_REPLACEPKG
    | rpm.RPMPROB_FILTER_OLDPACKAGE
    | rpm.RPMPROB_FILTER_IGNOREARCH
    | rpm.RPMPROB_FILTER_IGNOREOS
    | rpm.RPMPROB_FILTER_VERIFY
)


@dataclass(frozen=True)
class Incoherence:
    """A node whose packages do not fit (any more), with what librpm says."""

    path: str
    alias: str
    problems: Sequence[str]

    def __str__(self) -> str:
        return f"node {self.alias} ({self.path}): {'; '.join(self.problems)}"


def find_incoherences(
    node: Node, descendants: Sequence[str], *, before: Callable[[], str], after: str
) -> list[Incoherence]:
    """The descendants of ``node`` that fit on rpmdb ``before()`` and no longer fit on ``after``.

    Both hold what ``node`` and its ancestors have. Raises RedpakError, OSError.
    """
    found = []
    for path in descendants:
        try:
            chain = [read_node(step) for step in nodes_between(node.path, path, descendants)]
            with _copies(chain) as members:
                problems = find_problems(after, members)
                if problems:
                    problems -= find_problems(before(), members)
            alias = chain[-1].alias
        except RedpakError as err:
            problems, alias = {f"it cannot be checked: {err}"}, "?"
        if problems:
            found.append(Incoherence(path, alias, sorted(problems)))
    return found


def find_problems(base: str, members: Sequence[Member]) -> set[str]:
    """What librpm has against the packages of ``members``, oldest first, on top of rpmdb ``base``.

    A package that two of them have counts as the youngest has it; one that ``base`` has too is
    replaced, as shadowing does.
    """
    headers: dict[str, list[Any]] = {}
    for member in members:
        own: dict[str, list[Any]] = {}
        with open_rpmdb(member.directory) as ts:
            for header in ts.dbMatch():
                if header[rpm.RPMTAG_NAME] != "gpg-pubkey":
                    own.setdefault(header[rpm.RPMTAG_NAME], []).append(header)
        headers.update(own)
    with open_rpmdb(base) as ts:
        below = set(read_index(ts).values())
        # Without the numbers that headers have in their own rpmdbs: librpm would take the header
        # of that number in ``base`` for the package itself, with which it cannot conflict.
        _add(ts, {name: [rpm.hdr(header.unload()) for header in builds]
                  for name, builds in headers.items()}, below)
        ts.check()
        problems = [str(problem) for problem in ts.problems() or ()]
        ts.clear()
        # With a number: for one without librpm would open the package's file.
        _add(ts, headers, below)
        ts.order()
        ts.setFlags(rpm.RPMTRANS_FLAG_TEST)
        ts.setProbFilter(_IGNORED)
        problems += [str(text) for text, _details in ts.run(lambda *_event: None, "") or ()]
        # librpm takes a header that comes from an rpmdb for an installed package.
        return {problem.replace("(installed) ", "") for problem in problems}


def _add(ts: Any, headers: dict[str, list[Any]], below: set[str]) -> None:
    for name, builds in headers.items():
        for header in builds:
            ts.addInstall(header, name, "u" if name in below else "i")


def nodes_between(node: str, descendant: str, descendants: Sequence[str]) -> list[str]:
    """The nodes below ``node`` on the way to ``descendant``, and that one, oldest first."""
    return sorted(
        path
        for path in descendants
        if path.startswith(f"{node}/") and f"{descendant}/".startswith(f"{path}/")
    )


@contextmanager
def _copies(nodes: Sequence[Node]) -> Iterator[list[Member]]:
    with ScratchDirectory() as work:
        yield [
            copy_member(Member(node.path, node.rpmdb_dir), os.path.join(work, str(number)))
            for number, node in enumerate(nodes)
        ]
