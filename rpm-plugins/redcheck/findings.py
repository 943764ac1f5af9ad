# SPDX-License-Identifier: Apache-2.0
"""What a check finds, and the table of everything it can find."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping

from redpak.errors import TYPE_CHECKING
from redpak.values import dataclass, fields

if TYPE_CHECKING:
    from typing import Any


class Severity(enum.Enum):
    """How bad a finding is. Errors and warnings fail the proof, a note does not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Rule:
    """One kind of finding: what it means, why it matters and what to do."""

    name: str
    severity: Severity
    title: str
    why: str
    remedy: str
    group: str  # the part of a check that it belongs to


def _rules(*rows: tuple[str, Severity, str, str, str, str]) -> Mapping[str, Rule]:
    return {row[0]: Rule(*row) for row in rows}


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

RULES: Mapping[str, Rule] = _rules(
    ("dependency", _E, "unmet dependency",
     "a program of this package will fail on the target: nothing in its family has what it needs",
     "install what is missing in the node or in an ancestor, or remove the package",
     "dependencies"),
    ("conflict", _E, "conflicting packages",
     "the packages say of themselves that they do not work together",
     "remove one of them", "dependencies"),
    ("obsolete", _E, "obsoleted package",
     "another package of the family replaces it; an upgrade would remove it",
     "remove the obsoleted package", "obsoleted"),
    ("duplicate", _E, "package installed twice",
     "two builds of one package share their paths; which one is used is undefined",
     "remove the older build", "duplicates"),
    ("shadow", _W, "package of an ancestor is shadowed",
     "this family uses another copy than its relatives, and gets none of the ancestor's updates",
     "remove the node's copy, or accept the finding with --baseline when it was meant",
     "duplicates"),
    ("file-conflict", _E, "file conflict",
     "two packages of the family ship different files at one path; one of them gets the other's",
     "remove one of the packages", "files"),
    ("missing-file", _E, "missing file",
     "the package is not whole: what uses the file will fail",
     "reinstall the package", "files"),
    ("changed-file", _E, "changed file",
     "the file is not what its package shipped: it was damaged or tampered with",
     "reinstall the package", "files"),
    ("changed-config", _N, "changed configuration file",
     "an administrator changed it; an upgrade keeps the change",
     "nothing, if the change was meant", "files"),
    ("unowned-file", _W, "file of no package",
     "nothing tells where it came from, and no upgrade will ever replace or remove it",
     "package it, move it to var or private, or remove it", "files"),
    ("derived-file", _N, "derived file",
     "it was made from the state of the family when it was made, and may be out of date",
     "nothing, if something makes it anew", "files"),
    ("rpmdb", _E, "damaged rpmdb",
     "what the node has installed cannot be told with certainty",
     "restore the node from a backup, or create it anew", "provides"),
    ("unsigned", _E, "package without signature",
     "gpgcheck is required, and nothing proves who built the package",
     "reinstall it from a repository of signed packages", "signatures"),
    ("untrusted", _E, "signature by a key that the family does not trust",
     "gpgcheck is required, and no key of the family vouches for the package",
     "import the key of its builder, or remove the package", "signatures"),
    ("configuration", _E, "faulty configuration",
     "red-wrap and dnf refuse to work on the node",
     "correct the file", "configuration"),
    ("merge", _W, "configuration without effect",
     "what the node says does not hold in its family",
     "change the entry, or take it out", "configuration"),
    ("loosened", _E, "attempt to loosen a constraint",
     "a node must not take back what an ancestor insists on; the attempt is ignored",
     "take the setting out, or change it in the ancestor", "configuration"),
    ("export-source", _E, "export without source",
     "red-wrap refuses to start applications of the node",
     "create the source, or make the entry `optional: true`", "configuration"),
    ("hidden-files", _W, "mount hides files of a package",
     "applications see something else than what the package installed",
     "mount it elsewhere", "configuration"),
    ("alias", _E, "alias used twice",
     "one family cannot have two nodes of the same alias; every command refuses it",
     "change headers.alias of one of them", "configuration"),
    ("name", _E, "name used twice",
     "logs and tools cannot tell the nodes apart",
     "give one of them a new name with red-manager --update --name=NAME", "configuration"),
    ("owner", _E, "ancestor of another owner",
     "an ancestor's programs run with the rights of the node's owner",
     "give both to one owner, or the ancestor to root", "configuration"),
    ("state", _E, "node is not enabled",
     "every command refuses to work on it",
     "set it right with red-manager --state=Enable", "status"),
    ("moved", _E, "node is not where it was created",
     "every command refuses to work on it",
     "accept its place with red-manager --update", "status"),
    ("expired", _E, "proof is too old",
     "maxage: red-wrap refuses to start applications of the node",
     "check it again, where it can be written", "status"),
    ("journal", _E, "unfinished commit",
     "a command was killed in the middle of a commit: the node is neither the old nor the new one",
     "finish it with red-manager --recover", "status"),
    ("stage", _W, "left-over of a killed command",
     "it takes up room, and shows that a command did not end as it should",
     "clear it with red-manager --recover", "status"),
    ("differs", _E, "not as the manifest says",
     "what would ship is not what was frozen",
     "install exactly what the manifest lists, or freeze the tree again", "manifest"),
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where.

    ``node`` is the path that the node has on the target, "/" for the core OS. ``path`` is a file
    as the node's packages call it; ``file`` and ``line`` stand for a place in a configuration.
    """

    rule: Rule
    node: str
    message: str
    alias: str = ""
    family: str = ""  # the aliases from the oldest ancestor to the node, joined by "/"
    package: str = ""
    path: str = ""
    file: str = ""
    line: int = 0
    remedy: str = ""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.rule.severity

    @property
    def what_to_do(self) -> str:
        """The remedy: of this finding, else of its kind."""
        return self.remedy or self.rule.remedy

    @property
    def fingerprint(self) -> str:
        """The same for the same finding on another machine and after lines were moved."""
        parts = (self.rule.name, self.family or self.node, self.package, self.path, self.message)
        return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:32]

    def data(self) -> dict[str, Any]:
        """The finding as JSON knows it."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            **values,
            "rule": self.rule.name,
            "severity": self.severity.value,
            "why": self.rule.why,
            "remedy": self.what_to_do,
            "fingerprint": self.fingerprint,
        }

    def stored(self) -> list[Any]:
        """The finding as the cache keeps it."""
        return [self.rule.name, *(getattr(self, each.name) for each in fields(self)[1:])]

    @classmethod
    def restore(cls, row: list[Any]) -> Finding:
        """What stored() gave. Raises KeyError, TypeError for anything else."""
        return cls(RULES[row[0]], *row[1:])
