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


def already_installed(nevra: str) -> str:
    """What dnf says of a package that is installed."""
    return f'Package "{nevra}" is already' if is_dnf5() else f"Package {nevra} is already"


def mark_as_dependency(package: str) -> list[str]:
    """The command that makes a package one that nobody asked for."""
    return ["red-mark", "-y", "dependency" if is_dnf5() else "remove", package]


def unsigned(dnf4: str) -> str:
    """What dnf says of a package whose signature it does not accept."""
    return "Signature verification failed" if is_dnf5() else dnf4


def stock_dnf(home: object) -> list[str]:
    """The stock command, without repositories, and with what it keeps below home: its state, caches
    and logs. Its rpmdb is where HOME's .rpmmacros says."""
    dnf4 = ["dnf", "--disableplugin=*", f"--setopt=persistdir={home}/state"]
    dnf5 = ["dnf5", "--disable-plugin=*", f"--setopt=system_state_dir={home}/state"]
    return [*(dnf5 if is_dnf5() else dnf4), "-y", "--releasever=1",
            "--setopt=reposdir=/nonexistent", "--setopt=gpgcheck=0",
            "--setopt=localpkg_gpgcheck=0", f"--setopt=cachedir={home}/cache",
            f"--setopt=logdir={home}"]
