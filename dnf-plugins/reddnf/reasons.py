# SPDX-License-Identifier: Apache-2.0
"""What dnf5 noted of a node's packages, for dnf4's history (redrpm.dnfstate)."""

from __future__ import annotations

import re
from typing import Any

import libdnf.transaction

from redrpm.dnfstate import (
    DNF5,
    DNF5_STATE_DIR,
    STATE_DIR,
    last_writer,
    read_entries,
    read_state_file,
)

_REASONS = {
    "Dependency": libdnf.transaction.TransactionItemReason_DEPENDENCY,
    "Weak Dependency": libdnf.transaction.TransactionItemReason_WEAK_DEPENDENCY,
    "Group": libdnf.transaction.TransactionItemReason_GROUP,
    "User": libdnf.transaction.TransactionItemReason_USER,
    "External User": libdnf.transaction.TransactionItemReason_USER,
}


def import_reasons(base: Any, root: str) -> None:
    """Record in dnf4's history what dnf5 noted in ``root``, when dnf5 worked on it last.

    One transaction without packages, as `dnf mark` makes, of what dnf4 does not know or knows
    otherwise.
    """
    if last_writer(f"{root}/{STATE_DIR}") != DNF5:
        return
    state = f"{root}/{DNF5_STATE_DIR}"
    reasons = dict(read_entries(f"{state}/packages.toml"))
    repos = dict(read_entries(f"{state}/nevras.toml"))
    grouped = _group_packages(f"{state}/groups.toml")
    history = base.history
    changed = False
    for package in base.sack.query().installed():
        name = reasons.get(f"{package.name}.{package.arch}")
        reason = _REASONS.get(name or ("Group" if package.name in grouped else ""))
        repo = repos.get(str(package), "")
        if reason is None or (history.rpm.get_reason(package), history.repo(package)) == (
            reason,
            repo,
        ):
            continue
        # history.set_reason() would leave the repository out, which dnf4 does not know yet.
        item = history.swdb.addItem(
            history.rpm._pkg_to_swdb_rpm_item(package),
            repo,
            libdnf.transaction.TransactionItemAction_REASON_CHANGE,
            reason,
        )
        item.setState(libdnf.transaction.TransactionItemState_DONE)
        changed = True
    if changed:
        version = base._ts.dbCookie()
        history.beg(version, [], [], "redpak: what dnf5 did")
        history.end(version)
        history.close()  # or the command's own transaction could not begin


def _group_packages(path: str) -> set[str]:
    """The packages that dnf5 has installed as part of groups."""
    lists: list[str] = re.findall(r"packages = \[([^]]*)\]", read_state_file(path))
    return {name for text in lists for name in re.findall(r'"([^"]+)"', text)}

