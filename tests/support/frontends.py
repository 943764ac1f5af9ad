# SPDX-License-Identifier: Apache-2.0
"""The dnf under test: the same tests run against dnf4 and dnf5.

REDPAK_TEST_DNF names it; without that it is dnf4. What the two are told, and what they say, differs
in a few words: tests speak dnf4, and what they say is translated here.
"""

from __future__ import annotations

import os


def dnf_under_test() -> str:
    """What red-dnf takes in --dnf=."""
    return os.environ.get("REDPAK_TEST_DNF", "dnf4")


def is_dnf5() -> bool:
    return dnf_under_test() == "dnf5"


# What each of them says, dnf4 and dnf5.
_SAYS = {
    "already installed": ("Package {} is already", 'Package "{}" is already'),
    "unknown package": ("Unable to find a match: {}", "No match for argument: {}"),
    "cannot download": ("{0}: Cannot download", "Cannot download {0}.rpm"),
    "corrupt package": ("digest: BAD", "Failed to read package header from file"),
    "unsigned": ("Package {}.rpm is not signed", "Signature verification failed"),
    "signed by another key": ("GPG Keys are configured as", "Signature verification failed"),
    "disk too small": ("more space needed on the", "more space on the"),
    "disk full": ("full", "No space left on device"),
    "pre failed": ("Error in PREIN scriptlet in rpm package {0}", "%prein({0}-1.0-1.noarch)"),
    "preun failed": ("Error in PREUN scriptlet in rpm package {0}", "%preun({0}-1.0-1.noarch)"),
    "post failed": ("Error in POSTIN scriptlet in rpm package {0}", "%post({0}-1.0-1.noarch)"),
    "no metadata": ("Failed to download metadata for repo", "Curl error"),
    "no metadata of": ("Failed to download metadata for repo '{}'", 'for repository "{}": Usable'),
}


def says(what: str, *about: str) -> str:
    """What the dnf under test says, a key of the table, about packages or repositories."""
    return _SAYS[what][is_dnf5()].format(*about)


def progress(action: str) -> str:
    """A pattern of the bar that shows how far a transaction is."""
    return rf"{action} .*\[=+ *\]" if is_dnf5() else rf"{action} +:.*\[=* *\]"


def mark_as_dependency(package: str) -> list[str]:
    """The command that makes a package one that nobody asked for."""
    return ["red-mark", "-y", "dependency" if is_dnf5() else "remove", package]


def stock_dnf(home: object) -> list[str]:
    """The stock command, without repositories, and with what it keeps below home: its state, caches
    and logs. Its rpmdb is where HOME's .rpmmacros says."""
    dnf4 = ["dnf", "--disableplugin=*", f"--setopt=persistdir={home}/state"]
    dnf5 = ["dnf5", "--disable-plugin=*", f"--setopt=system_state_dir={home}/state"]
    return [*(dnf5 if is_dnf5() else dnf4), "-y", "--releasever=1",
            "--setopt=reposdir=/nonexistent", "--setopt=gpgcheck=0",
            "--setopt=localpkg_gpgcheck=0", f"--setopt=cachedir={home}/cache",
            f"--setopt=logdir={home}"]


def interrupts_to_end() -> int:
    """How often Ctrl-C has to be pressed while a scriptlet hangs: dnf4 hears none meanwhile, and
    the second ends it."""
    return 1 if is_dnf5() else 2


def status_of_interrupt() -> int:
    """The exit status after that: dnf5 ends by itself with its own, dnf4 is ended."""
    return 1 if is_dnf5() else 130
