# SPDX-License-Identifier: Apache-2.0
"""Adoption of a core OS without rpm packages, into an rpmdb of the test's own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from redrpm.hostfacts import dpkg_provides
from support.actors import Actor, describe
from support.nodes import make_node
from support.rpms import build_rpm

pytestmark = pytest.mark.skipif(
    not Path("/var/lib/dpkg/status").exists(), reason="this host has packages of rpm"
)


@pytest.fixture
def main(actor: Actor, pool: Path, redmain: Path) -> Path:
    """A main.yaml whose core OS is not adopted."""
    home = pool / "redpak"
    shutil.copytree(redmain.parent, home)
    file = home / "main.yaml"
    text = re.sub(r"(?m)^( *rpmdir:).*", rf"\1 {pool}/core/rpm", file.read_text())
    file.write_text(text)
    subprocess.run(["chown", "-R", f"{actor.uid}:{actor.gid}", home], check=True)
    return file


def adopt(actor: Actor, main: Path, *words: str) -> str:
    return actor.check(["red-dnf", "red-manager", f"--rmain={main}", *words])


def provides(actor: Actor, pool: Path) -> list[str]:
    query = ["rpm", "--dbpath", pool / "core/rpm", "-q", "--provides", "redpak-core-os"]
    return actor.check(query).splitlines()


def test_what_is_registered_is_what_the_host_has(actor: Actor, pool: Path, main: Path) -> None:
    status = Path("/var/lib/dpkg/status").stat().st_mtime_ns
    assert adopt(actor, main, "--adopt").startswith("Core OS adopted: ")
    found = provides(actor, pool)
    libc = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "libc6"], capture_output=True,
                          text=True, check=True).stdout
    assert f"dpkg(libc6) = {libc}" in found
    for name in ("/bin/sh", "/usr/bin/python3", "libc.so.6()(64bit)",
                 "libc.so.6(GLIBC_2.2.5)(64bit)", "rtld(GNU_HASH)"):
        assert name in found, name
    assert any(line.startswith("python(abi) = 3.") for line in found)
    assert any(line.startswith("/lib64/ld-linux") for line in found)
    # Bare names would satisfy rpm packages that mean other files.
    assert not any(line.startswith("libc6") for line in found)
    shown = adopt(actor, main, "--adopt", "--show")
    assert f"registered in {pool}/core/rpm:" in shown and f"dpkg(libc6) = {libc}\n" in shown
    assert Path("/var/lib/dpkg/status").stat().st_mtime_ns == status


def test_nothing_is_rescanned_when_nothing_changed(actor: Actor, pool: Path, main: Path) -> None:
    adopt(actor, main, "--adopt")
    database = pool / "core/rpm/rpmdb.sqlite"
    before = database.stat()
    tracing = pool / "trace"
    command = ["red-dnf", "red-manager", f"--rmain={main}", "--adopt"]
    trace = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", tracing]
    done = actor.run([*trace, *command])
    assert "Core OS adopted already, nothing has changed: " in done.stdout, describe(done)
    assert "elfdeps" not in tracing.read_text()
    after = database.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    actor.check([*trace, *command, "--refresh"])
    assert "elfdeps" in tracing.read_text()
    assert database.stat().st_ino != before.st_ino


def test_an_adoption_can_be_undone(actor: Actor, pool: Path, main: Path) -> None:
    adopt(actor, main, "--adopt")
    assert "no longer adopted" in adopt(actor, main, "--unadopt")
    assert not list((pool / "core/rpm").iterdir())
    assert "was not adopted" in adopt(actor, main, "--unadopt")
    done = actor.run(["red-dnf", "red-manager", f"--rmain={main}", "--adopt", "--show"])
    assert done.returncode == 1 and "the core OS is not adopted" in done.stderr, describe(done)
    assert adopt(actor, main, "--adopt").startswith("Core OS adopted: ")


def test_a_package_may_require_a_version_of_a_package_of_dpkg(
    actor: Actor, pool: Path, session_pool: Path, main: Path
) -> None:
    adopt(actor, main, "--adopt")
    actor = actor.with_environ(redpak_MAIN=str(main))
    node = make_node(actor, pool / "node", "node")
    fits = build_rpm(session_pool / "adoption", "fits", requires=["dpkg(libc6) >= 2.28"])
    none = build_rpm(session_pool / "adoption", "none", requires=["dpkg(libc6) >= 99", "libc6"])
    red_rpm = ["red-rpm", f"--redpath={node.path}", "-i", "--nosignature"]
    actor.check([*red_rpm, fits])
    done = actor.run([*red_rpm, none])
    assert "dpkg(libc6) >= 99 is needed by none" in done.stderr, describe(done)
    assert "libc6 is needed by none" in done.stderr, describe(done)


def test_an_rpmdb_of_a_real_core_os_is_left_alone(
    actor: Actor, pool: Path, session_pool: Path, main: Path
) -> None:
    package = build_rpm(session_pool / "adoption", "real")
    database = pool / "core/rpm"
    actor.check(["mkdir", "-p", database])
    actor.check(["rpm", "--dbpath", database, "--nosignature", "-i", "--justdb", package])
    for option in ("--adopt", "--unadopt"):
        done = actor.run(["red-dnf", "red-manager", f"--rmain={main}", option])
        assert "has an rpmdb (1 packages)" in done.stderr or "was not adopted" in done.stdout
    assert actor.check(["rpm", "--dbpath", database, "-qa"]) == "real-1.0-1.noarch\n"


def test_only_installed_packages_of_dpkg_count() -> None:
    text = """Package: one
Status: install ok installed
Architecture: amd64
Version: 1:2.0-1
Description: first
 Version: 9

Package: two
Status: deinstall ok config-files
Version: 1

Package: three
Status: install ok installed
Architecture: i386
Version: 3
"""
    found = dict(dpkg_provides(text.splitlines(keepends=True), "x86_64"))
    assert found == {"dpkg(one)": "1:2.0-1", "dpkg(three:i386)": "3"}
